package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/drain"
	"github.com/go-cluster/cluster/internal/link"
	"github.com/go-cluster/cluster/internal/parcel"
	"github.com/go-cluster/cluster/internal/signals"
	"github.com/go-cluster/cluster/internal/supervise"
)

// Process is one worker, seen from either side: from the master, which forked
// it, or from inside, as [Worker]. [Parent] is one too. All methods may be called
// from anywhere and at any time, callbacks included. On a nil *Process, which is
// what [Worker] is outside a worker, those that return an error return
// ErrNotWorker.
type Process struct {
	cluster  *cluster
	id, slot int
	link     *link.Link
	events   events

	state     atomic.Int32
	voluntary atomic.Bool
	connected atomic.Bool
	pid       int
	apart     bool // it is Parent: only its own callbacks get its messages; constant

	onOnline, onReady, onDisconnect callbacks[func(*Process)]
	onListening                     callbacks[func(*Process, net.Addr)]
	onMessage                       callbacks[func(*Process, Message)]
	onExit                          callbacks[func(*Process, Exit)]
	onError                         callbacks[func(*Process, error)]

	owner  owner
	child  *child  // the owner in the master
	inside *inside // the owner in the worker
}

// owner does what differs between the two sides of a Process: the master has a child,
// the worker an inside, and Parent a parent.
type owner interface {
	osProcess() *os.Process
	disconnect(ctx context.Context) error
	kill(sig ...os.Signal) error
	ready() error
	logger() *slog.Logger
}

// State is how far a worker is in its life. It never goes back.
type State int32

const (
	Starting     State = iota // forked
	Online                    // its runtime is up and its channel works
	Ready                     // it may take traffic
	Draining                  // it was told to stop, and finishes what is in flight
	Disconnected              // its channel has closed
	Dead                      // it has exited
)

// String returns the state's name in lower case.
func (s State) String() string { return supervise.State(s).String() }

// Exit is how a worker ended.
type Exit struct {
	Code      int              // the exit status; -1 if a signal ended it
	Signal    os.Signal        // the signal that ended it, or nil
	Reason    Reason           // why
	Voluntary bool             // it was asked for: see Process.ExitedAfterDisconnect
	Uptime    time.Duration    // since the fork
	State     *os.ProcessState // as the system told it; nil of a process that SIGKILL did not end

	note   string // what helps to understand it; see String
	undead bool   // the process has survived SIGKILL
}

// Reason is why a worker ended, in [Exit].
type Reason string

const (
	ReasonCrash   Reason = "crash"   // by itself, with an error or before it was ready
	ReasonStall   Reason = "stall"   // the watchdog killed it
	ReasonReload  Reason = "reload"  // replaced by Reload, or a replacement that did not get ready
	ReasonRecycle Reason = "recycle" // replaced because of a limit of Recycle
	ReasonScale   Reason = "scale"   // its slot was removed
	ReasonStop    Reason = "stop"    // by Disconnect of the cluster or the end of Run
	ReasonKill    Reason = "kill"    // by Kill
	ReasonRestart Reason = "restart" // replaced by an order of package admin's, or a replacement that did not get ready
	ReasonDrain   Reason = "drain"   // by Disconnect of the worker, a SIGTERM to it, or of its own accord with status 0
)

// String returns "exit status 1 after 3s" or "signal: killed after 2m0s", and what
// helps to understand it, as "exit status 0 after 3ms: main returned before it
// listened".
func (e Exit) String() string {
	end := supervise.Exit{Code: e.Code, Uptime: e.Uptime, Note: e.note, Undead: e.undead}
	if e.Signal != nil {
		end.Signal = e.Signal.String()
	}
	return end.String()
}

// ID returns the worker's number: 1, 2, …, never reused; 0 for nil.
func (w *Process) ID() int {
	if w == nil {
		return 0
	}
	return w.id
}

// Slot returns the place 0..N-1 that the worker fills under AutoFork; its
// successor has the same. It is -1 for a plain Fork.
func (w *Process) Slot() int {
	if w == nil {
		return -1
	}
	return w.slot
}

// PID returns the process id; 0 for nil.
func (w *Process) PID() int {
	if w == nil {
		return 0
	}
	return w.pid
}

