//go:build unix

package process

import (
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// HasTerminal reports whether this process has a controlling terminal.
func HasTerminal() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// Terminal watches the controlling terminal that this process has, for its end.
// Methods of a nil one are those of none.
type Terminal struct {
	leader *os.File      // of the session: whose end takes the terminal away; nil if that cannot be watched
	gone   chan struct{} // closed when the leader has ended
	goneAt atomic.Int64  // ns since 1970
}

// FindTerminal returns this process's, or nil if it has none. Close ends the watch.
func FindTerminal() *Terminal {
	if !HasTerminal() {
		return nil
	}
	t := &Terminal{gone: make(chan struct{})}
	if sid, err := unix.Getsid(0); err == nil && sid > 0 && sid != os.Getpid() {
		t.leader = openProcess(sid)
	}
	if t.leader != nil {
		go t.watch()
	}
	return t
}

func (t *Terminal) watch() {
	if waitReadable(t.leader) {
		t.goneAt.Store(time.Now().UnixNano())
		close(t.gone)
	}
}

// Close ends the watch.
func (t *Terminal) Close() {
	if t != nil && t.leader != nil {
		t.leader.Close()
	}
}

const (
	// hangUpTime is how long after the signal the terminal may still be there.
	hangUpTime = 250 * time.Millisecond
	// hangUpPast is how long after the terminal's end the signal may still come.
	hangUpPast = 5 * time.Second
)

// HungUp reports whether a SIGHUP that has just come is that of the terminal,
// which was closed. A shell sends it too, a moment before it ends. If the terminal
// was gone long before, as that of a program that was disowned, it is somebody
// else's.
func (t *Terminal) HungUp() bool {
	if t == nil {
		return false
	}
	if HasTerminal() {
		select {
		case <-t.gone:
		case <-time.After(hangUpTime):
		}
		if HasTerminal() {
			return false
		}
	}
	select {
	case <-t.gone:
		return time.Since(time.Unix(0, t.goneAt.Load())) < hangUpPast
	default:
		return true
	}
}
