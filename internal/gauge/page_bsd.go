//go:build unix && !linux

package gauge

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// source is a file without a name.
type source struct{ fd int }

// read reads the numbers from the file. A file that the worker has truncated has none.
func (s source) read() (Counts, bool) {
	var w words
	b := unsafe.Slice((*byte)(unsafe.Pointer(&w)), unsafe.Sizeof(w))
	if n, err := unix.Pread(s.fd, b, 0); err != nil || n < len(b) {
		return Counts{}, false
	}
	return w.read()
}

func (s source) close() { unix.Close(s.fd) }

// adopt takes over the descriptor of a page that was made before.
func adopt(fd int) (source, error) { return source{fd}, nil }

func (s source) descriptor() int { return s.fd }

func newSource() (s source, worker int, err error) {
	f, err := os.CreateTemp("", "cluster-gauge-")
	if err != nil {
		return s, -1, err
	}
	defer f.Close()
	os.Remove(f.Name())
	if err := f.Truncate(size); err != nil {
		return s, -1, err
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return s, -1, err
	}
	worker = -1
	ctlErr := rc.Control(func(fd uintptr) {
		if s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return
		}
		if worker, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err != nil {
			s.close()
		}
	})
	if ctlErr != nil {
		err = ctlErr
	}
	return s, worker, os.NewSyscallError("fcntl", err)
}
