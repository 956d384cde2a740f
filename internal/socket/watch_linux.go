package socket

import (
	"os"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// Watch tells when one of some listening sockets may have been shut down by a process that
// shares it. No connection wakes it: the runtime's poller, which would tell of connections
// too, does not watch the sockets but an epoll instance of their ends. Only one goroutine at
// a time may call the methods other than Wait.
type Watch struct {
	f   *os.File // the epoll instance
	rc  syscall.RawConn
	fds map[int]struct{}
}

// NewWatch makes a Watch without sockets.
func NewWatch() (*Watch, error) {
	f, rc, err := newEpollFile()
	if err != nil {
		return nil, err
	}
	return &Watch{f: f, rc: rc, fds: make(map[int]struct{})}, nil
}

// Add watches h until Remove, which must be called before h is released: the kernel keeps a
// socket in the list as long as another process has it.
func (w *Watch) Add(h *handle.Handle) error {
	err := w.control(unix.EPOLL_CTL_ADD, h)
	if err == nil {
		w.fds[h.FD()] = struct{}{}
	}
	return err
}

// Remove ends the watching of h, which may be nil or unknown. It returns how many sockets
// are left.
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
	// EPOLLRDHUP tells of a unix socket; EPOLLHUP, which is always on, of a TCP socket.
	// Edge-triggered: a socket that cannot be mended must not wake this process in a loop.
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

// Close makes Wait return.
func (w *Watch) Close() { w.f.Close() }
