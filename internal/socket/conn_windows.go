package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/windows"
)

// Conn is a TCP connection made of a socket that AcceptEx has accepted or another process
// has sent. Package net cannot make its own type of a socket without changing it.
type Conn struct {
	h             *handle.Handle
	f             waiter
	local, remote net.Addr
	once          sync.Once
}

// waiter reads and writes, and waits for the system to do so. It is an os.File, or events.
type waiter interface {
	io.ReadWriteCloser // Close leaves the socket open
	syscall.Conn
	SetDeadline(t time.Time) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// NewConn makes a connection of h, and takes h over. Nobody else in this process may use
// the socket; other processes may. The connection has the settings that package net gives
// one.
func NewConn(h *handle.Handle) (net.Conn, error) {
	defer h.Release() // the connection has a reference of its own
	c, err := newConn(h)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// newConn is NewConn, except that h stays the caller's.
func newConn(h *handle.Handle) (*Conn, error) {
	s := h.Socket()
	local, err := windows.Getsockname(s)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	remote, err := windows.Getpeername(s)
	if err != nil {
		return nil, os.NewSyscallError("getpeername", err)
	}
	c := &Conn{h: h.Retain(), f: newWaiter(h), local: addrOf(local), remote: addrOf(remote)}
	c.SetNoDelay(true)
	c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true})
	return c, nil
}

// newWaiter returns an os.File if the socket is on no completion port yet. The os.File puts
// it on the runtime's. A socket that another process has read from or written to is on that
// process's port for good, and gets events.
func newWaiter(h *handle.Handle) waiter {
	f := polled{os.NewFile(uintptr(h.Socket()), "tcp"), h.Socket()}
	if f.SetDeadline(time.Time{}) == nil { // an error says that it is not on the runtime's
		return f
	}
	f.Close()
	return newEvents(h)
}

// polled is a socket as an os.File.
type polled struct {
	*os.File
	s windows.Handle
}

// Close ends all reads and writes, and leaves the socket open. An os.File calls CloseHandle
// at the end, which is wrong for a socket: Winsock would not learn of it. So that call is
// made to fail.
func (f polled) Close() error {
	windows.SetHandleInformation(f.s, protectFromClose, protectFromClose)
	f.File.Close()
	windows.SetHandleInformation(f.s, protectFromClose, 0)
	return nil
}

// protectFromClose is HANDLE_FLAG_PROTECT_FROM_CLOSE.
const protectFromClose = 2

// LocalAddr returns this end's address.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the client's address.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// opError returns err as package net would return it.
func (c *Conn) opError(op string, err error) error {
	switch {
	case err == nil || err == io.EOF:
		return err
	case errors.Is(err, os.ErrClosed):
		err = net.ErrClosed
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, windows.ERROR_MORE_DATA):
		// Wine returns the second one for a write that a deadline ended half way.
		// Windows never does so for a stream.
		err = os.ErrDeadlineExceeded
	default:
		err = socketError(err)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.f.Read(p)
	return n, c.opError("read", err)
}

func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.f.Write(p)
	return n, c.opError("write", err)
}

// Close closes the connection.
func (c *Conn) Close() error {
	err := c.opError("close", net.ErrClosed)
	c.once.Do(func() {
		c.f.Close()
		c.h.Release()
		err = nil
	})
	return err
}

func (c *Conn) SetDeadline(t time.Time) error {
	return c.opError("set", c.f.SetDeadline(t))
}

func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.opError("set", c.f.SetReadDeadline(t))
}

func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.opError("set", c.f.SetWriteDeadline(t))
}

// SyscallConn gives access to the socket.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	rc, err := c.f.SyscallConn()
	if err != nil {
		return nil, c.opError("raw", net.ErrClosed)
	}
	return rawSocket{c, rc}, nil
}

// rawSocket is what SyscallConn returns: the waiter's, with the errors of a connection.
type rawSocket struct {
	c  *Conn
	rc syscall.RawConn
}

func (r rawSocket) Control(f func(fd uintptr)) error {
	if r.rc.Control(f) != nil { // it fails for no other reason
		return r.c.opError("raw-control", net.ErrClosed)
	}
	return nil
}

func (r rawSocket) Read(f func(fd uintptr) bool) error {
	return r.c.opError("raw-read", r.rc.Read(f))
}

func (r rawSocket) Write(f func(fd uintptr) bool) error {
	return r.c.opError("raw-write", r.rc.Write(f))
}

