package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/link"
	"github.com/go-cluster/cluster/internal/parcel"
	"github.com/go-cluster/cluster/internal/wire"
)

// callbacks is a list of registered functions. Calls see the list as it was
// when they began.
type callbacks[F any] struct {
	mu   sync.Mutex
	list atomic.Pointer[[]*registration[F]]
}

type registration[F any] struct{ fn F }

// add registers fn. The returned func unregisters it; a call that has begun
// may still go on then.
func (c *callbacks[F]) add(fn F) (stop func()) {
	r := &registration[F]{fn}
	c.change(func(l []*registration[F]) []*registration[F] { return append(slices.Clone(l), r) })
	return func() {
		c.change(func(l []*registration[F]) []*registration[F] {
			return slices.DeleteFunc(slices.Clone(l), func(x *registration[F]) bool { return x == r })
		})
	}
}

func (c *callbacks[F]) change(edit func([]*registration[F]) []*registration[F]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := edit(c.all())
	c.list.Store(&l)
}

func (c *callbacks[F]) all() []*registration[F] { return deref(c.list.Load()) }

func deref[T any](list *[]T) []T {
	if list == nil {
		return nil
	}
	return *list
}

// hooks are the cluster-wide callbacks. They are kept apart from the master, since
// they outlive it and a worker has them too.
type hooks struct {
	fork, online, disconnect callbacks[func(*Process)]
	listening                callbacks[func(*Process, net.Addr)]
	message                  callbacks[func(*Process, Message)]
	handle                   callbacks[handler]
	request                  callbacks[requestHandler]
	death                    callbacks[func(*Process, Exit)]
	err                      callbacks[func(*Process, error)]
	reload                   callbacks[func(ReloadResult)]
	check                    callbacks[func(context.Context) error]
}

// handler is one Handle.
type handler struct {
	cmd string
	fn  func(*Process, Message)
}

// OnFork registers fn for every worker forked from now on. It is called before
// anything else about that worker is reported, so callbacks registered on w
// inside fn miss nothing. The returned func unregisters fn.
//
// All callbacks about one worker run one after another, in the order in which
// things happened, on a goroutine that is not the caller's of anything; those
// about different workers may run at once. A callback may call anything.
func OnFork(fn func(w *Process)) (stop func()) { return std.hooks.fork.add(fn) }

// OnOnline registers fn for workers whose runtime is up and whose channel works.
func OnOnline(fn func(w *Process)) (stop func()) { return std.hooks.online.add(fn) }

// OnListening registers fn for every address that a worker listens on, the real
// one: its port is never 0. A unix path is the path that was asked for.
func OnListening(fn func(w *Process, addr net.Addr)) (stop func()) {
	return std.hooks.listening.add(fn)
}

// OnMessage registers fn for messages: from any worker in the master, from the
// master (w is [Worker]) in a worker. A message that came before there was
// anything to take it waits.
func OnMessage(fn func(w *Process, m Message)) (stop func()) {
	return std.taking(std.hooks.message.add(fn))
}

// OnDisconnect registers fn for workers whose channel has closed. In a worker
// it is called when its own channel has closed, before the process ends.
func OnDisconnect(fn func(w *Process)) (stop func()) { return std.hooks.disconnect.add(fn) }

// OnDeath registers fn for workers that have exited: the last report about
// each, once for every fork.
func OnDeath(fn func(w *Process, e Exit)) (stop func()) { return std.hooks.death.add(fn) }

// OnError registers fn for what went wrong with a worker without an error
// return to carry it: protocol faults, refused requests, messages that could
// not be decoded or delivered. Without any OnError callback these are logged.
func OnError(fn func(w *Process, err error)) (stop func()) { return std.hooks.err.add(fn) }

// OnCheck registers fn to be called in this worker at every heartbeat of the
// master's. A check that does not return is a stall: the worker is ended. One
// that returns an error is reported to the master, through OnError and Stats,
// and ends nobody: else a database that is down would take every worker along.
// ctx ends when the drain begins. In a master fn is never called.
func OnCheck(fn func(context.Context) error) (stop func()) { return std.hooks.check.add(fn) }

// Handle registers fn for messages whose "cmd" member is cmd, decoded into T.
// One that cannot be decoded is reported through OnError.
func Handle[T any](cmd string, fn func(w *Process, v T)) (stop func()) {
	return std.taking(std.hooks.handle.add(handler{cmd, func(w *Process, m Message) {
		var v T
		if err := m.Decode(&v); err != nil {
			w.report(fmt.Errorf("cluster: message %q from worker %d: %w", cmd, w.id, err))
			return
		}
		fn(w, v)
	}}))
}

