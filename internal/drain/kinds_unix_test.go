//go:build unix

package drain

import "golang.org/x/sys/unix"

// connKinds are the kinds of connections that are tracked.
var connKinds = []string{"tcp", "unix", "foreign"}

// cutRaces is how often TestConnCutRace tries.
const cutRaces = 100

// isSocket asks the system.
func isSocket(fd uintptr) bool {
	_, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil
}
