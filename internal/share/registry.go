package share

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/go-cluster/cluster/internal/callback"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// Peer is the channel to a worker.
type Peer interface {
	// Grants notes that the worker is about to be granted the address. It returns false if
	// the worker takes no address any more. It is called in the mailbox.
	Grants(key string) bool
	// Answer sends a line that answers a question of the worker's.
	Answer(line []byte)
	// SendHandle sends m with a descriptor, which it takes over. lost is called, outside of the
	// mailbox, if the worker had no descriptor free for it.
	SendHandle(typ string, m *wire.Message, h *handle.Handle, lost func())
	// AskHandleLine sends line, a message with the number seq, with a descriptor,
	// which it takes over. answered is called with the answer, or with nil when the
	// worker is gone.
	AskHandleLine(line []byte, seq int64, h *handle.Handle, answered func(*wire.Message, *handle.Handle))
}

// Member is a worker, as the registry knows it. Two values are equal if they are
// the same worker.
type Member interface {
	Peer
	// Leaving reports whether the worker is on its way out.
	Leaving() bool
	// Took notes that the worker has taken a connection that the master accepted.
	Took()
	// Load returns how many connections the worker has, and false if that is not known. It
	// is called with a lock held, and must not wait.
	Load() (Load, bool)
	// Generation returns the number of the program that the worker runs. Numbers grow.
	Generation() int
	// Slotted reports whether the worker has a slot, in which another worker will follow it.
	Slotted() bool
	// ID returns the worker's number, and Slot the place of its slot, -1 if it has none.
	ID() int
	Slot() int
}

// Load is how many connections a worker has.
type Load struct {
	Accepted, Open int64 // ever, and open now
	Received       int64 // reads of a [Sharded] address for datagrams, ever
}

// Host is the process that a Registry is in.
type Host struct {
	// Turn runs a function in the mailbox that the registry's entries belong to,
	// and returns when it has run.
	Turn func(func())
	// Activated returns the sockets that a service manager opened, or kept, for this
	// process. It is called once, when the first address is opened. Deactivate closes one
	// of them.
	Activated  func() []Passed
	Deactivate func(fd int)
	// UID is the user as whom this process opens sockets, or -1.
	UID int
	// Patience is the time until which the registry waits for an address that is in use.
	Patience time.Time
	// Exhausted, if not nil, is called at most once a minute when no connection is accepted.
	Exhausted func(err error)
	// Fallback, if not nil, is called in the mailbox when an address is not spread as it was
	// asked for. l.Lack says why.
	Fallback func(l Listening, wanted Policy)
}

// Terms are what the options of a worker say about its questions.
type Terms struct {
	Allow  func(network, address string) error // Options.AllowListen, or nil
	Policy Policy                              // for addresses without one of their own
	FDs    []int                               // Options.ListenFDs
	// Workers is how many workers there are to be.
	Workers int
	// Guarded says that the workers run as another user, whose symbolic links must not lead
	// this process astray.
	Guarded bool
	Libuv   func() string // the version of libuv in a worker that is node's, or ""; may be nil
}

// Registry has the shared addresses. An entry outlives the workers that asked for it: until the
// address ends connections to it wait, whatever happens to the workers.
type Registry struct {
	Shards    Shards
	Flows     FlowGroups
	Stored    Stored
	host      Host
	entries   map[string]*entry // by Query.Key; in the mailbox
	made      int               // how many entries there were, ever; in the mailbox
	bereft    map[string]*entry // entries that this process held, and that ended to be opened anew
	watcher   *socket.Watch     // watches sockets that workers can break; nil if there are none; in the mailbox
	ticking   bool              // sockets that are not watched will be looked at; in the mailbox
	preopened preopened
	activated activated
	closer    handle.Closer // of sockets and connections, which workers have as well
	scarce    scarcity
}

