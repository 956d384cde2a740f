package share

import (
	"context"
	"errors"
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
	Ends     func() bool          // Draining, or about to be
	WhoOpens func(uid int) string // names the user that opens sockets, for errors
	Places   Places

	// Exhausted is called, at most once a minute, when a connection is given back because
	// no descriptor is free.
	Exhausted func(err error)

	// Received counts a read of a sharded address for datagrams. The master sees the count.
	Received func()
}

// Places are the places that a worker has for connections. The answer to an offer tells the
// master that the last place is taken, and HasRoom that one is free again.
type Places interface {
	// Reserve takes a place for a connection that Accept is certain to return. It
	// returns false if no place is free.
	Reserve() bool
	// Unreserve gives back a place: there is no connection for it.
	Unreserve()
	// Full reports whether no place is free.
	Full() bool
	// Room returns how many places are left, less than 0 if more are taken than there are,
	// and false if there is no bound.
	Room() (places int, bounded bool)
	// Connects takes a place for a connection that a client has begun already, even if no
	// place is free. The caller calls accepted when the program has the connection, and
	// ended when the connection is gone.
	Connects() (accepted, ended func())
}

// Asker is the worker's side of the shared addresses. It asks the master for addresses, and
// remembers what it was granted.
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

// Grant is what the master gave for an address. Listener or PacketConn makes the source of
// connections of it; Release gives it back.
type Grant struct {
	Query // with the index that the asker has chosen
	asker *Asker
	key   string
	h     *handle.Handle // nil if the master accepts, or the sockets come later
	addr  net.Addr       // then

	sharded bool // they come later
}

// Ask asks the master for q. If the answer comes after ctx has ended, what it grants is given
// back.
func (a *Asker) Ask(ctx context.Context, q Query) (*Grant, error) {
	if q.Network == "unixgram" && !a.worker.Go {
		return nil, ListenError(q.Address, fmt.Errorf("a node primary shares no unixgram sockets: %w", errs.NotSupported), "")
	}
	a.takeIndex(&q.Address)
	if !a.worker.Go && q.Index > 0 && q.Port() != 0 {
		// Every version of node does something wrong, each in its own way, at the second
		// listen of one worker on one address. Some give the first socket again.
		a.dropIndex(q.Address)
		return nil, ListenError(q.Address, syscall.EADDRINUSE, "this worker listens there already")
	}
	return a.ask(ctx, q, func() { a.dropIndex(q.Address) })
}

// ask is Ask for a q that has its index. drop is called if nothing is granted.
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
		if !a.worker.Go && w.Go != nil { // no word of the primary's: its socket did not come
			a.close(w.Key)
		}
		return nil, a.refused(q, w)
	}
	g := &Grant{Query: q, asker: a, key: w.Key, h: h}
	g.sharded = w.Go != nil && w.Go.Sharded
	if h == nil {
		g.addr = addrOf(q.Address, w.Sockname)
	} else if (w.Go == nil || !w.Go.Listening) && !q.IsPacket() {
		if err := socket.ListenBound(h, q.Address); err != nil {
			// The primary believes that this worker has the address. A second question
			// for it would crash node 20.
			a.close(w.Key)
			return nil, ListenError(q.Address, err, scarceHint(err))
		}
	}
	a.mu.Lock()
	a.keys[g.key] = true
	a.mu.Unlock()
	return g, nil
}

// refused returns the error with which the master did not open the address.
func (a *Asker) refused(q Query, w *wire.Message) error {
	hint := "the primary opens it"
	if w.Go != nil {
		if w.Go.UID != nil {
			hint = a.worker.WhoOpens(*w.Go.UID)
		}
		switch r := w.Go.Reason; {
		case r == wire.NoDescriptor:
			hint = r // it is this process's own
		case r != "":
			hint = r + "; " + hint
		}
	}
	return ListenError(q.Address, socket.ErrnoOf(*w.Errno), hint)
}

// scarceHint is the way out of err if no descriptor is free in this worker.
func scarceHint(err error) string {
	if errors.Is(err, syscall.EMFILE) {
		return wire.NoDescriptor
	}
	return ""
}

// close tells the master that this worker has closed the address.
func (a *Asker) close(key string) {
	a.worker.Link.Order(&wire.Message{Act: wire.ActClose, Key: key})
}

// takeIndex gives addr the lowest index that is free for the address in this worker. So the
// n-th listen on port 0 gets the same socket in every worker.
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

// Withdraw tells a node primary that this worker has closed all its addresses, so that it
// gives the worker no connection any more. A Go master need not be told.
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

// Release gives back what the master granted. A worker that drains, or is about to, does not
// tell the master: a master that does not know of the drain yet would take it for the end of
// the address.
func (g *Grant) Release() {
	g.asker.mu.Lock()
	delete(g.asker.keys, g.key)
	g.asker.mu.Unlock()
	if !g.asker.worker.Go || !g.asker.worker.Ends() {
		g.asker.close(g.key)
	}
	g.asker.dropIndex(g.Address)
}

// Listener returns the source of the connections, and the address that the application sees.
// The source has SetDeadline, with which a drain stops it. After an error the grant is
// released.
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
			return nil, nil, ListenError(g.Address, err, scarceHint(err))
		}
		return s, g.Shown(g.addr), nil
	}
	if g.h == nil {
		return g.asker.newQueue(g.key), g.Shown(g.addr), nil
	}
	ln, err := socket.NewListener(g.h)
	if err != nil {
		g.Release()
		return nil, nil, ListenError(g.Address, err, scarceHint(err))
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
		return nil, nil, ListenError(g.Address, err, scarceHint(err))
	}
	return c, g.Shown(c.LocalAddr()), nil
}
