//go:build unix

package socket

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// Supported returns an error if this system cannot listen on a or, if shared, cannot share
// the socket with other processes. Unix can do both with every network.
func Supported(a Address, shared bool) error { return nil }

// Open opens a's socket to be shared with other processes. It returns a bare descriptor, and
// closes the net.Listener that opened it. So the runtime's poller does not wake this process
// for each connection, and no connection is lost. The file of a unix socket stays until it
// is unlinked.
func Open(ctx context.Context, a Address) (h *handle.Handle, addr net.Addr, file *UnixFile, err error) {
	if a.FD >= 0 {
		h, addr, err = openDescriptor(a)
		return h, addr, nil, err
	}
	var sock syscall.Conn
	if a.IsPacket() {
		c, f, err := listenPacket(ctx, a)
		if err != nil {
			return nil, nil, nil, err
		}
		defer c.Close()
		sock, addr, file = c.(syscall.Conn), c.LocalAddr(), f
	} else {
		ln, f, err := listen(ctx, a, net.KeepAliveConfig{})
		if err != nil {
			return nil, nil, nil, err
		}
		if u, ok := ln.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		defer ln.Close()
		sock, addr, file = ln.(syscall.Conn), ln.Addr(), f
	}
	if h, err = Duplicate(sock); err != nil {
		file.Unlink()
		return nil, nil, nil, err
	}
	return h, addr, file, nil
}

// Listen is [net.ListenConfig.Listen] with the options of a.
func Listen(ctx context.Context, a Address, keepAlive net.KeepAliveConfig) (net.Listener, error) {
	ln, _, err := listen(ctx, a, keepAlive)
	if err != nil {
		return nil, err
	}
	return ln, nil
}

func listen(ctx context.Context, a Address, keepAlive net.KeepAliveConfig) (net.Listener, *UnixFile, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive, Control: a.control}
	lc.SetMultipathTCP(a.Multipath)
	ln, f, err := bind(ctx, a, func(literal string) (net.Listener, error) {
		return lc.Listen(ctx, a.Network, literal)
	})
	if err != nil {
		return nil, nil, err
	}
	if a.Backlog > 0 {
		if err := relisten(ln.(syscall.Conn), a.Backlog); err != nil {
			ln.Close()
			return nil, nil, err
		}
	}
	return ln, f, nil
}

// ListenPacket is [net.ListenConfig.ListenPacket] with the options of a.
func ListenPacket(ctx context.Context, a Address) (net.PacketConn, error) {
	c, _, err := listenPacket(ctx, a)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func listenPacket(ctx context.Context, a Address) (net.PacketConn, *UnixFile, error) {
	lc := net.ListenConfig{Control: a.control}
	return bind(ctx, a, func(literal string) (net.PacketConn, error) {
		return lc.ListenPacket(ctx, a.Network, literal)
	})
}

// control sets the options that must be set before bind(2).
func (a Address) control(network, address string, c syscall.RawConn) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) {
		if a.Reuse {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
		if a.Mode != 0 && a.IsUnix() {
			// On Linux bind(2) gives the file the mode of the socket. So the file never
			// has a wider mode than the one asked for. Other systems refuse this call,
			// and the mode is set after bind.
			unix.Fchmod(int(fd), uint32(a.Mode))
		}
	})
	return errors.Join(ctlErr, err)
}

// relisten changes the backlog of a listening socket.
func relisten(c syscall.Conn, backlog int) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := rc.Control(func(fd uintptr) { err = unix.Listen(int(fd), backlog) })
	if err != nil {
		return os.NewSyscallError("listen", err)
	}
	return ctlErr
}