// entry is one address and the sockets that serve it.
type entry struct {
	key        string
	query      Query
	opened     chan struct{}       // closed when the next six are set
	err        error               // why there is no socket
	sockets    []*handle.Handle    // bare: no poller wakes the master for their connections
	addr       net.Addr            // the real one
	unlink     func()              // removes a unix socket's file
	file       *socket.UnixFile    // that file, if it was made here
	dispatcher *dispatcher         // nil if workers accept themselves
	shards     *shards             // nil unless the sockets change hands
	lack       string              // why it is not spread as it was asked for
	data       json.RawMessage     // of the first worker that asked; all are told (node: TLS ticket keys)
	holders    map[Member]struct{} // workers that listen
	held       int                 // how often this process itself listens
	heir       *entry              // the entry that has taken over held
	generation int                 // of the newest worker that was granted it
	slotted    bool                // it was granted to a worker with a slot
	nth        int                 // its number among all entries ever
	granted    bool                // some worker has had it
	owned      bool                // the program itself opened the socket before it forked
	foreign    bool                // the socket is a service manager's own
	stored     string              // the name under which a service manager keeps the socket, or ""
	watched    bool                // an event tells when the socket is broken
	broken     bool                // the socket could not be mended yet
}

// NewRegistry makes an empty registry.
func NewRegistry(host Host) *Registry {
	r := &Registry{host: host, entries: make(map[string]*entry), bereft: make(map[string]*entry), activated: activated{load: host.Activated, drop: host.Deactivate}}
	r.Shards.r, r.Stored.r = r, r
	r.Flows = FlowGroups{registry: r, groups: make(map[string]*flowGroup)}
	return r
}

// exhausted reports that no connection can be accepted.
func (r *Registry) exhausted(err error) { r.scarce.tell(r.host.Exhausted, err) }

// ---- called by anyone, outside of the mailbox

// Answer answers a worker's queryServer. It returns an error for a question that is wrong; the
// worker has been told already. Answer may take long, since Terms.Allow is a function of the
// application.
func (r *Registry) Answer(m Member, w *wire.Message, terms Terms) error {
	q, err := readQuery(w)
	if err != nil {
		r.refuseFor(m, w, err)
		return fmt.Errorf("queryServer: %w", err)
	}
	if w.Go == nil && terms.Libuv != nil && strings.HasPrefix(q.Literal, "@") {
		q.Literal = libuvName(q.Literal, terms.Libuv())
	}
	network, address := q.Network, q.Literal
	if q.FD >= 0 {
		if network, address, err = r.offered(q.FD, terms.FDs); err != nil {
			r.Refuse(m, w, syscall.EACCES, err.Error())
			return fmt.Errorf("listen on descriptor %d: %w", q.FD, err)
		}
	}
	q.Guarded, q.Workers = terms.Guarded, terms.Workers
	if err := q.Locate(); err != nil {
		r.refuseFor(m, w, err)
		return fmt.Errorf("listen %s %s: %w", q.Network, q.Named, err)
	}
	if terms.Allow != nil {
		if err := callback.Wait(func() error { return terms.Allow(network, address) }); err != nil {
			r.Refuse(m, w, syscall.EACCES, "refused by AllowListen: "+err.Error())
			return fmt.Errorf("listen %s %s: refused by AllowListen: %w", network, wire.Plain(address), err)
		}
	}
	if q.Policy == 0 {
		q.Policy = terms.Policy
	}
	if w.Go != nil && w.Go.Flow != nil {
		err = r.Flows.join(context.Background(), m, w, q, terms.Workers)
	} else {
		err = r.use(context.Background(), q, w.Data, m, func(e *entry) error { return r.grant(m, w, e) })
	}
	if err != nil {
		r.refuseFor(m, w, err)
	}
	return nil
}

// Refuse answers a worker's queryServer with an error.
func (r *Registry) Refuse(p Peer, w *wire.Message, errno syscall.Errno, reason string) {
	p.Answer(refusal(w, errno, reason, r.host.UID).Line())
}

// refuseFor is Refuse with the number of err, and its text unless the number says it all.
func (r *Registry) refuseFor(p Peer, w *wire.Message, err error) {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		errno = syscall.EINVAL
	}
	reason := err.Error()
	if why := (*socket.Reason)(nil); errors.As(err, &why) {
		reason = why.Text
	} else if op := (*net.OpError)(nil); errors.As(err, &op) || err == errno {
		reason = ""
	}
	r.Refuse(p, w, errno, reason)
}

