//go:build unix

package drain

// connKinds are the kinds of connections that are tracked.
var connKinds = []string{"tcp", "unix", "foreign"}

// cutRaces is how often TestConnCutRace tries.
const cutRaces = 100
