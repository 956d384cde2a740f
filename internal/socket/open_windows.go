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

// Supported returns an error if this system cannot listen on a or, if shared, cannot share
// the socket with other processes.
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

// UnixFile is the file of a unix socket. There are none here.
type UnixFile struct{}

// Unlink does nothing.
func (f *UnixFile) Unlink() {}

// Gone is false.
func (f *UnixFile) Gone() bool { return false }

// Unlinker returns a func that does nothing.
func (a Address) Unlinker() func() { return func() {} }

// SetModeAndOwner does nothing.
func (a Address) SetModeAndOwner() error { return nil }

// Locate does nothing.
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

// A process here is given no sockets by their numbers, and sent no sockets but those of TCP.
// So the functions below have nothing to do.

// DuplicateFD returns errs.NotSupported.
func DuplicateFD(int) (*handle.Handle, error) { return nil, errs.NotSupported }

// Inspect returns errs.NotSupported.
func Inspect(int) (network string, addr net.Addr, err error) {
	return "", nil, errs.NotSupported
}

// Listens returns errs.NotSupported.
func Listens(int) (packet bool, addr net.Addr, err error) { return false, nil, errs.NotSupported }

// NewPacketConn returns errs.NotSupported.
func NewPacketConn(*handle.Handle) (net.PacketConn, error) { return nil, errs.NotSupported }

// NewFile returns errs.NotSupported.
func NewFile(*handle.Handle) (*os.File, error) { return nil, errs.NotSupported }

// ListenBound returns errs.NotSupported: node sends no sockets here.
func ListenBound(*handle.Handle, Address) error { return errs.NotSupported }

// File returns nil.
func (a Address) File() *UnixFile { return nil }
