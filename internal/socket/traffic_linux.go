package socket

import (
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// Traffic tells that a connection has come to one of some listening sockets. It tells this
// once, and not again before Rest: connections that come meanwhile wake nobody. It can also
// tell that a time is over (After), and which of the sockets have a connection (Waiting).
//
// There are two epoll instances. The inner one watches the sockets. The outer one watches the
// inner one, of which it tells once (EPOLLONESHOT), and a timer of the kernel. The runtime's
// poller watches the outer one, so no thread is needed to wait.
//
// A timer of the kernel wakes one thread, once. A timer of the runtime wakes several: the
// thread that finds it has another one look for more work. A system call that the runtime
// takes for one that may wait does the same. So the calls here are raw ones; none of them
// waits.
//
// Only one goroutine at a time may call Wait and Waiting. Any goroutine may call the other
// methods.
type Traffic struct {
	outer *os.File
	rc    syscall.RawConn
	found []unix.EpollEvent // memory of Waiting

	mu     sync.Mutex // none of the calls under it waits
	inner  int
	timer  int
	n      int
	closed bool
}

// NewTraffic makes a Traffic without sockets, which is at rest.
func NewTraffic() (*Traffic, error) {
	t := &Traffic{inner: -1, timer: -1}
	if err := t.open(); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func (t *Traffic) open() (err error) {
	if t.inner, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if t.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return os.NewSyscallError("timerfd_create", err)
	}
	if t.outer, t.rc, err = newEpollFile(); err != nil {
		return err
	}
	if err := t.gate(unix.EPOLL_CTL_ADD, t.timer, unix.EPOLLIN|unix.EPOLLET); err != nil {
		return err
	}
	return t.gate(unix.EPOLL_CTL_ADD, t.inner, unix.EPOLLIN|unix.EPOLLONESHOT)
}

// newEpollFile makes an epoll instance that the runtime's poller watches.
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

// gate adds what to the outer instance, or makes that instance tell of it once more.
func (t *Traffic) gate(op, what int, events uint32) (err error) {
	e := unix.EpollEvent{Events: events}
	ctlErr := t.rc.Control(func(fd uintptr) { err = unix.EpollCtl(int(fd), op, what, &e) })
	if ctlErr != nil {
		return ctlErr
	}
	return os.NewSyscallError("epoll_ctl", err)
}

// Add watches h until Remove, which must be called before h is released.
func (t *Traffic) Add(h *handle.Handle) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(h.FD())}
	if err := unix.EpollCtl(t.inner, unix.EPOLL_CTL_ADD, h.FD(), &e); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	t.n++
	return nil
}

// Remove ends the watching of h. It returns how many sockets are left.
func (t *Traffic) Remove(h *handle.Handle) (left int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if unix.EpollCtl(t.inner, unix.EPOLL_CTL_DEL, h.FD(), nil) == nil {
		t.n--
	}
	return t.n
}

// Wait waits until the time of After is over, or a connection has come since Rest. It
// returns false after Close.
func (t *Traffic) Wait() bool {
	var events [2]unix.EpollEvent
	return t.rc.Read(func(fd uintptr) bool {
		n, errno := pollNow(int(fd), events[:])
		return n > 0 || errno != 0 && errno != unix.EINTR
	}) == nil
}

// pollNow is epoll_wait for what there is now.
func pollNow(fd int, events []unix.EpollEvent) (n int, errno syscall.Errno) {
	r, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// After makes Wait return when d is over.
func (t *Traffic) After(d time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return os.ErrClosed
	}
	return os.NewSyscallError("timerfd_settime", unix.TimerfdSettime(t.timer, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}, nil))
}

// Rest makes Wait return when the next connection comes, or at once if one waits in a queue.
func (t *Traffic) Rest() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return os.ErrClosed
	}
	return t.gate(unix.EPOLL_CTL_MOD, t.inner, unix.EPOLLIN|unix.EPOLLONESHOT)
}

// Waiting calls fn with the descriptor of each socket at which a connection waits.
func (t *Traffic) Waiting(fn func(fd int)) {
	for _, e := range t.waiting() {
		fn(int(e.Fd))
	}
}

func (t *Traffic) waiting() []unix.EpollEvent {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.n == 0 {
		return nil
	}
	if len(t.found) < t.n {
		t.found = make([]unix.EpollEvent, t.n)
	}
	n, _ := pollNow(t.inner, t.found)
	return t.found[:n]
}

// Close makes Wait return.
func (t *Traffic) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.outer != nil {
		t.outer.Close()
	}
	for _, fd := range []int{t.inner, t.timer} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	t.inner, t.timer = -1, -1
}
