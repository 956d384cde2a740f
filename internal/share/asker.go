package share

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// Link is a worker's channel to the master.
type Link interface {
	// Ask sends a question. answered is called with the answer and its descriptor,
	// which it takes over, or with nil when the channel has closed.
	Ask(w *wire.Message, answered func(*wire.Message, *handle.Handle))
	// Order sends a message that has no answer.
	Order(w *wire.Message) error
	// Answer sends a line that answers a question of the master's.
	Answer(line []byte)
}

// Worker is the process that an Asker is in.
type Worker struct {
	Link     Link
	Go       bool                 // the master speaks more than node's protocol
	Draining func() bool          // this worker takes no connection any more
	Ends     func() bool          // the same, or it is about to
	WhoOpens func(uid int) string // names the user that opens sockets, for errors
	Places   Places

	// Exhausted is told, once a minute, that a connection is given back because no
	// descriptor is free.
	Exhausted func(err error)

	// Received counts, for the master, a read of a sharded address for datagrams.
	Received func()
}

// Places are those that a worker has for connections. The master is told, with the answer
// to an offer, that the last one is taken, and by HasRoom that one is free again.
type Places interface {
	// Reserve takes a place for a connection that Accept is certain to return. It
	// reports false if there is none.
	Reserve() bool
	// Unreserve gives it back: there is no connection.
	Unreserve()
	// Full reports whether there is none.
	Full() bool
	// Connects takes a place for a connection whose client has been heard, whether there
	// is one or not. accepted is called when the program has it, ended when it is no more.
	Connects() (accepted, ended func())
}

// Asker is a worker's side of the shared addresses. It asks the master for them
// and remembers what it was granted.
type Asker struct {
	worker Worker

	mu      sync.Mutex
	indexes map[string]map[int]bool // of the open sockets, by network and address
	queues  map[string]*handedQueue // of what the master accepts, by its key
	shards  map[string]shardTaker   // of which it gives and takes the sockets, by its key
	unix    map[string]*unixSource  // of which it may open another one, by its key
	keys    map[string]bool         // the master's, of what is open
	places  map[string]*FlowPlace   // in groups of UDP sockets, by the master's key

	saying     sync.Mutex // orders what the master is told of this worker's room
	toldFull   bool       // with saying: it believes that there is none
	toldNoRoom bool       // with saying: and that others are to have this worker's shares

	scarce scarcity
}

// NewAsker makes an Asker that has asked for nothing.
func NewAsker(w Worker) *Asker {
	return &Asker{worker: w, indexes: make(map[string]map[int]bool), queues: make(map[string]*handedQueue), shards: make(map[string]shardTaker), unix: make(map[string]*unixSource), keys: make(map[string]bool), places: make(map[string]*FlowPlace)}
}

// Grant is what the master gave for an address. Listener or PacketConn makes of it
// what connections come from; Release gives it back.
type Grant struct {
	Query // with the index that the asker has chosen
	asker *Asker
	key   string
	h     *handle.Handle // nil if the master accepts, or the sockets come later
	addr  net.Addr       // then

	sharded bool // they come later
}

// Ask asks the master for q. An answer that comes after ctx has ended is given
// back.
func (a *Asker) Ask(ctx context.Context, q Query) (*Grant, error) {
	if q.Network == "unixgram" && !a.worker.Go {
		return nil, ListenError(q.Address, fmt.Errorf("a node primary shares no unixgram sockets: %w", errs.NotSupported), "")
	}
	a.takeIndex(&q.Address)
	if !a.worker.Go && q.Index > 0 && q.Port() != 0 {
		// Node's versions each go wrong in their own way about the second listen of
		// one worker on one address; some give the first one's socket again.
		a.dropIndex(q.Address)
		return nil, ListenError(q.Address, syscall.EADDRINUSE, "this worker listens there already")
	}
	return a.ask(ctx, q, func() { a.dropIndex(q.Address) })
}

// ask is Ask, with the index of q. drop is called if it comes to nothing.
func (a *Asker) ask(ctx context.Context, q Query, drop func()) (*Grant, error) {
	type reply struct {
		w *wire.Message
		h *handle.Handle
	}
	replied := make(chan reply, 1)
	a.worker.Link.Ask(q.message(), func(w *wire.Message, h *handle.Handle) { replied <- reply{w, h} })
	var r reply
	select {
	case r = <-replied:
	case <-ctx.Done():
		go func() { // the socket may still come
			r := <-replied
			r.h.Release()
			if r.w != nil && r.w.Key != "" {
				a.close(r.w.Key)
			}
			drop()
		}()
		return nil, ListenError(q.Address, ctx.Err(), "")
	}
	if r.w == nil {
		// The channel is closed, so this worker is at its end: as in a drain.
		<-ctx.Done()
		return nil, ListenError(q.Address, ctx.Err(), "")
	}
	g, err := a.granted(q, r.w, r.h)
	if err != nil {
		r.h.Release()
		drop()
		return nil, err
	}
	return g, nil
}