// OSProcess returns the worker as package os sees it, for signals that are no order to
// stop. It returns nil in a worker. Do not call Wait or Release on it: this package
// waits for the process.
func (w *Process) OSProcess() *os.Process {
	if w == nil {
		return nil
	}
	return w.owner.osProcess()
}

// State returns how far the worker is; Dead for nil.
func (w *Process) State() State {
	if w == nil {
		return Dead
	}
	return State(w.state.Load())
}

// IsConnected reports whether the channel is open.
func (w *Process) IsConnected() bool { return w != nil && w.connected.Load() }

// IsDead reports whether the worker has exited.
func (w *Process) IsDead() bool { return w.State() == Dead }

// ExitedAfterDisconnect reports whether the worker's end was asked for: by
// Kill or Disconnect on either side. It can be true before the end has come.
func (w *Process) ExitedAfterDisconnect() bool { return w != nil && w.voluntary.Load() }

// Send queues v, encoded as JSON, for the other side and returns: it never
// waits for a peer that is slow or stopped. Messages arrive in the order in
// which they were sent.
//
// received, if given, is called once the other side has received v, or with
// the error that prevents that; its handlers may not have run yet. A node peer
// gives no receipts: for it, received is called when v has been written to the
// channel, as node's own callback is.
//
// The error wraps ErrBacklog if Options.MaxQueue bytes wait already, ErrClosed
// after the channel closed, ErrMessageTooLong if v has more than the other side's
// Options.MaxMessage bytes, ErrNotWorker on nil, or says why v has no JSON form. The
// bound of a worker is not known before it is online: for a message that was sent
// earlier and is too long, received is called with ErrMessageTooLong. A node peer takes
// any length.
func (w *Process) Send(v any, received ...func(error)) error {
	if w == nil {
		return callError("Send", ErrNotWorker)
	}
	return w.sendError("Send", w.link.Send(v, w.telling(received)))
}

// telling returns a function that has each of received called as an event of w. It is
// nil if there are none.
func (w *Process) telling(received []func(error)) func(error) {
	if len(received) == 0 {
		return nil
	}
	return func(err error) {
		w.events.post(event{fn: func() {
			for _, fn := range received {
				w.events.call(func() { fn(err) })
			}
		}})
	}
}

// SendHandle is Send for a message that carries a handle: a net.Conn,
// net.Listener, net.PacketConn or *os.File. The other side takes the handle from the
// [Message]. A copy is sent: h stays open and is the caller's to close, as soon as
// SendHandle has returned.
//
// The message keeps its place among those of Send, and received is called as by Send.
// A node peer gets a connection, listener or UDP socket as its net.Socket, net.Server or
// dgram.Socket. Messages to it after a handle wait until it has acknowledged the
// handle.
//
// Bytes that were read from a connection do not go with it: send them in v. A *tls.Conn and
// other types without a descriptor cannot be sent, and the error says what to send in place
// of them. In a master that has forked, the listener of a Shared address can be sent, and
// no other one.
//
// The errors are those of Send, and two more. ErrBacklog is returned also while 256
// handles are on their way to the other side. ErrNotSupported is returned for a listener
// of RoundRobin or LeastConnections, for a listener or packet socket of an address that has
// many sockets (Sharded, ByClient, and those of a service manager for two families), for all
// but TCP connections and listeners on Windows, and for a file or a unixgram socket to a node
// peer. If it is not known yet whether the peer is node, received or OnError gets that error
// later.
func (w *Process) SendHandle(v, h any, received ...func(error)) error {
	if w == nil {
		return callError("SendHandle", ErrNotWorker)
	}
	out, err := parcel.Pack(h)
	if err != nil {
		return callError("SendHandle", err)
	}
	return w.sendError("SendHandle", w.link.SendWith(v, out.Handle, out.Node, w.telling(received)))
}

// SendContext sends v and returns nil once the other side has received it; to a node
// peer, once it is written. It returns the errors of Send, and ctx.Err() if ctx ends
// first; v may arrive all the same.
func (w *Process) SendContext(ctx context.Context, v any) error {
	if w == nil {
		return callError("SendContext", ErrNotWorker)
	}
	return w.sendError("SendContext", w.link.SendContext(ctx, v))
}

