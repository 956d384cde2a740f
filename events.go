package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/callback"
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
	notNil(isNilFunc(fn))
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

// OnFork registers fn for every worker forked from now on. It is called before
// anything else about that worker is reported, so callbacks registered on w
// inside fn miss nothing. The returned func unregisters fn.
//
// All callbacks about one worker run one after another, in the order in which
// things happened, on a goroutine of this package; those about different workers may
// run at once. A callback may call anything.
//
// No panic of a callback is recovered. In a worker it is a crash like any other, and
// the worker is replaced. In the master it ends the master, and the workers finish
// what is in flight and exit: recover what may panic there. A callback that ends its
// goroutine (runtime.Goexit, which FailNow of package testing calls) ends only its own
// call: the callbacks after it are called, and whoever waits for its result, as the
// sender of a request does, gets an error. A nil function is refused with a panic at once.
func OnFork(fn func(w *Process)) (stop func()) { return std.hooks.fork.add(fn) }

// OnOnline registers fn for workers whose runtime is up and whose channel works.
func OnOnline(fn func(w *Process)) (stop func()) { return std.hooks.online.add(fn) }

// OnListening registers fn for every address that a worker listens on. addr is the real
// address, whose port is never 0. A unix path is the path that was asked for.
func OnListening(fn func(w *Process, addr net.Addr)) (stop func()) {
	return std.hooks.listening.add(fn)
}

// OnReady registers fn for workers that may take traffic: see [Process.Ready]. A worker
// that neither listens nor calls Ready is never ready. Each is reported once, after the
// address that made it ready.
func OnReady(fn func(w *Process)) (stop func()) { return std.hooks.ready.add(fn) }

// OnMessage registers fn for messages: in the master for those of every worker, in a
// worker for those of the master (w is [Worker] then). A message that comes before there
// is a callback or [Handle] for it waits.
func OnMessage(fn func(w *Process, m Message)) (stop func()) {
	return std.taking(std.hooks.message.add(fn))
}

// OnDisconnect registers fn for workers whose channel has closed. In a worker
// it is called when its own channel has closed, before the process ends.
func OnDisconnect(fn func(w *Process)) (stop func()) { return std.hooks.disconnect.add(fn) }

// OnDeath registers fn for workers that have exited: the last report about
// each, once for every fork.
func OnDeath(fn func(w *Process, e Exit)) (stop func()) { return std.hooks.death.add(fn) }

// OnError registers fn for errors about a worker that no call could return: protocol
// faults, refused requests, messages that could not be decoded or delivered. w is nil
// for an error that is about no worker. Without any OnError callback they are logged.
func OnError(fn func(w *Process, err error)) (stop func()) { return std.hooks.err.add(fn) }

// taking offers the messages and requests that wait to a handler that was just added. It
// returns stop, for its callers to pass on.
func (c *cluster) taking(stop func()) func() {
	for _, p := range c.live.all() {
		p.events.post(event{fn: func() {}})
		p.link.RetryRequests()
	}
	return stop
}

// event is one thing to report about a process: a batch of messages, a note, or a
// function to call. Messages and notes can go over to the next program in an upgrade, a
// function cannot.
type event struct {
	fn     func()
	note   note
	msgs   [][]byte
	parcel *parcel.Parcel // what came with the message; msgs has one message then
	next   int            // the index in msgs of the first message that is not delivered
	size   int            // bytes that count against the input bound until the event is delivered
	free   func()         // if not nil, msgs lie in memory that is used again when free was called
}

// events delivers what happens to one process, in order. The goroutine that
// does so exists while there is something to deliver. A callback may end that goroutine
// by runtime.Goexit, and then another one goes on. So how far the delivery has come is
// kept here and not on the goroutine's stack.
type events struct {
	p *Process

	mu    sync.Mutex
	queue []event
	spare []event
	busy  chan struct{} // closed when all is delivered; nil if nothing runs
	held  atomic.Bool   // nothing new is delivered; set under mu
	quick atomic.Int32  // events in a row whose callbacks returned soon; 0 while one is being delivered

	// For the delivering goroutine alone:
	batch    []event  // taken from queue
	at       int      // the index in batch of the event that is being delivered
	calls    []func() // callbacks of that event that are still to come
	current  delivery
	waiting  waitingMessages
	lastLog  time.Time
	unlogged int
}

// delivery is a message on its way to the callbacks that take it.
type delivery struct {
	message Message
	to      takers
	told    int  // how many of them have been called, or need not be
	taken   bool // by any
	lent    bool // the message lies in memory that is used again
}

