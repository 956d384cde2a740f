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

// Terminal watches for the end of this process's controlling terminal. A nil *Terminal
// stands for no terminal; its methods may be called.
type Terminal struct {
	leader *os.File      // the session leader, with whose end the terminal goes; nil if it cannot be watched
	gone   chan struct{} // closed when the leader has ended
	goneAt atomic.Int64  // ns since 1970
}

// FindTerminal returns this process's Terminal, or nil if it has none. Close ends the
// watch.
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
	// hangUpTime is how long after its SIGHUP a terminal may still be there.
	hangUpTime = 250 * time.Millisecond
	// hangUpPast is how long after the terminal's end its SIGHUP may still come.
	hangUpPast = 5 * time.Second
)

// HungUp reports whether a SIGHUP that has just come means that the terminal was closed.
// It waits for up to hangUpTime, since a shell sends the signal a moment before it ends.
// If the terminal was gone long before, as that of a program that was disowned, the signal
// has another sender.
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