// Request sends v to the other side's OnRequest or Respond handler and stores
// its answer in reply, as json.Unmarshal does. With a nil reply the answer is thrown
// away. A request to a worker that is not online yet waits for that.
//
// An error of the handler is returned as text, of up to 4 KiB, in which what is not
// printable is escaped. Request returns ctx.Err() if ctx ends first, and an error that
// wraps ErrClosed if the other side is gone, ErrNotSupported for a node peer, or
// ErrMessageTooLong if the request, with some 60 bytes around it, is longer than the
// other side's Options.MaxMessage, or the reply longer than this side's.
func (w *Process) Request(ctx context.Context, v, reply any) error {
	if w == nil {
		return callError("Request", ErrNotWorker)
	}
	return w.sendError("Request", w.link.Request(ctx, v, reply))
}

func (w *Process) sendError(call string, err error) error {
	switch _, remote := errors.AsType[*link.RemoteError](err); {
	case err != nil && w.isForeign():
		return fmt.Errorf("cluster: %s: %s is a Foreign program and has no channel: %w", call, w.name(), ErrNotSupported)
	case err == nil, remote, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, ErrBacklog):
		return fmt.Errorf("cluster: %s to %s: %w (%d bytes; it may be stopped, or MaxQueue too small)", call, w.name(), err, w.link.Queued())
	case errors.Is(err, ErrClosed), errors.Is(err, ErrNotSupported), errors.Is(err, ErrMessageTooLong), errors.Is(err, link.ErrTooDeep):
		return fmt.Errorf("cluster: %s: %s: %w", call, w.name(), err)
	}
	return err
}

// Disconnect makes the worker stop accepting, finish what is in flight and
// exit; that is voluntary, so nothing replaces it. It returns nil when the
// worker has exited; in the worker itself, when it is drained, just before the
// process ends. When ctx ends first it returns ctx.Err(), and the drain goes
// on. If the worker outlives Options.ShutdownTimeout the master kills it, and the error
// wraps context.DeadlineExceeded.
//
// In the worker, a handler of a request and an OnShutdown hook must call it on another
// goroutine (go Worker.Disconnect(ctx)): the drain waits for them to return.
func (w *Process) Disconnect(ctx context.Context) error {
	if w == nil {
		return callError("Disconnect", ErrNotWorker)
	}
	return w.owner.disconnect(ctx)
}

// Kill ends the worker at once with SIGKILL, or sends the signal given; either
// is voluntary, so nothing replaces the worker (use OSProcess to send a signal
// that it is meant to survive). In the worker itself it tells the master and
// exits with 0, or sends itself the signal. It returns ErrClosed if the worker
// is dead, and on Windows ErrNotSupported for any signal but os.Kill.
func (w *Process) Kill(sig ...os.Signal) error {
	if w == nil {
		return callError("Kill", ErrNotWorker)
	}
	return w.owner.kill(sig...)
}

// Ready tells the master that this worker may take traffic. Without
// Options.ManualReady that happens by itself with the first Accept or ReadFrom. A
// program that accepts from a listener's descriptor by itself calls Ready. To a node
// primary nothing is sent, since it has no such message.
//
// In the master, Ready is for Foreign workers: call it when you have found out that one
// is ready. For any other worker it returns ErrNotWorker there. It returns ErrClosed for
// a worker that is dead or whose channel is closed.
func (w *Process) Ready() error {
	if w == nil {
		return callError("Ready", ErrNotWorker)
	}
	return w.owner.ready()
}

// OnOnline is [OnOnline] for this worker.
func (w *Process) OnOnline(fn func(w *Process)) (stop func()) {
	if w == nil {
		return func() {}
	}
	return w.onOnline.add(fn)
}

// OnReady is [OnReady] for this worker.
func (w *Process) OnReady(fn func(w *Process)) (stop func()) {
	if w == nil {
		return func() {}
	}
	return w.onReady.add(fn)
}

// OnListening is [OnListening] for this worker.
func (w *Process) OnListening(fn func(w *Process, addr net.Addr)) (stop func()) {
	if w == nil {
		return func() {}
	}
	return w.onListening.add(fn)
}

// OnMessage is [OnMessage] for this worker.
func (w *Process) OnMessage(fn func(w *Process, m Message)) (stop func()) {
	if w == nil {
		return func() {}
	}
	return w.cluster.taking(w.onMessage.add(fn))
}

