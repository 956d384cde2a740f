package cluster

import (
	"context"
	"fmt"
	"net"
	"syscall"

	"github.com/go-cluster/cluster/internal/drain"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// How a worker comes by a listening socket: it asks the master, and makes
// something that accepts of what it is granted.

// grant is what the master gave for an address: a shared socket, or the key of
// one that it accepts on itself.
type grant struct {
	key  string
	h    *handle.Handle
	addr net.Addr
}

// ask asks the master for t, whose index it sets. It waits while the worker is
// being drained.
func (in *inside) ask(ctx context.Context, t *target) (g grant, err error) {
	if err := in.drain.Hold(ctx); err != nil {
		return g, listenError(*t, err, "")
	}
	if t.Literal != "" && t.Network == "unixgram" && !in.goMaster() {
		return g, listenError(*t, fmt.Errorf("a node primary shares no unixgram sockets: %w", ErrNotSupported), "")
	}
	in.takeIndex(t)
	if !in.goMaster() && t.Index > 0 && t.Port() != 0 {
		// Node's versions each go wrong in their own way about the second listen of
		// one worker on one address; some give the first one's socket again.
		in.dropIndex(*t)
		return g, listenError(*t, syscall.EADDRINUSE, "this worker listens there already")
	}
	type reply struct {
		w *wire.Message
		h *handle.Handle
	}
	replied := make(chan reply, 1)
	in.p.link.ask(t.query(), func(w *wire.Message, h *handle.Handle) { replied <- reply{w, h} })
	var r reply
	select {
	case r = <-replied:
	case <-ctx.Done():
		go func() { // the socket may still come
			r := <-replied
			r.h.Release()
			if r.w != nil && r.w.Key != "" {
				in.p.link.order(&wire.Message{Act: wire.ActClose, Key: r.w.Key})
			}
			in.dropIndex(*t)
		}()
		return g, listenError(*t, ctx.Err(), "")
	}
	if r.w == nil {
		// The channel is closed, so this worker is at its end: as in a drain.
		<-ctx.Done()
		return g, listenError(*t, ctx.Err(), "")
	}
	if g, err = in.granted(*t, r.w, r.h); err != nil {
		r.h.Release()
		in.dropIndex(*t)
		return grant{}, err
	}
	return g, nil
}

// granted reads the master's answer.
func (in *inside) granted(t target, w *wire.Message, h *handle.Handle) (grant, error) {
	if w.Errno != nil && *w.Errno != 0 {
		return grant{}, remoteListenError(t, w)
	}
	g := grant{key: w.Key, h: h}
	if h == nil {
		g.addr = sockaddrOf(t, w.Sockname)
	} else if (w.Go == nil || !w.Go.Listening) && !socket.IsPacket(t.Network) {
		if err := socket.ListenBound(h, t.Address); err != nil {
			// The primary believes that this worker has it, and a second question
			// for the same would crash node 20.
			in.p.link.order(&wire.Message{Act: wire.ActClose, Key: w.Key})
			return grant{}, listenError(t, err, "")
		}
	}
	in.mu.Lock()
	in.keys[g.key] = true
	in.mu.Unlock()
	return g, nil
}

// remoteListenError is why the master did not open the address.
func remoteListenError(t target, w *wire.Message) error {
	err := error(socket.ErrnoOf(*w.Errno))
	hint := "the primary opens it"
	if w.Go != nil {
		if w.Go.UID != nil {
			hint = whoOpens(*w.Go.UID)
		}
		if r := w.Go.Reason; r != "" {
			hint = r + "; " + hint
		}
	}
	return listenError(t, err, hint)
}

// takeIndex gives t the lowest index that is free for its address in this
// worker, so that the n-th listen on port 0 is the same in every worker.
func (in *inside) takeIndex(t *target) {
	in.mu.Lock()
	defer in.mu.Unlock()
	key := indexKey(*t)
	if in.indexes[key] == nil {
		in.indexes[key] = make(map[int]bool)
	}
	for t.Index = 0; in.indexes[key][t.Index]; t.Index++ {
	}
	in.indexes[key][t.Index] = true
}

func (in *inside) dropIndex(t target) {
	in.mu.Lock()
	defer in.mu.Unlock()
	key := indexKey(t)
	delete(in.indexes[key], t.Index)
	if len(in.indexes[key]) == 0 {
		delete(in.indexes, key)
	}
}

func indexKey(t target) string { return t.Network + " " + t.Literal }

// opened reports a listener to the master. The first one makes it ready.
func (in *inside) opened(t target, addr net.Addr) {
	in.p.link.order(t.listening(addr))
	if !in.hello.ManualReady {
		in.p.advance(Ready)
	}
}

// closed gives back what ask got.
func (in *inside) closed(t target, key string) {
	in.mu.Lock()
	delete(in.keys, key)
	in.mu.Unlock()
	in.p.link.order(&wire.Message{Act: wire.ActClose, Key: key})
	in.dropIndex(t)
}

// listen is Listen in a worker.
func (in *inside) listen(ctx context.Context, t target, lc ListenConfig) (net.Listener, error) {
	if lc.Exclusive {
		if err := in.drain.Hold(ctx); err != nil {
			return nil, listenError(t, err, "")
		}
		ln, err := socket.Listen(ctx, t.Address, lc.KeepAlive)
		if err != nil {
			return nil, listenError(t, err, "this worker opens it, for itself")
		}
		return in.newListener(t, ln, net.KeepAliveConfig{}, t.Shown(ln.Addr()), in.ownFile(t)), nil
	}
	g, err := in.ask(ctx, &t)
	if err != nil {
		return nil, err
	}
	release := func() { in.closed(t, g.key) }
	if !in.goMaster() {
		// A node primary knows two modes of a socket's file, and not before bind.
		if err := t.Chmod(); err != nil {
			g.h.Release()
			release()
			return nil, listenError(t, err, "this worker sets the mode")
		}
	}
	if g.h == nil {
		r := in.newRobin(g.key)
		return in.newListener(t, r, lc.KeepAlive, t.Shown(g.addr), release), nil
	}
	defer g.h.Release()
	ln, err := socket.NewListener(g.h)
	if err != nil {
		release()
		return nil, listenError(t, err, "")
	}
	return in.newListener(t, ln, lc.KeepAlive, t.Shown(ln.Addr()), release), nil
}

// ownFile sees to the file of a unix socket that is this worker's alone: it goes
// with release, or at the end of the drain.
func (in *inside) ownFile(t target) (release func()) {
	if !socket.IsUnix(t.Network) {
		return func() {}
	}
	return in.drain.OwnFile(t.Unlinker())
}

// newListener makes a listener of source, which it reports.
func (in *inside) newListener(t target, source net.Listener, keepAlive net.KeepAliveConfig, addr net.Addr, release func()) net.Listener {
	l := in.drain.Listener(source.(drain.Source), addr, keepAlive, release)
	in.opened(t, addr)
	return l
}

// newPacketConn makes a packet socket of source, which it reports.
func (in *inside) newPacketConn(t target, source net.PacketConn, release func()) net.PacketConn {
	addr := t.Shown(source.LocalAddr())
	c := in.drain.PacketConn(source.(drain.PacketSource), addr, release)
	in.opened(t, addr)
	return c
}

// listenPacket is ListenPacket in a worker.
func (in *inside) listenPacket(ctx context.Context, t target, lc ListenConfig) (net.PacketConn, error) {
	if lc.Exclusive {
		if err := in.drain.Hold(ctx); err != nil {
			return nil, listenError(t, err, "")
		}
		c, err := socket.ListenPacket(ctx, t.Address)
		if err != nil {
			return nil, listenError(t, err, "this worker opens it, for itself")
		}
		return in.newPacketConn(t, c, in.ownFile(t)), nil
	}
	g, err := in.ask(ctx, &t)
	if err != nil {
		return nil, err
	}
	defer g.h.Release()
	release := func() { in.closed(t, g.key) }
	if g.h == nil {
		release()
		return nil, listenError(t, ErrNotSupported, "the master sent no socket")
	}
	c, err := socket.NewPacketConn(g.h)
	if err != nil {
		release()
		return nil, listenError(t, err, "")
	}
	return in.newPacketConn(t, c, release), nil
}

// sockaddrOf is the address of a socket that stays in the master.
func sockaddrOf(t target, s *wire.Sockname) net.Addr {
	if socket.IsUnix(t.Network) {
		return &net.UnixAddr{Name: t.Named, Net: t.Network}
	}
	if s == nil { // node's answer without one: what was asked for
		a, _ := net.ResolveTCPAddr("tcp", t.Literal)
		return a
	}
	return &net.TCPAddr{IP: net.ParseIP(s.Address), Port: s.Port}
}
