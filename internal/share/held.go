package share

import (
	"context"
	"net"
	"sync"

	"github.com/go-cluster/cluster/internal/socket"
)

// HoldListener opens q's address for the workers and returns what Listen returns
// in a master that has forked. The master itself serves nothing.
func (r *Registry) HoldListener(ctx context.Context, q Query) (net.Listener, error) {
	e, err := r.acquire(ctx, q, nil, nil)
	if err != nil {
		return nil, ListenError(q.Address, err, "")
	}
	return newHeldListener(e), nil
}

// HoldPacketConn is [Registry.HoldListener] for ListenPacket.
func (r *Registry) HoldPacketConn(ctx context.Context, q Query) (net.PacketConn, error) {
	e, err := r.acquire(ctx, q, nil, nil)
	if err != nil {
		return nil, ListenError(q.Address, err, "")
	}
	c, err := socket.NewPacketConn(e.sockets[0])
	if err != nil {
		return nil, ListenError(q.Address, err, "")
	}
	return &heldPacketConn{c, newHeldListener(e)}, nil
}

// heldListener is an address that is open for the workers. Its Close ends a
// waiting Accept; the address stays open.
type heldListener struct {
	addr   net.Addr
	once   sync.Once
	closed chan struct{}
}

func newHeldListener(e *entry) *heldListener {
	return &heldListener{addr: e.query.Shown(e.addr), closed: make(chan struct{})}
}

// Addr returns the address.
func (l *heldListener) Addr() net.Addr { return l.addr }

// Close makes Accept return.
func (l *heldListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Accept waits until the listener is closed.
func (l *heldListener) Accept() (net.Conn, error) {
	<-l.closed
	return nil, &net.OpError{Op: "accept", Net: l.addr.Network(), Addr: l.addr, Err: net.ErrClosed}
}

// heldPacketConn is the same for datagrams. It can write.
type heldPacketConn struct {
	net.PacketConn // a duplicate
	held           *heldListener
}

// Close closes the duplicate and makes ReadFrom return.
func (c *heldPacketConn) Close() error {
	c.held.Close()
	return c.PacketConn.Close()
}

// ReadFrom waits until the socket is closed: the datagrams are the workers'.
func (c *heldPacketConn) ReadFrom([]byte) (int, net.Addr, error) {
	<-c.held.closed
	return 0, nil, &net.OpError{Op: "read", Net: c.held.addr.Network(), Addr: c.held.addr, Err: net.ErrClosed}
}
