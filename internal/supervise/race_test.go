//go:build race

package supervise

// thinned is how many times fewer cases are tried where there are hundreds. Under
// the race detector each takes ten times as long, and it has nothing to find here:
// the machine is data, of one goroutine.
const thinned = 7
