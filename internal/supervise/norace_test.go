//go:build !race

package supervise

// thinned is 1 without the race detector: all cases are tried.
const thinned = 1
