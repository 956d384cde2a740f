//go:build unix

package cluster

import (
	"fmt"
	"os"
	"syscall"
)

// addressInUse is what programs say of an address that somebody else has.
var addressInUse = syscall.EADDRINUSE.Error()

// uid is the user as whom this process opens sockets.
func uid() int { return os.Getuid() }

// whoOpens says in an error message who opens the sockets of the workers: where a
// worker is another user than its master, a port may be forbidden to the one and
// not to the other.
func whoOpens(uid int) string { return fmt.Sprintf("the master opens it, as uid %d", uid) }

// isOther reports whether workers run as another user than this process.
func (c *Credential) isOther() bool { return c != nil && int(c.UID) != os.Geteuid() }
