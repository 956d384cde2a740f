package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/windows"

	"github.com/go-cluster/cluster/internal/handle"
)

func uid() int { return -1 }

// supported says what cannot be listened on, or not be shared with other
// processes.
func supported(t target, shared bool) error {
	switch {
	case isUnix(t.network):
		return fmt.Errorf("unix sockets on Windows: %w; use tcp on a loopback address", ErrNotSupported)
	case isPacket(t.network) && shared:
		return fmt.Errorf("a shared UDP socket on Windows: %w; use ListenConfig.Exclusive in one worker", ErrNotSupported)
	}
	return nil
}

// openShared opens t for the registry.
func openShared(_ context.Context, t target) (*handle.Handle, net.Addr, func(), error) {
	err := supported(t, true)
	if err == nil && t.fd >= 0 {
		err = fmt.Errorf("a descriptor of the master's on Windows: %w", ErrNotSupported)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	h, addr, err := openSocket(t)
	if err != nil {
		return nil, nil, nil, err
	}
	return h, addr, func() {}, nil
}

// openListener is net.ListenConfig.Listen with this package's defaults. Package
// net cannot set the backlog here: Windows does not change it once a socket
// listens.
func openListener(ctx context.Context, t target, keepAlive net.KeepAliveConfig) (net.Listener, error) {
	if t.backlog > 0 {
		h, _, err := openSocket(t)
		if err != nil {
			return nil, err
		}
		defer h.Release()
		return newSocketListener(h)
	}
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	lc.SetMultipathTCP(t.multipath)
	return lc.Listen(ctx, t.network, t.address)
}

func openPacket(ctx context.Context, t target) (net.PacketConn, error) {
	return new(net.ListenConfig).ListenPacket(ctx, t.network, t.address)
}

func (t *target) chmod() error { return nil } // of a unix socket

func unlinker(target) func() { return func() {} } // likewise

// dupDescriptor makes another handle of c's socket.
func dupDescriptor(c syscall.Conn) (fd int, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	ctlErr := rc.Control(func(s uintptr) {
		var text string
		if text, err = handle.Duplicate(windows.Handle(s), os.Getpid()); err != nil {
			return
		}
		var h *handle.Handle
		if h, err = handle.Adopt(text); err == nil {
			fd = h.FD() // the caller's from now on, as nobody releases h
		}
	})
	if err = errors.Join(ctlErr, err); err != nil {
		return -1, err
	}
	return fd, nil
}

// listenerOf makes a listener of a shared socket.
func listenerOf(h *handle.Handle) (net.Listener, error) { return newSocketListener(h) }

// connOf makes a connection of h, which was handed over, and takes it over.
func connOf(h *handle.Handle) (net.Conn, error) {
	defer h.Release() // the connection has a reference of its own
	c, err := newSocketConn(h)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// What follows is for sockets that no worker here is sent.

func packetConnOf(*handle.Handle) (net.PacketConn, error) { return nil, ErrNotSupported }
func listenBound(*handle.Handle, target) error            { return ErrNotSupported }
func holdPacket(target, *entry) (net.PacketConn, error)   { return nil, ErrNotSupported }
