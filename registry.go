package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// registry holds the shared addresses. An entry outlives the workers that asked
// for it: until Disconnect, connections to it are queued whatever happens to
// them. It belongs to the master's mailbox, apart from what it says otherwise.
type registry struct {
	entries map[string]*entry // by target.key
	plain   plainSockets
}

// entry is one address and the socket that serves it.
type entry struct {
	key     string
	t       target
	opened  chan struct{}         // closed when the next five are set
	err     error                 // why there is no socket
	h       *handle.Handle        // raw, so that no poller wakes the master for its connections
	addr    net.Addr              // the real one
	unlink  func()                // removes a unix socket's file
	rr      *roundRobin           // nil if shared
	data    json.RawMessage       // the first worker's, told to all (node: TLS ticket keys)
	holders map[*Process]struct{} // workers that listen
}

// maxAddresses bounds how many addresses are open at a time, so that a worker
// gone mad cannot use up the master's descriptors.
const maxAddresses = 1024

func (r *registry) init() { r.entries = make(map[string]*entry) }

// query answers a worker's queryServer, on a goroutine of its own.
func (m *master) query(p *Process, w *wire.Message) {
	refuse := func(err error) {
		var errno syscall.Errno
		if !errors.As(err, &errno) {
			errno = syscall.EINVAL
		}
		reason := err.Error()
		if op := (*net.OpError)(nil); errors.As(err, &op) || err == errno {
			reason = "" // the number says it all
		}
		p.link.answer(refusal(w, int(errno), reason).Line())
	}
	t, err := queryTarget(w)
	if err != nil {
		refuse(err)
		p.accuse(fmt.Errorf("cluster: worker %d: queryServer: %w", p.id, err))
		return
	}
	if allow := p.child.opts.AllowListen; allow != nil {
		if err := allow(p, t.Network, t.Literal); err != nil {
			p.link.answer(refusal(w, int(syscall.EACCES), "refused by AllowListen: "+err.Error()).Line())
			p.accuse(fmt.Errorf("cluster: worker %d: listen %s %s: refused by AllowListen: %w", p.id, t.Network, t.Named, err))
			return
		}
	}
	if t.scheduling == 0 {
		t.scheduling = p.child.opts.Scheduling
	}
	e, err := m.acquire(context.Background(), t, w.Data, p)
	if err == nil && e != nil {
		m.call(func() { err = m.grant(p, w, e) })
	}
	if err != nil {
		refuse(err)
	}
}

// grant gives p its share of e, unless it is on its way out: in the mailbox, so
// that the order to disconnect comes either before, and there is no answer, or
// behind it. A node worker that gets an address after it has disconnected keeps
// listening, without a channel, and never ends.
func (m *master) grant(p *Process, w *wire.Message, e *entry) error {
	if m.registry.entries[e.key] != e {
		return ErrClosed // all was stopped meanwhile
	}
	if p.State() >= Draining || !p.connected.Load() || !p.link.grants(e.key) {
		return nil
	}
	if _, twice := e.holders[p]; twice {
		return syscall.EADDRINUSE // asked twice before it was open
	}
	e.holders[p] = struct{}{}
	out := &wire.Message{Ack: w.Seq, Key: e.key, Data: e.data, Go: &wire.Extension{Listening: true}}
	if e.rr == nil {
		typ := wire.TypeNative
		if socket.IsPacket(e.t.Network) {
			typ = wire.TypeDgram
		}
		out.Errno = ptr(0)
		p.link.sendHandle(typ, out, e.h.Retain())
		return nil
	}
	out.Cmd, out.Seq, out.Sockname = wire.CmdCluster, wire.NextSeq(), socknameOf(e.addr)
	p.link.answer(out.Line())
	e.rr.add(p)
	return nil
}