// control calls fn with the socket, and keeps it open for that time.
func (c *Conn) control(op string, fn func(s windows.Handle) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := rc.Control(func(s uintptr) { err = fn(windows.Handle(s)) })
	if ctlErr != nil {
		return ctlErr
	}
	return c.opError(op, err)
}

func (c *Conn) setInt(level, opt, value int) error {
	return c.control("set", func(s windows.Handle) error { return windows.SetsockoptInt(s, level, opt, value) })
}

// CloseRead shuts down the reading side.
func (c *Conn) CloseRead() error {
	return c.control("close", func(s windows.Handle) error { return windows.Shutdown(s, windows.SHUT_RD) })
}

// CloseWrite shuts down the writing side: the client reads io.EOF.
func (c *Conn) CloseWrite() error {
	return c.control("close", func(s windows.Handle) error { return windows.Shutdown(s, windows.SHUT_WR) })
}

// SetNoDelay turns Nagle's algorithm off or on. It is off at first.
func (c *Conn) SetNoDelay(noDelay bool) error {
	return c.setInt(windows.IPPROTO_TCP, windows.TCP_NODELAY, boolInt(noDelay))
}

// SetLinger is [net.TCPConn.SetLinger].
func (c *Conn) SetLinger(sec int) error {
	l := windows.Linger{}
	if sec >= 0 {
		l = windows.Linger{Onoff: 1, Linger: int32(sec)}
	}
	// Winsock's struct linger has two members of 16 bits.
	raw := [2]uint16{uint16(l.Onoff), uint16(l.Linger)}
	return c.control("set", func(s windows.Handle) error {
		return windows.Setsockopt(s, windows.SOL_SOCKET, windows.SO_LINGER, (*byte)(unsafe.Pointer(&raw)), int32(unsafe.Sizeof(raw)))
	})
}

// SetReadBuffer sets the size of the system's receive buffer, in bytes.
func (c *Conn) SetReadBuffer(bytes int) error {
	return c.setInt(windows.SOL_SOCKET, windows.SO_RCVBUF, bytes)
}

// SetWriteBuffer sets the size of the system's send buffer, in bytes.
func (c *Conn) SetWriteBuffer(bytes int) error {
	return c.setInt(windows.SOL_SOCKET, windows.SO_SNDBUF, bytes)
}

// SetKeepAlive turns keep-alive probes on or off.
func (c *Conn) SetKeepAlive(on bool) error {
	return c.setInt(windows.SOL_SOCKET, windows.SO_KEEPALIVE, boolInt(on))
}

// SetKeepAlivePeriod sets the time between probes.
func (c *Conn) SetKeepAlivePeriod(d time.Duration) error {
	return c.setKeepAlive(d, d)
}

// The defaults of package net.
const (
	keepAliveIdle     = 15 * time.Second
	keepAliveInterval = 15 * time.Second
)

// SetKeepAliveConfig is [net.TCPConn.SetKeepAliveConfig], with one difference: a negative
// Idle or Interval is package net's default, as a zero one is, since the system sets both or
// none.
func (c *Conn) SetKeepAliveConfig(config net.KeepAliveConfig) error {
	if !config.Enable {
		return c.SetKeepAlive(false)
	}
	idle, interval := config.Idle, config.Interval
	if idle <= 0 {
		idle = keepAliveIdle
	}
	if interval <= 0 {
		interval = keepAliveInterval
	}
	if err := c.setKeepAlive(idle, interval); err != nil {
		return err
	}
	if config.Count > 0 { // older systems than Windows 10 1703 always send 10
		return c.setInt(windows.IPPROTO_TCP, windows.TCP_KEEPCNT, config.Count)
	}
	return nil
}

// setKeepAlive turns keep-alive probes on, with these times.
func (c *Conn) setKeepAlive(idle, interval time.Duration) error {
	ka := windows.TCPKeepalive{OnOff: 1, Time: milliseconds(idle), Interval: milliseconds(interval)}
	if err := c.SetKeepAlive(true); err != nil {
		return err
	}
	return c.control("set", func(s windows.Handle) error {
		var n uint32
		return windows.WSAIoctl(s, windows.SIO_KEEPALIVE_VALS, (*byte)(unsafe.Pointer(&ka)), uint32(unsafe.Sizeof(ka)), nil, 0, &n, nil, 0)
	})
}

// milliseconds rounds up.
func milliseconds(d time.Duration) uint32 {
	return uint32((d + time.Millisecond - 1) / time.Millisecond)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
