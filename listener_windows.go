package cluster

import (
	"context"
	"net"
	"os"
)

const errnoAgain = 11

func uid() int { return -1 }

// openShared: sharing sockets on Windows is not built yet.
func openShared(context.Context, target) (*handle, net.Addr, func(), error) {
	return nil, nil, nil, ErrNotSupported
}

func openListener(ctx context.Context, t target, keepAlive net.KeepAliveConfig) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	lc.SetMultipathTCP(t.multipath)
	return lc.Listen(ctx, t.network, t.address)
}

func openPacket(ctx context.Context, t target) (net.PacketConn, error) {
	return new(net.ListenConfig).ListenPacket(ctx, t.network, t.address)
}

func (t *target) chmod() error { return nil }

func unlinker(target) func() { return func() {} }

func listenerOf(*handle) (net.Listener, error)          { return nil, ErrNotSupported }
func packetConnOf(*handle) (net.PacketConn, error)      { return nil, ErrNotSupported }
func connOf(*handle) (net.Conn, error)                  { return nil, ErrNotSupported }
func listenBound(*handle, target) error                 { return ErrNotSupported }
func holdPacket(target, *entry) (net.PacketConn, error) { return nil, ErrNotSupported }

type acceptor struct{}

func newAcceptor(*handle) (acceptor, error)      { return acceptor{}, ErrNotSupported }
func (acceptor) accept(func() bool) (int, error) { return -1, os.ErrClosed }
func (acceptor) tryAccept() (int, bool)          { return -1, false }
func (acceptor) close()                          {}

type plainSockets struct{}

func (p *plainSockets) add(target, net.Addr, any)               {}
func (p *plainSockets) find(target) (*handle, net.Addr, func()) { return nil, nil, nil }
