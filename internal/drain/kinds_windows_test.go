package drain

import "golang.org/x/sys/windows"

// connKinds are the kinds of connections that are tracked.
var connKinds = []string{"tcp", "foreign"}

// cutRaces is how often TestConnCutRace tries: under Wine each round trip takes
// ten times as long.
const cutRaces = 20

// isSocket asks the system.
func isSocket(fd uintptr) bool {
	_, err := windows.GetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, 0x1008 /* SO_TYPE */)
	return err == nil
}