// acquire returns the entry for t, opened, for p or (nil) the master itself; or
// nil for a worker that is being drained, which gets no answer. It waits while
// somebody else opens the same address.
func (m *master) acquire(ctx context.Context, t target, data json.RawMessage, p *Process) (e *entry, err error) {
	var open bool
	m.call(func() { e, open, err = m.registry.claim(t, data, p) })
	if err != nil || e == nil {
		return nil, err
	}
	if open {
		h, addr, unlink, err := m.openTarget(ctx, t)
		m.call(func() { m.registry.commit(e, h, addr, unlink, err) })
	}
	select {
	case <-e.opened:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if e.err != nil {
		return nil, e.err
	}
	return e, nil
}

// claim finds or makes the entry for t; whoever made it opens the socket.
func (r *registry) claim(t target, data json.RawMessage, p *Process) (e *entry, open bool, err error) {
	if p != nil && p.State() >= Draining {
		return nil, false, nil
	}
	key := t.Key()
	if e := r.entries[key]; e != nil {
		if _, twice := e.holders[p]; twice && p != nil {
			return nil, false, syscall.EADDRINUSE // as if the worker had opened it itself
		}
		return e, false, nil
	}
	if len(r.entries) >= maxAddresses {
		return nil, false, fmt.Errorf("the cluster holds %d addresses already: %w", maxAddresses, syscall.EMFILE)
	}
	if len(data) == 0 {
		data = json.RawMessage("null")
	}
	e = &entry{key: key, t: t, data: data, opened: make(chan struct{}), holders: make(map[*Process]struct{})}
	r.entries[key] = e
	return e, true, nil
}

// commit ends the opening of e. On an error the entry is forgotten, so that the
// next Listen tries again.
func (r *registry) commit(e *entry, h *handle.Handle, addr net.Addr, unlink func(), err error) {
	defer close(e.opened)
	if err == nil && r.entries[e.key] != e {
		// The cluster has stopped meanwhile.
		h.Release()
		unlink()
		err = ErrClosed
	}
	if err != nil {
		e.err = err
		if r.entries[e.key] == e {
			delete(r.entries, e.key)
		}
		return
	}
	e.h, e.addr, e.unlink = h, addr, unlink
	if e.t.scheduling == RoundRobin && !socket.IsPacket(e.t.Network) {
		e.rr, e.err = newRoundRobin(e.key, h)
		if e.err != nil {
			r.drop(e)
		}
	}
}

// openTarget opens t's socket. One that this program opened itself before it
// forked is shared instead of colliding with it.
func (m *master) openTarget(ctx context.Context, t target) (*handle.Handle, net.Addr, func(), error) {
	if h, addr, release := m.registry.plain.find(t); h != nil {
		return h, addr, release, nil
	}
	if h, addr := activated.find(t.Address); h != nil {
		return h, addr, func() {}, nil // the service manager's: never unlinked
	}
	return socket.Open(ctx, t.Address)
}

// draining takes p out of the round-robin queues; what it was handed it keeps.
func (r *registry) draining(p *Process) {
	for _, e := range r.entries {
		if e.rr != nil {
			e.rr.remove(p)
		}
	}
}

// detach forgets a worker whose channel has closed.
func (r *registry) detach(p *Process) {
	r.draining(p)
	for _, e := range r.entries {
		delete(e.holders, p)
	}
}

// close is told by a worker that it has closed its listener.
func (r *registry) close(p *Process, key string) {
	if e := r.entries[key]; e != nil {
		delete(e.holders, p)
		if e.rr != nil {
			e.rr.remove(p)
		}
	}
}

// closeAll closes the sockets, at the end of a Disconnect.
func (r *registry) closeAll() {
	for _, e := range r.entries {
		r.drop(e)
	}
}

func (r *registry) drop(e *entry) {
	delete(r.entries, e.key)
	if e.h == nil {
		return // still being opened: commit will see
	}
	if e.rr != nil {
		e.rr.close()
	}
	e.h.Release()
	e.unlink()
}

// heldListener is what Listen returns in a master that has forked: the address
// is open, for the workers, and the master serves nothing.
type heldListener struct {
	addr   net.Addr
	once   sync.Once
	closed chan struct{}
}

func (l *heldListener) Addr() net.Addr { return l.addr }

func (l *heldListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Accept waits until the listener is closed.
func (l *heldListener) Accept() (net.Conn, error) {
	<-l.closed
	return nil, &net.OpError{Op: "accept", Net: l.addr.Network(), Addr: l.addr, Err: net.ErrClosed}
}

// heldPacketConn is the same for datagrams.
type heldPacketConn struct {
	net.PacketConn // a dup that only writes
	heldListener
}

func (c *heldPacketConn) Close() error {
	c.heldListener.Close()
	return c.PacketConn.Close()
}

// ReadFrom waits until the socket is closed: the datagrams are the workers'.
func (c *heldPacketConn) ReadFrom([]byte) (int, net.Addr, error) {
	<-c.closed
	return 0, nil, &net.OpError{Op: "read", Net: c.addr.Network(), Addr: c.addr, Err: net.ErrClosed}
}

// holdPacket is ListenPacket in a master that has forked.
func holdPacket(t target, e *entry) (net.PacketConn, error) {
	c, err := socket.NewPacketConn(e.h)
	if err != nil {
		return nil, listenError(t, err, "")
	}
	return &heldPacketConn{c, heldListener{addr: t.Shown(e.addr), closed: make(chan struct{})}}, nil
}

// hold opens t in the registry for the master itself.
func (m *master) hold(ctx context.Context, t target) (*entry, error) {
	if t.scheduling == 0 {
		t.scheduling = m.settings().Scheduling
	}
	e, err := m.acquire(ctx, t, nil, nil)
	if err != nil {
		return nil, listenError(t, err, "")
	}
	return e, nil
}

// listenError is the error of a Listen. Errors of package net repeat the
// address; what counts is the cause, which errors.Is still finds.
func listenError(t target, err error, hint string) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var errno syscall.Errno
	if errors.As(err, &errno) { // without "bind: "
		err = socket.PortableErrno(errno)
	}
	if hint != "" {
		hint = " (" + hint + ")"
	}
	return fmt.Errorf("cluster: listen %s %s: %w%s", t.Network, t.Named, err, hint)
}