// taking lets the messages and requests that wait find the new handler.
func (c *cluster) taking(stop func()) func() {
	for _, p := range c.live.all() {
		p.events.post(event{fn: func() {}})
		p.link.RetryRequests()
	}
	return stop
}

// processSet is a set of processes, for anyone.
type processSet struct {
	mu  sync.Mutex
	set map[*Process]struct{}
}

func (s *processSet) add(p *Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil {
		s.set = make(map[*Process]struct{})
	}
	s.set[p] = struct{}{}
}

func (s *processSet) remove(p *Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.set, p)
}

func (s *processSet) all() []*Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Process, 0, len(s.set))
	for p := range s.set {
		all = append(all, p)
	}
	return all
}

// event is one thing to report about a process: a batch of messages, or a call.
type event struct {
	fn     func()
	msgs   [][]byte
	parcel *parcel.Parcel // what came with the one message
	size   int            // bytes that it counts against the input bound until it is delivered
}

// events delivers what happens to one process, in order. The goroutine that
// does so exists while there is something to deliver.
type events struct {
	p *Process

	mu    sync.Mutex
	queue []event
	spare []event
	busy  chan struct{} // closed when all is delivered; nil if nothing runs

	// Of the delivering goroutine alone:
	waiting  []Message // that nothing takes yet
	offered  takers    // who they were last offered to
	lastLog  time.Time
	unlogged int
}

// takers are all that take the messages of one process, at one moment. They
// are comparable: a list that changes is another list.
type takers struct {
	own, all *[]*registration[func(*Process, Message)]
	handlers *[]*registration[handler]
}

func (e *events) takers() takers {
	if e.p.apart {
		return takers{own: e.p.onMessage.list.Load()}
	}
	return takers{e.p.onMessage.list.Load(), e.p.cluster.hooks.message.list.Load(), e.p.cluster.hooks.handle.list.Load()}
}

// post queues ev. It never waits.
func (e *events) post(ev event) {
	e.mu.Lock()
	e.queue = append(e.queue, ev)
	start := e.busy == nil
	if start {
		e.busy = make(chan struct{})
	}
	e.mu.Unlock()
	if start {
		go e.deliver()
	}
}

// idle waits until all that was posted is delivered, or for done.
func (e *events) idle(done <-chan struct{}) {
	e.mu.Lock()
	busy := e.busy
	e.mu.Unlock()
	if busy == nil {
		return
	}
	select {
	case <-busy:
	case <-done:
	}
}

func (e *events) deliver() {
	for {
		e.mu.Lock()
		batch := e.queue
		if len(batch) == 0 {
			close(e.busy)
			e.busy = nil
			e.mu.Unlock()
			return
		}
		e.queue, e.spare = e.spare[:0], nil
		e.mu.Unlock()
		for i := range batch {
			e.one(batch[i])
			batch[i] = event{}
		}
		e.mu.Lock()
		if cap(batch) <= 1024 {
			e.spare = batch[:0]
		}
		e.mu.Unlock()
	}
}

func (e *events) one(ev event) {
	e.retryWaiting()
	if ev.fn != nil {
		ev.fn()
	}
	size := ev.size
	for _, raw := range ev.msgs {
		m := Message{raw, ev.parcel}
		if t := e.retryWaiting(); !e.message(t, m) {
			// Not what came in the same read, too: see link.keep.
			m.raw = bytes.Clone(m.raw)
			e.waiting = append(e.waiting, m)
			size -= m.cost()
		}
	}
	if size > 0 {
		e.p.link.Release(size)
	}
	if len(ev.msgs) > 0 {
		e.p.link.SetWaiting(len(e.waiting))
	}
}

// cost is what the message counts against the input bound.
func (m Message) cost() int {
	if m.parcel != nil {
		return len(m.raw) + link.HandleCost
	}
	return len(m.raw) + link.MessageCost
}

// message gives m to all of t that take it. If any does, its handle ends with the
// last of them.
func (e *events) message(t takers, m Message) (taken bool) {
	p := e.p
	if m.parcel != nil {
		defer func() {
			if taken {
				m.parcel.Drop()
			}
		}()
	}
	for _, r := range deref(t.own) {
		taken = true
		r.fn(p, m)
	}
	for _, r := range deref(t.all) {
		taken = true
		r.fn(p, m)
	}
	if handlers := deref(t.handlers); len(handlers) > 0 {
		cmd := wire.Cmd(m.raw)
		for _, r := range handlers {
			if cmd.Is(r.fn.cmd) {
				taken = true
				r.fn.fn(p, m)
			}
		}
	}
	return taken
}

