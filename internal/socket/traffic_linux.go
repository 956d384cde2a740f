package socket

import (
	"os"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// Traffic tells that a connection has come to one of some listening sockets. It tells so
// once, and not again before Arm: whatever comes meanwhile wakes nobody. There are two
// epoll instances. The inner one has the sockets, the outer one has the inner one and is
// told of it once (EPOLLONESHOT). The runtime's poller has the outer one, and so no thread
// is needed to wait. All methods but Wait are for one goroutine at a time.
type Traffic struct {
	inner int
	outer *os.File
	rc    syscall.RawConn
	n     int
}

// NewTraffic makes a Traffic of no socket, which is armed.
func NewTraffic() (*Traffic, error) {
	inner, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	t := &Traffic{inner: inner}
	if t.outer, t.rc, err = newEpollFile(); err == nil {
		err = t.gate(unix.EPOLL_CTL_ADD)
	}
	if err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// newEpollFile makes an epoll instance that the runtime's poller has.
func newEpollFile() (*os.File, syscall.RawConn, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else it would not be polled
		unix.Close(fd)
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), "epoll")
	rc, err := f.SyscallConn()
	return f, rc, err
}

// gate adds the inner instance to the outer one, or lets it be heard once more.
func (t *Traffic) gate(op int) (err error) {
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT}
	ctlErr := t.rc.Control(func(fd uintptr) { err = unix.EpollCtl(int(fd), op, t.inner, &e) })
	if ctlErr != nil {
		return ctlErr
	}
	return os.NewSyscallError("epoll_ctl", err)
}

// Add watches h, until Remove, which must come before h is released.
func (t *Traffic) Add(h *handle.Handle) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(h.FD())}
	if err := unix.EpollCtl(t.inner, unix.EPOLL_CTL_ADD, h.FD(), &e); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	t.n++
	return nil
}

// Remove ends the watching of h, which was added. It returns how many are left.
func (t *Traffic) Remove(h *handle.Handle) (left int) {
	if unix.EpollCtl(t.inner, unix.EPOLL_CTL_DEL, h.FD(), nil) == nil {
		t.n--
	}
	return t.n
}

// Wait waits until a connection has come since the last Arm. It returns false after Close.
func (t *Traffic) Wait() bool {
	var events [1]unix.EpollEvent
	return t.rc.Read(func(fd uintptr) bool {
		n, err := unix.EpollWait(int(fd), events[:], 0)
		return n > 0 || err != nil && err != unix.EINTR
	}) == nil
}

// Arm lets Wait wait for the next connection. One that waits in a queue counts as such.
func (t *Traffic) Arm() error { return t.gate(unix.EPOLL_CTL_MOD) }

// Close ends the Wait.
func (t *Traffic) Close() {
	if t.outer != nil {
		t.outer.Close()
	}
	unix.Close(t.inner)
}
