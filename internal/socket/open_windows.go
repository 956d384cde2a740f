package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/windows"
)

// Supported says why this system cannot listen on a, or cannot share its socket
// with other processes.
func Supported(a Address, shared bool) error {
	switch {
	case a.IsUnix():
		return fmt.Errorf("unix sockets on Windows: %w; use tcp on a loopback address", errs.NotSupported)
	case a.IsPacket() && shared:
		return fmt.Errorf("a shared UDP socket on Windows: %w; use ListenConfig.Exclusive in one worker", errs.NotSupported)
	}
	return nil
}

// Open opens a's socket to be shared with other processes.
func Open(_ context.Context, a Address) (h *handle.Handle, addr net.Addr, file *UnixFile, err error) {
	err = Supported(a, true)
	if err == nil && a.FD >= 0 {
		err = fmt.Errorf("a descriptor of the master's on Windows: %w", errs.NotSupported)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	if h, addr, err = openTCP(a); err != nil {
		return nil, nil, nil, err
	}
	return h, addr, nil, nil
}

// Listen is [net.ListenConfig.Listen] with the options of a. Package net cannot
// set the backlog here: Windows does not change it once a socket listens.
func Listen(ctx context.Context, a Address, keepAlive net.KeepAliveConfig) (net.Listener, error) {
	if a.Backlog > 0 {
		h, _, err := openTCP(a)
		if err != nil {
			return nil, err
		}
		defer h.Release()
		return NewListener(h)
	}
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	lc.SetMultipathTCP(a.Multipath)
	return lc.Listen(ctx, a.Network, a.Literal)
}

// ListenPacket is [net.ListenConfig.ListenPacket] with the options of a.
func ListenPacket(ctx context.Context, a Address) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if !a.Reuse {
			return nil
		}
		ctlErr := c.Control(func(s uintptr) {
			err = windows.SetsockoptInt(windows.Handle(s), windows.SOL_SOCKET, windows.SO_REUSEADDR, 1)
		})
		return errors.Join(ctlErr, err)
	}}
	return lc.ListenPacket(ctx, a.Network, a.Literal)
}

// UnixFile is the file of a unix socket: there are none.
type UnixFile struct{}

// Unlink would remove the file.
func (f *UnixFile) Unlink() {}

// Gone would report that somebody has removed the file.
func (f *UnixFile) Gone() bool { return false }

// Unlinker is for the file of a unix socket.
func (a Address) Unlinker() func() { return func() {} }

// SetModeAndOwner is for the file of a unix socket.
func (a Address) SetModeAndOwner() error { return nil }

// Locate is for the path of a unix socket.
func (a *Address) Locate() error { return nil }

// Duplicate returns another handle of c's socket.
func Duplicate(c syscall.Conn) (h *handle.Handle, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	ctlErr := rc.Control(func(s uintptr) {
		var text string
		if text, err = handle.Duplicate(windows.Handle(s), os.Getpid()); err == nil {
			h, err = handle.Adopt(text)
		}
	})
	return h, errors.Join(ctlErr, err)
}

// DuplicateFD, Inspect and Listens are for sockets that a process is given by their numbers,
// as nothing here gives them.

// DuplicateFD returns another handle of the socket fd.
func DuplicateFD(int) (*handle.Handle, error) { return nil, errs.NotSupported }

// Inspect returns what kind of socket fd is.
func Inspect(int) (network string, addr net.Addr, err error) {
	return "", nil, errs.NotSupported
}

// Listens returns the address at which this process listens on fd.
func Listens(int) (packet bool, addr net.Addr, err error) { return false, nil, errs.NotSupported }

// What follows is for sockets that no process here is sent.

// NewPacketConn makes a datagram socket of h.
func NewPacketConn(*handle.Handle) (net.PacketConn, error) { return nil, errs.NotSupported }

// NewFile makes a file of h.
func NewFile(*handle.Handle) (*os.File, error) { return nil, errs.NotSupported }

// ListenBound lets a socket listen that a node primary has only bound.
func ListenBound(*handle.Handle, Address) error { return errs.NotSupported }

// File is none.
func (a Address) File() *UnixFile { return nil }