// refusal returns the answer to queryServer when there will be no socket.
func refusal(w *wire.Message, errno syscall.Errno, reason string, uid int) *wire.Message {
	return &wire.Message{Cmd: wire.CmdCluster, Errno: ptr(-int(errno)), Key: "refused", Ack: w.Seq, Data: null,
		Go: &wire.Extension{Reason: reason, UID: &uid}, Seq: wire.NextSeq()}
}

// use calls fn, in the mailbox, with the entry for q, for m, or for the master itself if m is
// nil. If the address ends before fn has its turn, it is opened once more.
func (r *Registry) use(ctx context.Context, q Query, data json.RawMessage, m Member, fn func(*entry) error) error {
	r.renew(q.Key(), m)
	for {
		e, err := r.acquire(ctx, q, data, m)
		if err != nil || e == nil {
			return err
		}
		ended := false
		r.host.Turn(func() {
			if ended = r.entries[e.key] != e; !ended {
				err = fn(e)
			}
		})
		if !ended {
			return err
		}
	}
}

// acquire returns the entry for q, opened, for m, or for the master itself if m is nil. For a
// worker that is leaving it returns nil: such a worker gets no answer. It waits while the same
// address is being opened for another question.
func (r *Registry) acquire(ctx context.Context, q Query, data json.RawMessage, m Member) (e *entry, err error) {
	var open bool
	r.host.Turn(func() { e, open, err = r.claim(q, data, m) })
	if err != nil || e == nil {
		return nil, err
	}
	if open {
		o, err := r.openWithin(ctx, q)
		r.host.Turn(func() { r.commit(e, o, err) })
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

// opened has the sockets of an address that have just been opened.
type opened struct {
	sockets []*handle.Handle // one, unless the address is sharded or a service manager gave several
	addr    net.Addr
	unlink  func()
	file    *socket.UnixFile // that the registry has made
	lent    bool             // others than the registry have them too
	policy  Policy           // the one in force
	lack    string           // why it is not the policy that was asked for
	owned   bool             // the program itself opened them before it forked
	foreign bool             // they are a service manager's own
	stored  string           // the name under which a service manager has kept them, or ""
}

// open opens q's socket. If this program opened the address itself before it forked, or a
// service manager opened it, that socket is shared: else the new one would collide with it.
func (r *Registry) open(ctx context.Context, q Query) (o opened, err error) {
	a := q.Address
	o.lent, o.policy = true, q.Policy
	if h, addr, release := r.preopened.find(a); h != nil {
		o.sockets, o.addr, o.unlink, o.owned = []*handle.Handle{h}, addr, release, true
	} else if all, addr, stored := r.activated.find(a); stored != "" {
		o.sockets, o.addr, o.file, o.stored = all, addr, prepare(a, all), stored
		o.unlink = o.file.Unlink
	} else if all != nil {
		o.sockets, o.addr, o.unlink, o.foreign = all, addr, func() {}, true // the service manager's: never unlinked
	} else if o.lack = unshardable(q); q.Policy.sharded() && o.lack == "" {
		if o, err = openGroup(ctx, q); err != nil {
			return o, r.activated.explain(a, err)
		}
		return o, nil
	} else {
		h, addr, file, err := socket.Open(ctx, a)
		if err != nil {
			return o, r.activated.explain(a, err)
		}
		o.sockets, o.addr, o.unlink, o.file, o.lent = []*handle.Handle{h}, addr, file.Unlink, file, a.FD >= 0
	}
	switch {
	case !q.Policy.sharded():
		o.lack = ""
	case o.lack == "":
		o.lack = "somebody else has opened the socket"
	}
	if o.lack != "" {
		o.policy = Shared
	}
	return o, nil
}

// ---- called in the mailbox

// claim finds or makes the entry for q. If open is true, the caller has to open the socket.
func (r *Registry) claim(q Query, data json.RawMessage, m Member) (e *entry, open bool, err error) {
	if m != nil && m.Leaving() {
		return nil, false, nil
	}
	key := q.Key()
	if e := r.entries[key]; e != nil {
		if _, twice := e.holders[m]; twice && m != nil {
			return nil, false, syscall.EADDRINUSE // as if the worker had opened the socket itself
		}
		return e, false, nil
	}
	if err := r.admit(m); err != nil {
		return nil, false, err
	}
	if len(data) == 0 {
		data = null
	}
	r.made++
	e = &entry{key: key, nth: r.made, query: q, data: data, opened: make(chan struct{}), holders: make(map[Member]struct{})}
	r.entries[key] = e
	if b := r.bereft[key]; b != nil {
		e.held, b.heir = b.held, e
		delete(r.bereft, key)
	}
	return e, true, nil
}

// commit ends the opening of e. After an error the entry is forgotten, so that the
// next Listen tries again.
func (r *Registry) commit(e *entry, o opened, err error) {
	defer close(e.opened)
	if err == nil && r.entries[e.key] != e {
		// The cluster has stopped meanwhile.
		for _, h := range o.sockets {
			h.Release()
		}
		if o.stored == "" { // clients reach a kept socket by its file
			o.unlink()
		}
		err = errs.Closed
	}
	if err != nil {
		e.err = err
		if r.entries[e.key] == e {
			delete(r.entries, e.key)
			r.bequeath(e)
		}
		return
	}
	e.sockets, e.addr, e.unlink, e.file, e.owned, e.foreign, e.stored = o.sockets, o.addr, o.unlink, o.file, o.owned, o.foreign, o.stored
	wanted := e.query.Policy
	e.query.Policy, e.lack = o.policy, o.lack
	switch {
	case o.policy.sharded():
		if e.err = r.Shards.begin(e); e.err != nil {
			r.drop(e, false)
			return
		}
	case e.ofBothFamilies():
		e.query.Policy = Shared
		e.err = r.Shards.begin(e)
	case len(o.sockets) > 1 && o.policy != LeastConnections:
		e.query.Policy = RoundRobin // a worker can take only one socket for an address
	}
	if e.lack != "" && r.host.Fallback != nil {
		r.host.Fallback(e.listening(), wanted)
	}
	if p := policyOf(e.query); p != nil {
		e.dispatcher, e.err = newDispatcher(e.key, o.sockets, o.lent, p, closeConn(&r.closer, e.addr), r.exhausted)
		if e.err != nil {
			r.drop(e, false)
			return
		}
	}
	r.tend(e)
	r.Stored.store(e)
}

// HasRoom notes that m, which has said that it is full, takes connections again.
func (r *Registry) HasRoom(m Member) {
	for _, e := range r.entries {
		if e.dispatcher != nil {
			e.dispatcher.hasRoom(m)
		}
	}
	r.Shards.each(m, func(h *hand) { h.full, h.hung = false, false })
	r.Flows.hasRoom(m)
}

// Leave takes m out of the rotations. What it was handed it keeps.
func (r *Registry) Leave(m Member) {
	for _, e := range r.entries {
		if e.dispatcher != nil {
			e.dispatcher.remove(m)
		}
	}
	r.Shards.each(m, func(h *hand) { h.leaving = true })
	r.Flows.leave(m)
}

// Forget forgets a worker whose channel has closed.
func (r *Registry) Forget(m Member) {
	r.Leave(m)
	for _, e := range r.entries {
		delete(e.holders, m)
		r.Shards.part(e, m)
	}
	r.Flows.forget(m)
}

// Listening is an open address, as Stats shows it.
type Listening struct {
	Network, Address string
	Policy           Policy
	Backlog, Limit   int    // how many connections wait, and may wait; 0 where the system does not tell
	Sockets          int    // how many there are, if they change hands
	Lack             string // why the policy is not the one that was asked for; "" if it is
}

// Listening returns the open addresses, in no order.
func (r *Registry) Listening() []Listening {
	all := make([]Listening, 0, len(r.entries))
	for _, e := range r.entries {
		if len(e.sockets) > 0 { // not while it is being opened
			all = append(all, e.listening())
		}
	}
	return r.Flows.listening(all)
}

func (e *entry) listening() Listening {
	l := Listening{Network: e.addr.Network(), Address: wire.Plain(e.query.Shown(e.addr).String()), Policy: e.query.Policy, Lack: e.lack}
	if e.shards != nil {
		l.Sockets = len(e.sockets)
	}
	for _, h := range e.sockets {
		waiting, limit := socket.Queue(h)
		l.Backlog, l.Limit = l.Backlog+waiting, l.Limit+limit
	}
	return l
}
