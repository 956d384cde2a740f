package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-cluster/cluster/internal/supervise"
	"golang.org/x/sys/unix"
)

// binary is a program to execute, held open: what is forked later is the same
// file, whatever lies at its path by then.
type binary struct {
	path  string // as it is shown, and executed if it is not held
	argv0 string

	mu     sync.Mutex
	f      *os.File // nil for a script, whose interpreter opens the path itself
	closed bool
}

const selfExe = "/proc/self/exe"

// startPath is the path by which this program was started, symbolic links and
// all: a deployment may move "current" to another release. It is "" if the path
// did not lead to this program.
var startPath = findStartPath()

func findStartPath() string {
	path := os.Args[0]
	if !strings.ContainsRune(path, filepath.Separator) {
		found, err := exec.LookPath(path)
		if err != nil {
			return ""
		}
		path = found
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(startDir, path)
	}
	self, err := os.Stat(selfExe)
	if err != nil {
		return ""
	}
	if named, err := os.Stat(path); err != nil || !os.SameFile(self, named) {
		return ""
	}
	return path
}

// openBinary finds the program of o: this one, unless o.Exec says otherwise;
// for a reload, the file that lies at its path now.
func openBinary(o *Options, reload bool) (*binary, error) {
	path, argv0 := o.Exec, o.Exec
	if path == "" {
		argv0 = os.Args[0]
		if !reload || startPath == "" {
			if _, err := os.Stat(selfExe); err == nil {
				return &binary{path: selfExe, argv0: argv0}, nil
			}
			return &binary{path: executable, argv0: argv0}, nil // no /proc here
		}
		path = startPath
	}
	f, err := os.Open(path)
	if err != nil {
		if os.IsPermission(err) { // it may be executed all the same
			return &binary{path: path, argv0: argv0}, nil
		}
		return nil, fmt.Errorf("program: %w", err)
	}
	var magic [2]byte
	if n, _ := f.ReadAt(magic[:], 0); n == 2 && string(magic[:]) == "#!" {
		f.Close()
		return &binary{path: path, argv0: argv0}, nil
	}
	return &binary{path: path, argv0: argv0, f: f}, nil
}

// forExec returns the path to execute and a func to call when that is done.
// above is the highest descriptor that the new process is given: the held file
// gets a number that those do not run into on their way to their places.
func (b *binary) forExec(above int) (path string, done func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return "", nil, supervise.ErrSuperseded // what lies at the path may be another version
	}
	if b.f == nil {
		return b.path, func() {}, nil
	}
	fd, err := unix.FcntlInt(b.f.Fd(), unix.F_DUPFD_CLOEXEC, above+16)
	if err != nil {
		return "", nil, os.NewSyscallError("fcntl", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), func() { unix.Close(fd) }, nil
}

func (b *binary) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.f != nil {
		b.f.Close()
		b.f = nil
	}
}
