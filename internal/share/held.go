package share

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// HoldListener opens q's address for the workers and returns what Listen returns
// in a master that has forked. The master itself serves nothing.
func (r *Registry) HoldListener(ctx context.Context, q Query) (net.Listener, error) {
	l, err := r.hold(ctx, q)
	if err != nil {
		return nil, ListenError(q.Address, err, "")
	}
	return l, nil
}

// HoldPacketConn is [Registry.HoldListener] for ListenPacket.
func (r *Registry) HoldPacketConn(ctx context.Context, q Query) (net.PacketConn, error) {
	l, err := r.hold(ctx, q)
	if err != nil {
		return nil, ListenError(q.Address, err, "")
	}
	c, err := socket.NewPacketConn(l.socket)
	l.socket.Release()
	if err != nil {
		l.Close()
		return nil, ListenError(q.Address, err, "")
	}
	return &heldPacketConn{c, l}, nil
}

// hold lets this process listen on q's address. For datagrams the listener has a
// reference to the socket, which is the caller's.
func (r *Registry) hold(ctx context.Context, q Query) (l *heldListener, err error) {
	if err := q.Locate(); err != nil {
		return nil, err
	}
	err = r.use(ctx, q, nil, nil, func(e *entry) error {
		l = holdEntry(r, e)
		if q.IsPacket() {
			l.socket = e.sockets[0].Retain()
		}
		return nil
	})
	return l, err
}

// holdEntry lets this process listen on e, in the mailbox.
func holdEntry(r *Registry, e *entry) *heldListener {
	e.held++
	l := &heldListener{addr: e.query.Shown(e.addr), closed: make(chan struct{})}
	l.letGo = func() { r.host.Turn(func() { r.letGo(e) }) }
	l.share = func() (h *handle.Handle, err error) {
		r.host.Turn(func() { h, err = r.socketOf(e) })
		return h, err
	}
	return l
}

// HeldSocket is an address that is open for processes which know no registry.
type HeldSocket interface {
	// Socket returns a reference to the socket, to be given to another process.
	Socket() (*handle.Handle, error)
	// Close lets the address go. It must not be called in the mailbox.
	Close() error
}

// HoldSocket opens q's address, whose Locate was called, for processes that r does not
// know.
func HoldSocket(ctx context.Context, r *Registry, q Query) (HeldSocket, error) {
	l, err := r.hold(ctx, q)
	if err != nil {
		return nil, ListenError(q.Address, err, "")
	}
	l.socket.Release()
	h, err := l.Socket()
	h.Release()
	if err != nil { // of the fork of each worker, if not here
		l.Close()
		return nil, ListenError(q.Address, err, "")
	}
	return l, nil
}

// HoldAgain is HoldSocket for an address that has come with a State. It is called in the
// mailbox.
func HoldAgain(r *Registry, q Query) (HeldSocket, error) {
	e := r.entries[q.Key()]
	if e == nil {
		return nil, ListenError(q.Address, errs.Closed, "")
	}
	return holdEntry(r, e), nil
}

// Why the listener of an address cannot be sent to another process.
var (
	errSharded     = fmt.Errorf("a Sharded or ByClient listener has many sockets: %w; listen with Scheduling: Shared", errs.NotSupported)
	errDispatched  = fmt.Errorf("a RoundRobin or LeastConnections listener's socket is the master's, which accepts: %w; listen with Scheduling: Shared", errs.NotSupported)
	errManySockets = fmt.Errorf("this address has many sockets: %w; listen with Scheduling: Shared, "+
		"and on udp4 or udp6 if a service manager opened a socket for each family", errs.NotSupported)
)

// socketOf returns a reference to the socket of e, for another process. It runs in
// the mailbox.
func (r *Registry) socketOf(e *entry) (*handle.Handle, error) {
	switch {
	case r.entries[e.key] != e:
		return nil, net.ErrClosed
	case e.query.Policy.sharded():
		return nil, errSharded
	case len(e.sockets) > 1:
		return nil, socket.ErrFamilies
	case e.dispatcher != nil:
		return nil, errDispatched
	}
	return e.sockets[0].Retain(), nil
}

// heldListener is an address that is open for the workers. Its Close ends a
// waiting Accept; the address stays open while workers listen on it.
type heldListener struct {
	addr   net.Addr
	socket *handle.Handle // see hold
	letGo  func()
	share  func() (*handle.Handle, error)
	once   sync.Once
	closed chan struct{}
}

// Addr returns the address.
func (l *heldListener) Addr() net.Addr { return l.addr }

// Close makes Accept return.
func (l *heldListener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.letGo()
	})
	return nil
}

// Socket returns a reference to the socket, to be sent to another process.
func (l *heldListener) Socket() (*handle.Handle, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
		return l.share()
	}
}

// Accept waits until the listener is closed.
func (l *heldListener) Accept() (net.Conn, error) {
	<-l.closed
	return nil, &net.OpError{Op: "accept", Net: l.addr.Network(), Addr: l.addr, Err: net.ErrClosed}
}

// heldPacketConn is a heldListener for datagrams. It can write.
type heldPacketConn struct {
	net.PacketConn // a duplicate
	held           *heldListener
}

// Close closes the duplicate and makes ReadFrom return.
func (c *heldPacketConn) Close() error {
	c.held.Close()
	return c.PacketConn.Close()
}

// Socket returns a reference to the socket, to be sent to another process.
func (c *heldPacketConn) Socket() (*handle.Handle, error) { return c.held.Socket() }

// ReadFrom waits until the socket is closed: the datagrams are the workers'.
func (c *heldPacketConn) ReadFrom([]byte) (int, net.Addr, error) {
	<-c.held.closed
	return 0, nil, &net.OpError{Op: "read", Net: c.held.addr.Network(), Addr: c.held.addr, Err: net.ErrClosed}
}

// A sham is what the check of an upgrade gets for a listener: nothing is open.

// ShamListener returns a listener that accepts nothing.
func ShamListener(q Query) net.Listener { return sham(q) }

func sham(q Query) *heldListener {
	addr := addrOf(q.Address, nil)
	if q.IsPacket() && !q.IsUnix() {
		addr, _ = net.ResolveUDPAddr(q.Network, q.Literal)
	}
	return &heldListener{addr: addr, letGo: func() {}, share: func() (*handle.Handle, error) { return nil, net.ErrClosed }, closed: make(chan struct{})}
}

// ShamPacketConn returns a connection that reads nothing and sends nothing.
func ShamPacketConn(q Query) net.PacketConn { return shamPacketConn{sham(q)} }

type shamPacketConn struct{ l *heldListener }

func (c shamPacketConn) ReadFrom([]byte) (int, net.Addr, error) {
	_, err := c.l.Accept()
	return 0, nil, err
}
func (c shamPacketConn) WriteTo(p []byte, _ net.Addr) (int, error) { return len(p), nil }
func (c shamPacketConn) Close() error                              { return c.l.Close() }
func (c shamPacketConn) LocalAddr() net.Addr                       { return c.l.addr }
func (c shamPacketConn) SetDeadline(time.Time) error               { return nil }
func (c shamPacketConn) SetReadDeadline(time.Time) error           { return nil }
func (c shamPacketConn) SetWriteDeadline(time.Time) error          { return nil }