// retryWaiting delivers the messages that waited for a handler which is there
// now. It comes before anything newer, or the order would break; so what is
// newer goes to the takers that it returns, and to none that came in between.
func (e *events) retryWaiting() takers {
	t := e.takers()
	if t == e.offered || len(e.waiting) == 0 {
		e.offered = t
		return t
	}
	freed := 0
	for again := true; again; {
		again = false
		kept := e.waiting[:0]
		for i, m := range e.waiting {
			if now := e.takers(); now != t { // changed by a callback: for it too the oldest comes first
				t, again = now, true
				kept = append(kept, e.waiting[i:]...)
				break
			}
			if e.message(t, m) {
				freed += m.cost()
			} else {
				kept = append(kept, m)
			}
		}
		clear(e.waiting[len(kept):])
		e.waiting = kept
	}
	e.offered = t
	e.p.link.Release(freed)
	e.p.link.SetWaiting(len(e.waiting))
	return t
}

// dropWaiting ends the wait of messages that nothing will take any more.
func (e *events) dropWaiting() {
	if n := len(e.waiting); n > 0 {
		first := e.waiting[0]
		for _, m := range e.waiting {
			m.parcel.Drop()
		}
		e.waiting = nil
		e.error(fmt.Errorf("cluster: worker %d is gone: %d of its messages found no handler, the first is %s",
			e.p.id, n, wire.Excerpt(first.raw)))
	}
}

// error tells the OnError callbacks, or the log if there are none.
func (e *events) error(err error) {
	p, told := e.p, false
	for _, r := range p.onError.all() {
		told = true
		r.fn(p, err)
	}
	for _, r := range p.cluster.hooks.err.all() {
		told = true
		r.fn(p, err)
	}
	if !told {
		e.log(err)
	}
}

// log writes at most one line a second: a worker that talks rubbish must not
// fill the disk.
func (e *events) log(err error) {
	if now := time.Now(); now.Sub(e.lastLog) >= time.Second {
		attrs := []any{"worker", e.p.id, "err", err}
		if e.unlogged > 0 {
			attrs = append(attrs, slog.Int("suppressed", e.unlogged))
		}
		e.p.logger().Warn("cluster: error", attrs...)
		e.lastLog, e.unlogged = now, 0
		return
	}
	e.unlogged++
}

// report queues err for the OnError callbacks of p and of the cluster.
func (p *Process) report(err error) { p.reportSized(err, 0) }

// reportSized is report for what the peer can cause at will: it counts size
// bytes against the peer's input bound.
func (p *Process) reportSized(err error, size int) {
	p.events.post(event{fn: func() { p.events.error(err) }, size: size})
}

// accuse reports what the peer can cause at will. Unlike a link's fault it may
// be called by anyone, not by the reader alone.
func (p *Process) accuse(err error) {
	cost := link.FaultCost + len(err.Error()) // which can quote what the peer said
	p.charge(cost)
	p.reportSized(err, cost)
}

// charge counts a report against the peer's input bound, until it is delivered.
func (p *Process) charge(cost int) { p.link.Charge(cost) }

// The emit methods queue the reports of the other events. Their callers hold
// the order: the master's goroutine or the channel's reader.

func (p *Process) emitFork() { p.emit(&p.cluster.hooks.fork, nil) }

func (p *Process) emitOnline() { p.emit(&p.cluster.hooks.online, &p.onOnline) }

func (p *Process) emitDisconnect() { p.emit(&p.cluster.hooks.disconnect, &p.onDisconnect) }

func (p *Process) emit(cluster, own *callbacks[func(*Process)]) {
	p.events.post(event{fn: func() {
		if own != nil {
			for _, r := range own.all() {
				r.fn(p)
			}
		}
		for _, r := range cluster.all() {
			r.fn(p)
		}
	}})
}

// emitListening counts against the input bound: a worker can say it at will.
func (p *Process) emitListening(addr net.Addr) {
	cost := link.FaultCost + len(addr.String())
	p.charge(cost)
	p.events.post(event{size: cost, fn: func() {
		for _, r := range p.onListening.all() {
			r.fn(p, addr)
		}
		for _, r := range p.cluster.hooks.listening.all() {
			r.fn(p, addr)
		}
	}})
}

func (p *Process) emitDeath(e Exit) {
	p.events.post(event{fn: func() {
		if n := p.link.DropRequests(); n > 0 {
			p.events.error(fmt.Errorf("cluster: worker %d is gone: %d of its requests were dropped: %w", p.id, n, errNoHandler))
		}
		p.events.dropWaiting()
		defer p.cluster.live.remove(p)
		for _, r := range p.onExit.all() {
			r.fn(p, e)
		}
		for _, r := range p.cluster.hooks.death.all() {
			r.fn(p, e)
		}
	}})
}

// errNoHandler is why a request ended without an answer.
var errNoHandler = errors.New("no handler was registered for it")
