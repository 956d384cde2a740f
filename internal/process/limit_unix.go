//go:build unix

package process

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A Go program raises its limit of open files at its start. The processes that it starts get
// back the limit that it began with, since select(2) fails with a descriptor above 1,023.
// The runtime sees to that, until an exec of this process fails: that has set the limit
// back, and forgotten which one it was.

// fileLimit is the limit with which processes begin.
type fileLimit struct {
	mu   sync.Mutex
	soft uint64 // 0: the runtime knows it
}

// fileReserve is how many descriptors have to be free below the limit, to begin a process
// and for whatever else is opened meanwhile.
const fileReserve = 64

// LimitFiles says which limit of open files processes are to begin with from now on, since
// the runtime does not know it any more. 0 is none.
func (l *Launcher) LimitFiles(soft uint64) {
	l.files.mu.Lock()
	defer l.files.mu.Unlock()
	l.files.soft = soft
}

// limited calls start while this process has the limit that its processes are to begin with.
// So they remember it as after any other fork: to set it in a process that runs comes too
// late for a Go program. A process that has too many files open keeps its limit, and so have
// those that it begins.
func (l *Launcher) limited(start func() (*os.Process, error)) (*os.Process, error) {
	l.files.mu.Lock()
	if l.files.soft == 0 {
		l.files.mu.Unlock()
		return start()
	}
	defer l.files.mu.Unlock()
	var raised unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &raised) != nil {
		return start()
	}
	low := raised
	assign(&low.Cur, l.files.soft)
	if !fits(l.files.soft) || unix.Setrlimit(unix.RLIMIT_NOFILE, &low) != nil {
		return start()
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &raised)
	return start()
}

// fits reports whether there is room below the limit.
func fits(soft uint64) bool {
	fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return uint64(fd)+fileReserve < soft
}

// assign sets a limit, whose type is another one on each system.
func assign[N ~int64 | ~uint64](to *N, n uint64) { *to = N(n) }