// granted reads the master's answer.
func (a *Asker) granted(q Query, w *wire.Message, h *handle.Handle) (*Grant, error) {
	if w.Errno != nil && *w.Errno != 0 {
		return nil, a.refused(q, w)
	}
	g := &Grant{Query: q, asker: a, key: w.Key, h: h}
	g.sharded = w.Go != nil && w.Go.Sharded
	if h == nil {
		g.addr = addrOf(q.Address, w.Sockname)
	} else if (w.Go == nil || !w.Go.Listening) && !q.IsPacket() {
		if err := socket.ListenBound(h, q.Address); err != nil {
			// The primary believes that this worker has it, and a second question
			// for the same would crash node 20.
			a.close(w.Key)
			return nil, ListenError(q.Address, err, "")
		}
	}
	a.mu.Lock()
	a.keys[g.key] = true
	a.mu.Unlock()
	return g, nil
}

// refused is why the master did not open the address.
func (a *Asker) refused(q Query, w *wire.Message) error {
	hint := "the primary opens it"
	if w.Go != nil {
		if w.Go.UID != nil {
			hint = a.worker.WhoOpens(*w.Go.UID)
		}
		if r := w.Go.Reason; r != "" {
			hint = r + "; " + hint
		}
	}
	return ListenError(q.Address, socket.ErrnoOf(*w.Errno), hint)
}

// close tells the master that this worker has closed the address.
func (a *Asker) close(key string) {
	a.worker.Link.Order(&wire.Message{Act: wire.ActClose, Key: key})
}

// takeIndex gives addr the lowest index that is free for its address in this
// worker, so that the n-th listen on port 0 is the same in every worker.
func (a *Asker) takeIndex(addr *socket.Address) {
	a.mu.Lock()
	defer a.mu.Unlock()
	name := addr.Network + " " + addr.Literal
	if a.indexes[name] == nil {
		a.indexes[name] = make(map[int]bool)
	}
	for addr.Index = 0; a.indexes[name][addr.Index]; addr.Index++ {
	}
	a.indexes[name][addr.Index] = true
}

func (a *Asker) dropIndex(addr socket.Address) {
	a.mu.Lock()
	defer a.mu.Unlock()
	name := addr.Network + " " + addr.Literal
	delete(a.indexes[name], addr.Index)
	if len(a.indexes[name]) == 0 {
		delete(a.indexes, name)
	}
}

// Withdraw tells a node primary that this worker has closed all its addresses: to
// one that has said so it gives no connection any more. A Go master needs no word.
func (a *Asker) Withdraw() {
	if a.worker.Go {
		return
	}
	a.mu.Lock()
	var keys []string
	for k := range a.keys {
		keys = append(keys, k)
	}
	a.mu.Unlock()
	slices.Sort(keys)
	for _, k := range keys {
		a.close(k)
	}
}

// Release gives back what the master granted. A worker that drains, or is about to, says
// nothing of it: the master would take it for the end of the address if it did not know of
// the drain yet.
func (g *Grant) Release() {
	g.asker.mu.Lock()
	delete(g.asker.keys, g.key)
	g.asker.mu.Unlock()
	if !g.asker.worker.Go || !g.asker.worker.Ends() {
		g.asker.close(g.key)
	}
	g.asker.dropIndex(g.Address)
}

// Listener returns the source of the connections, and the address that it shows to
// the application. The source has SetDeadline, with which a drain stops it. After
// an error the grant is released.
func (g *Grant) Listener() (source net.Listener, addr net.Addr, err error) {
	defer g.h.Release()
	if !g.asker.worker.Go {
		// A node primary knows two modes of a socket's file, and not before bind.
		if err := g.SetModeAndOwner(); err != nil {
			g.Release()
			return nil, nil, ListenError(g.Address, err, "this worker sets the mode")
		}
	}
	if g.sharded {
		s, err := g.asker.newShardSource(g.key)
		if err != nil {
			g.Release()
			return nil, nil, ListenError(g.Address, err, "")
		}
		return s, g.Shown(g.addr), nil
	}
	if g.h == nil {
		return g.asker.newQueue(g.key), g.Shown(g.addr), nil
	}
	ln, err := socket.NewListener(g.h)
	if err != nil {
		g.Release()
		return nil, nil, ListenError(g.Address, err, "")
	}
	addr = g.Shown(ln.Addr())
	if u, ok := ln.(*net.UnixListener); ok && g.asker.worker.Go {
		return g.asker.newUnixSource(g, u), addr, nil
	}
	return ln, addr, nil
}

// PacketConn is [Grant.Listener] for datagrams.
func (g *Grant) PacketConn() (source net.PacketConn, addr net.Addr, err error) {
	defer g.h.Release()
	if g.h == nil {
		g.Release()
		return nil, nil, ListenError(g.Address, errs.NotSupported, "the master sent no socket")
	}
	var c net.PacketConn
	if g.sharded {
		c, err = g.asker.newPacketShards(g.key, g.h)
	} else {
		c, err = socket.NewPacketConn(g.h)
	}
	if err != nil {
		g.Release()
		return nil, nil, ListenError(g.Address, err, "")
	}
	return c, g.Shown(c.LocalAddr()), nil
}
