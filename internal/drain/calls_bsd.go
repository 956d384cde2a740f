//go:build unix && !linux

package drain

import (
	"os"

	"golang.org/x/sys/unix"
)

// interruptThreads sends a signal to one thread of this process, whichever the system
// takes: it lists none. A call that waits in another one may go on until the drain's time
// is up.
func interruptThreads(sig unix.Signal) { unix.Kill(os.Getpid(), sig) }