// OnDisconnect is [OnDisconnect] for this worker.
func (w *Process) OnDisconnect(fn func(w *Process)) (stop func()) {
	if w == nil {
		return func() {}
	}
	return w.onDisconnect.add(fn)
}

// OnExit is [OnDeath] for this worker.
func (w *Process) OnExit(fn func(w *Process, e Exit)) (stop func()) {
	if w == nil {
		return func() {}
	}
	return w.onExit.add(fn)
}

// OnError is [OnError] for this worker.
func (w *Process) OnError(fn func(w *Process, err error)) (stop func()) {
	if w == nil {
		return func() {}
	}
	return w.onError.add(fn)
}

// show makes s, which the supervisor has given the worker, its visible state.
func (w *Process) show(s State) {
	if s == Disconnected {
		w.connected.Store(false)
	}
	w.advance(s)
}

// advance moves the state forward. A late event (a listener that is opened during the
// drain) does not move it back: then advance returns false.
func (w *Process) advance(to State) bool {
	for {
		from := w.state.Load()
		if State(from) >= to {
			return false
		}
		if w.state.CompareAndSwap(from, int32(to)) {
			return true
		}
	}
}

// logger returns a logger that never makes its caller wait: a queue hands the records to
// the owner's logger.
func (w *Process) logger() *slog.Logger { return w.cluster.logs.Logger(w.owner.logger()) }

// name is what errors call the process.
func (w *Process) name() string {
	if w.apart {
		return "the parent"
	}
	return linkName(w.id)
}

func newProcess(c *cluster, id, slot int) *Process {
	p := &Process{cluster: c, id: id, slot: slot}
	p.events.p = p
	return p
}

// terms are the SIGTERMs to this worker, each of which begins its drain.
type terms struct {
	come  chan os.Signal
	known chan chan struct{} // each is closed once the signals that have come are acted on
}

// watchTerm makes SIGTERM a drain.
func (in *inside) watchTerm() {
	t := terms{make(chan os.Signal, 1), make(chan chan struct{})}
	in.terms = t
	begin := func() { in.drain.Begin(drain.ByOther, in.hello.ShutdownTimeout) }
	signal.Notify(t.come, signals.Term)
	go func() {
		for {
			select {
			case <-t.come:
				begin()
			case known := <-t.known:
				select {
				case <-t.come:
					begin()
				default:
				}
				close(known)
			}
		}
	}()
}

// ends reports whether this worker drains, or is about to. The second matters since a
// program that handles SIGTERM itself may receive one before this package does.
func (in *inside) ends() bool {
	if in.drain.Draining() || in.terms.come == nil {
		return in.drain.Draining()
	}
	signal.Stop(make(chan os.Signal)) // returns after a signal that has come is in all channels
	known := make(chan struct{})
	in.terms.known <- known
	<-known
	return in.drain.Draining()
}

// promptRun is how many events in a row have to be delivered within promptTime each for the
// reader to deliver the next itself: see docs/timing.md.
const (
	promptRun  = 8
	promptTime = 400 * time.Microsecond
)

// timed is one, and notes whether the callbacks returned soon.
func (e *events) timed(ev *event) (all bool) {
	if len(ev.msgs) == 0 {
		return e.one(ev)
	}
	quick := e.quick.Swap(0) // until they have returned
	began := time.Now()
	if all = e.one(ev); time.Since(began) <= promptTime {
		e.quick.Store(min(quick+1, promptRun))
	}
	return all
}

// Prompt reports whether the reader may deliver messages.
func (i *inbox) Prompt() bool { return i.events.quick.Load() == promptRun }

// Reserve makes the caller the delivering goroutine, unless there is one.
func (i *inbox) Reserve() bool {
	e := &i.events
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.busy != nil || e.held.Load() || e.at < len(e.batch) || len(e.queue) > 0 {
		return false
	}
	e.busy = make(chan struct{})
	return true
}

// Deliver delivers a batch, and what is posted meanwhile.
func (i *inbox) Deliver(batch [][]byte, size int, done func()) {
	i.events.batch, i.events.at = []event{{msgs: batch, size: size, free: done}}, 0
	i.events.deliver()
}