// waitingMessages are those that no callback and no handler takes yet.
type waitingMessages struct {
	list    []Message
	offered takers // the takers that they were last offered to
	// While they are offered again: list[:kept] wait on, list[next:] are to come.
	kept, next int
	freed      int // bytes of those that were taken
}

// takers are the callbacks and handlers for the messages of one process, at one moment.
// Two values are equal if nothing was added or removed in between: a list that changes
// is a new list.
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
	e.begin()
	e.mu.Unlock()
}

// begin starts the goroutine, unless it runs or events are held. e.mu is held.
func (e *events) begin() {
	if e.busy == nil && !e.held.Load() {
		e.busy = make(chan struct{})
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

// deliver is the delivering goroutine.
func (e *events) deliver() { callback.Loop(e.step) }

// step delivers one event, or what is left of one whose callback ended the goroutine.
// It returns false when there is nothing to deliver, and then the goroutine ends.
func (e *events) step() (more bool) {
	if e.held.Load() && len(e.calls) == 0 && e.current.message.raw == nil && e.rest() {
		return false
	}
	if e.at == len(e.batch) && !e.fetch() {
		return false
	}
	if !e.timed(&e.batch[e.at]) {
		return true
	}
	e.batch[e.at] = event{}
	e.at++
	return true
}

// fetch takes the next batch. If there is none it returns false, and marks the goroutine
// as ended.
func (e *events) fetch() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := cap(e.batch); c > 0 && c <= 1024 {
		e.spare = e.batch[:0]
	}
	e.batch, e.at = nil, 0
	if len(e.queue) == 0 {
		close(e.busy)
		e.busy = nil
		return false
	}
	e.batch, e.queue, e.spare = e.queue, e.spare, nil
	return true
}

// one delivers ev. It returns false if events are held before ev is delivered whole: the
// rest of it is delivered later.
func (e *events) one(ev *event) (all bool) {
	e.tellRest()
	e.callRest()
	e.retryWaiting()
	if n := ev.note; n.kind != "" {
		ev.note = note{}
		e.tellNote(n)
		e.callRest()
	}
	if fn := ev.fn; fn != nil {
		ev.fn = nil // before it may end the goroutine
		fn()
		e.callRest()
	}
	for ev.next < len(ev.msgs) {
		if e.held.Load() {
			ev.keep()
			return false
		}
		m := Message{ev.msgs[ev.next], ev.parcel}
		t := e.retryWaiting()
		ev.next++
		if !e.tell(t, m, ev.free != nil) {
			// The message may share memory with all that came in the same read. A copy
			// keeps only itself: see readBatch.keep of package link.
			m.raw = bytes.Clone(m.raw)
			e.waiting.list = append(e.waiting.list, m)
			ev.size -= m.cost()
		}
	}
	if ev.size > 0 {
		e.p.link.Release(ev.size)
	}
	if len(ev.msgs) > 0 {
		e.p.link.SetWaiting(len(e.waiting.list))
	}
	ev.done()
	return true
}

// call adds fn to the functions that are called as a part of the event that is being
// delivered.
func (e *events) call(fn func()) { e.calls = append(e.calls, fn) }

// callRest calls, in order, the functions that call has added.
func (e *events) callRest() {
	for len(e.calls) > 0 {
		fn := e.calls[0]
		e.calls = e.calls[1:]
		fn()
	}
	e.calls = nil
}

// eachOf has the functions registered in c called as a part of the event that is being
// delivered. It looks them up when it is their turn, so that one which an earlier
// callback has unregistered is not called.
func eachOf[F any](e *events, c *callbacks[F], with func(fn F)) {
	e.call(func() {
		var calls []func()
		for _, r := range c.all() {
			calls = append(calls, func() { with(r.fn) })
		}
		e.calls = append(calls, e.calls...)
	})
}

// tell gives m to all of t that take it. It returns false if none does.
func (e *events) tell(t takers, m Message, lent bool) (taken bool) {
	e.current = delivery{message: m, to: t, lent: lent}
	return e.tellRest()
}

// tellRest gives the current message to the takers that have not had it. If any takes
// it, its handle is closed after the last of them, unless one has taken the handle.
func (e *events) tellRest() (taken bool) {
	d := &e.current
	own, all, handlers := deref(d.to.own), deref(d.to.all), deref(d.to.handlers)
	var cmd wire.Text
	if len(handlers) > 0 {
		cmd = wire.Cmd(d.message.raw)
	}
	for d.told < len(own)+len(all)+len(handlers) {
		n := d.told
		d.told++ // before it may end the goroutine
		switch {
		case n < len(own):
			own[n].fn(e.p, d.take())
		case n < len(own)+len(all):
			all[n-len(own)].fn(e.p, d.take())
		default:
			if h := &handlers[n-len(own)-len(all)].fn; cmd.Is(h.cmd) {
				d.taken = true
				h.fn(e.p, d.message)
			}
		}
	}
	if taken = d.taken; taken {
		d.message.parcel.Drop()
	}
	*d = delivery{}
	return taken
}

// retryWaiting offers the messages that wait to takers that have come since. It is called
// before anything newer is delivered, which keeps the order. For the same reason the next
// message goes to the takers that it returns, and not to one that was added in between:
// that one has to get the waiting messages first.
func (e *events) retryWaiting() takers {
	w := &e.waiting
	e.settleWaiting() // if a callback ended the goroutine in the loop below
	t := e.takers()
	if t == w.offered || len(w.list) == 0 {
		w.offered = t
		return t
	}
	for again := true; again; {
		again = false
		for w.next < len(w.list) {
			if now := e.takers(); now != t { // a callback has added one: it too gets the oldest first
				t, again = now, true
				break
			}
			m := w.list[w.next]
			w.next++
			w.freed += m.cost()
			if !e.tell(t, m, false) {
				w.list[w.kept] = m
				w.kept++
				w.freed -= m.cost()
			}
		}
		e.settleWaiting()
	}
	w.offered = t
	return t
}

// settleWaiting removes the messages that were taken from those that wait.
func (e *events) settleWaiting() {
	w := &e.waiting
	if w.next == 0 {
		return
	}
	left := append(w.list[:w.kept], w.list[w.next:]...)
	clear(w.list[len(left):])
	w.list = left
	freed := w.freed
	w.kept, w.next, w.freed = 0, 0, 0
	e.p.link.Release(freed)
	e.p.link.SetWaiting(len(left))
}

// dropWaiting ends the wait of messages that nothing will take any more.
func (e *events) dropWaiting() {
	if n := len(e.waiting.list); n > 0 {
		first := e.waiting.list[0]
		for _, m := range e.waiting.list {
			m.parcel.Drop()
		}
		e.waiting.list = nil
		e.error(fmt.Errorf("cluster: worker %d is gone: %d of its messages found no handler, the first is %s",
			e.p.id, n, wire.Excerpt(first.raw)))
	}
}

// error tells the OnError callbacks, or the log if there are none. It is a part of
// the event that is being delivered.
func (e *events) error(err error) {
	p := e.p
	tell := func(fn func(*Process, error)) { fn(p, err) }
	eachOf(e, &p.cluster.hooks.trouble, func(fn func(int, error)) { fn(p.id, err) })
	eachOf(e, &p.onError, tell)
	eachOf(e, &p.cluster.hooks.err, tell)
	if len(p.onError.all())+len(p.cluster.hooks.err.all()) == 0 {
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
	p.events.post(event{note: note{kind: noteError, err: err}, size: size})
}

// accuse reports an error that the peer can cause at will, so it counts against the
// peer's input bound. Unlike link.Fault, which only the reader may call, it may be called
// on any goroutine.
func (p *Process) accuse(err error) {
	cost := link.FaultCost + len(err.Error()) // the text may quote the peer, and is kept whole
	p.charge(cost)
	p.reportSized(wire.PlainError(err), cost)
}

// charge counts a report against the peer's input bound, until it is delivered.
func (p *Process) charge(cost int) { p.link.Charge(cost) }

// emit queues a report. It is called in the master's mailbox or by the channel's reader,
// and either keeps the order.
func (p *Process) emit(kind noteKind) { p.events.post(event{note: note{kind: kind}}) }

// emitListening queues the report of an address. It counts against the input bound, since
// a worker can report addresses at will.
func (p *Process) emitListening(addr net.Addr) {
	cost := link.FaultCost + len(addr.String())
	p.charge(cost)
	p.events.post(event{size: cost, note: note{kind: noteListening, addr: addr}})
}

func (p *Process) emitDeath(e Exit) {
	p.events.post(event{note: note{kind: noteDeath, exit: &e}})
}

// errNoHandler is the answer to a request for which no handler was registered.
var errNoHandler = errors.New("no handler was registered for it")
