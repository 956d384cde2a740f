package socket

import (
	"os"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// Watch tells when one of some listening sockets may have been shut down by a process that
// shares it. No connection wakes it: the runtime's poller, which is told of those too, has
// an epoll instance to watch that is not. All methods but Wait are for one goroutine at a
// time.
type Watch struct {
	f   *os.File // the epoll instance
	rc  syscall.RawConn
	fds map[int]struct{}
}

// NewWatch makes a Watch of no socket.
func NewWatch() (*Watch, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else it would not be polled
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	w := &Watch{f: os.NewFile(uintptr(fd), "epoll"), fds: make(map[int]struct{})}
	w.rc, err = w.f.SyscallConn()
	return w, err
}

// Add watches h, until Remove, which must come before h is released: what others have
// of it would keep it in the kernel's list.
func (w *Watch) Add(h *handle.Handle) error {
	err := w.control(unix.EPOLL_CTL_ADD, h)
	if err == nil {
		w.fds[h.FD()] = struct{}{}
	}
	return err
}

// Remove ends the watching of h, which may be nil or unknown. It returns how many are left.
func (w *Watch) Remove(h *handle.Handle) (left int) {
	if h != nil {
		if _, known := w.fds[h.FD()]; known {
			w.control(unix.EPOLL_CTL_DEL, h)
			delete(w.fds, h.FD())
		}
	}
	return len(w.fds)
}

func (w *Watch) control(op int, h *handle.Handle) (err error) {
	// EPOLLHUP, which tells of a TCP socket, is always on. Edges: who cannot be mended
	// must not wake this process in a loop.
	e := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(h.FD())}
	ctlErr := w.rc.Control(func(fd uintptr) { err = unix.EpollCtl(int(fd), op, h.FD(), &e) })
	if err == nil {
		err = ctlErr
	}
	return os.NewSyscallError("epoll_ctl", err)
}

// Wait waits until a socket may have been shut down. It returns false after Close.
func (w *Watch) Wait() bool {
	var events [16]unix.EpollEvent
	return w.rc.Read(func(fd uintptr) bool {
		n, err := unix.EpollWait(int(fd), events[:], 0)
		return n > 0 || err != nil && err != unix.EINTR
	}) == nil
}

// Close ends the Wait.
func (w *Watch) Close() { w.f.Close() }
