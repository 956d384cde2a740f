package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/wire"
)

// Link is one end of a channel that speaks the protocol. All methods may be called
// by any goroutine, except where it says that the reader calls them.
type Link struct {
	core
	in       reader
	receipts receipts
	calls    calls
	requests requests
	exchange exchange
	handover handovers
	workers  workers
	streams  atomic.Int32 // on their way to the peer
}

// core is what the parts of a link have in common: the channel and its two
// directions, and what is above.
type core struct {
	ch    *channel.Channel
	out   outbox
	flow  flow
	turn  readTurn
	to    Receiver // whose messages these are
	side  Side
	name  string        // of the worker, for errors
	most  atomic.Int64  // bytes of the longest line that the peer takes; 0: unknown
	kind  atomic.Int32  // a PeerKind; the worker's online decides it
	final atomic.Bool   // the peer has exited: read what is there, do not wait
	done  chan struct{} // closed at the end of the link
}

// Receiver is what is above a link: it delivers what arrives. All methods but
// those of a Responder are called by the reader, and must not wait.
type Receiver interface {
	// Messages takes over messages of the application, in their order. They count
	// size bytes against the bound of the input until Link.Release.
	Messages(batch [][]byte, size int)
	// Handle takes over a message that came with h, which it takes over as well. It
	// comes after those of the last Messages, and counts likewise.
	Handle(msg []byte, h *handle.Handle, size int)
	// Report tells of an error, which counts size bytes likewise.
	Report(err error, size int)
	// Responder returns what answers the request, or nil if nothing does yet:
	// Link.RetryRequests asks again.
	Responder(msg []byte) Responder
}

// Responder answers a request. It is called on a goroutine of the link's, and may
// take its time. The error goes to the peer as its text.
type Responder interface {
	Respond(to Receiver, msg []byte) (reply any, err error)
}

// Side is what master and worker do differently with what arrives. All methods
// are called by the reader.
type Side interface {
	// Internal handles one NODE_CLUSTER or NODE_GO_CLUSTER message. It takes
	// over h, the descriptor that came along, if any.
	Internal(m *wire.Message, h *handle.Handle)
	// Coord handles one message of package coord, whose id is 0 if it has no answer.
	// It must not keep msg.
	Coord(act string, id uint64, msg []byte)
	// Closed is called once, after the last message.
	Closed()
	// Overrun is called when the peer makes this side owe it more answers than
	// it reads, or hold more descriptors than can be closed.
	Overrun()
}

// PeerKind is what the other side understands.
type PeerKind int

const (
	PeerUnknown PeerKind = iota
	PeerNode             // node's protocol only
	PeerGo               // ours as well
)

// Options are the bounds of a link, and its name.
type Options struct {
	Name       string // of the worker at either end, for errors: "worker 3"
	MaxMessage int    // bytes that a message from the peer may have
	PeerMax    int    // bytes that a message to the peer may have; 0: unknown, or no bound
	MaxQueue   int    // bytes that may wait for the peer, and bytes read that may wait here
}

// New makes a link over ch, which it takes over. It reads from Start on.
func New(ch *channel.Channel, to Receiver, s Side, peer PeerKind, o Options) *Link {
	l := &Link{core: core{ch: ch, to: to, side: s, name: o.Name, done: make(chan struct{})}}
	l.kind.Store(int32(peer))
	l.most.Store(int64(o.PeerMax))
	l.turn.init(func() { l.workers.spawn(job{read: true}) })
	l.flow.init(o.MaxQueue)
	l.out = outbox{ch: ch, max: o.MaxQueue, onFail: l.PeerExited}
	l.receipts = receipts{core: &l.core, peer: peer}
	l.calls = calls{core: &l.core, peer: peer, byID: make(map[uint64]*call)}
	l.requests = requests{core: &l.core, workers: &l.workers}
	l.exchange = exchange{core: &l.core, answers: make(map[int64]answer)}
	l.handover = handovers{core: &l.core, receipts: &l.receipts, exchange: &l.exchange}
	l.workers = workers{core: &l.core, read: l.in.read, answer: l.requests.answer, next: make(chan job)}
	l.in = reader{
		core: &l.core, lines: wire.Framer{Max: o.MaxMessage}, end: func() { end(l) },
		receipts: &l.receipts, calls: &l.calls, requests: &l.requests, exchange: &l.exchange, workers: &l.workers,
	}
	return l
}

// Send queues v as a message. received, if not nil, is called once the peer
// has it, on any goroutine; it must not wait.
func (l *Link) Send(v any, received func(error)) error {
	return wire.EncodeUser(v, func(line []byte) error {
		if err := l.check(len(line), line, 0); err != nil {
			return err
		}
		return l.out.unpaused(func() error {
			switch {
			case l.handover.blocked.Load():
				return l.handover.behind(userLine, line, received)
			case received != nil:
				_, err := l.receipts.send(userLine, nil, line, received)
				return err
			}
			_, err := l.out.put(userLine, nil, line)
			return err
		})
	})
}

// SendWith is Send of a message that h goes with, which it takes over. as is what
// h is for node.
func (l *Link) SendWith(v any, h *handle.Handle, as wire.HandleType, received func(error)) error {
	encoded := false
	err := wire.EncodeUser(v, func(line []byte) error {
		encoded = true
		return l.handover.send(passage{kind: userLine, line: line, h: h, as: as, told: received})
	})
	if !encoded {
		h.Release()
	}
	return err
}

// SendContext sends v and waits until the peer has it, or for ctx.
func (l *Link) SendContext(ctx context.Context, v any) error {
	c := newCall()
	c.alone = !l.calls.any() && !l.receipts.any()
	var receipt uint64
	err := wire.EncodeUser(v, func(line []byte) (err error) {
		if err := l.check(len(line), line, 0); err != nil {
			return err
		}
		return l.out.unpaused(func() error {
			if l.handover.blocked.Load() {
				return l.handover.behind(promptLine, line, c.end)
			}
			receipt, err = l.receipts.send(promptLine, nil, line, c.end)
			return err
		})
	})
	if err != nil {
		return err
	}
	l.flow.expect(1)
	defer l.flow.expect(-1)
	wait := c.wait
	if l.SpeaksExtra() { // others give no receipt that could be read
		wait = func(ctx context.Context) bool { return l.in.waitFor(ctx, c) }
	}
	if !wait(ctx) {
		l.receipts.forget(receipt)
		return ctx.Err()
	}
	return c.err
}

// Request sends v and waits for the answer, which the reader hands over without
// a detour through the events: their goroutine may be who is calling.
func (l *Link) Request(ctx context.Context, v, reply any) error {
	c := newCall()
	err := wire.EncodeUser(v, func(line []byte) error {
		return l.out.unpaused(func() error { return l.calls.start(c, wire.ActRequest, line) })
	})
	if err != nil {
		return err
	}
	l.flow.expect(1)
	defer l.flow.expect(-1)
	if !l.in.waitFor(ctx, c) {
		l.calls.forget(c)
		return ctx.Err()
	}
	if c.err != nil {
		return c.err
	}
	if reply == nil {
		return nil
	}
	if err := json.Unmarshal(c.msg, reply); err != nil {
		return fmt.Errorf("cluster: reply %s: %w", wire.Excerpt(c.msg), err)
	}
	return nil
}

// SetPeerMax is told how many bytes a message to the peer may have. It comes before
// SetPeer, and counts from then on for what is sent.
func (l *Link) SetPeerMax(n int) { l.most.Store(int64(n)) }

// SetPeer is told by the worker's online what the peer understands. What a second
// one says does not count.
func (l *Link) SetPeer(k PeerKind) {
	if l.kind.CompareAndSwap(int32(PeerUnknown), int32(k)) {
		l.receipts.setPeer(k)
		l.handover.setPeer()
		l.calls.setPeer(k)
	}
}

// check returns why the peer would drop a line of size bytes, its newline included,
// in which value lies so many levels deep.
func (c *core) check(size int, value []byte, levels int) error {
	if most := int(c.most.Load()); most > 0 && size-1 > most {
		return fmt.Errorf("%w: it has %d bytes, and the other side takes %d", errs.MessageTooLong, size-1, most)
	}
	if c.peer() != PeerNode && wire.TooDeep(value, levels) {
		return ErrTooDeep
	}
	return nil
}

// ErrTooDeep is returned for a message that the other side could not read.
var ErrTooDeep = errors.New("the message is nested too deep to be read")

// peer is what the other side understands, as far as that is known.
func (c *core) peer() PeerKind { return PeerKind(c.kind.Load()) }

// SpeaksExtra reports whether the peer is known to understand NODE_GO_CLUSTER.
func (l *Link) SpeaksExtra() bool { return l.peer() == PeerGo }

// Order sends an internal message of this side's own accord.
func (l *Link) Order(m *wire.Message) error {
	m.Cmd, m.Seq = wire.CmdCluster, wire.NextSeq()
	_, err := l.out.put(orderLine, nil, m.Line())
	return err
}

// OrderExtra sends an act of NODE_GO_CLUSTER, to a peer that understands it, and
// with it what more there is to say, as JSON.
func (l *Link) OrderExtra(act string, msg ...byte) error {
	m := &wire.Message{Cmd: wire.CmdExtra, Act: act, Msg: msg}
	_, err := l.out.put(orderLine, nil, m.Line())
	return err
}

// Ask sends an internal message and calls answer with what comes back for it,
// or with nil when the link closes first. answer runs on the reader and takes
// over the handle.
func (l *Link) Ask(m *wire.Message, answer func(m *wire.Message, h *handle.Handle)) {
	m.Cmd, m.Seq = wire.CmdCluster, wire.NextSeq()
	l.exchange.expect(*m.Seq, answer)
	l.out.put(orderLine, nil, m.Line())
}

// Answer sends what the peer asked for.
func (l *Link) Answer(line []byte) { l.answerAs(answerLine, line) }

// answerAs sends lines that the peer made this side say. A peer that asks and does
// not read has gone too far.
func (c *core) answerAs(kind lineKind, lines ...[]byte) {
	kind.app = false
	if _, err := c.out.put(kind, nil, lines...); errors.Is(err, errs.Backlog) {
		c.side.Overrun()
	}
}

// AskHandle queues m with a descriptor, whose reference it takes over. answer, if not
// nil, is told of the answer, as in Ask. A peer that gets the message without the
// descriptor, again and again, refuses it.
func (l *Link) AskHandle(typ string, m *wire.Message, h *handle.Handle, answer func(m *wire.Message, h *handle.Handle)) {
	m.Cmd, m.Seq = wire.CmdCluster, wire.NextSeq()
	inner := m.Line()
	outer := wire.Message{Cmd: wire.CmdHandle, Type: typ, Msg: inner[:len(inner)-1]}
	l.AskHandleLine(outer.Line(), *m.Seq, h, answer)
}

// AskHandleLine is AskHandle with the line as it is to be. Its message has the
// number seq.
func (l *Link) AskHandleLine(line []byte, seq int64, h *handle.Handle, answer func(m *wire.Message, h *handle.Handle)) {
	l.exchange.sendHandle(outHandle{line: line, h: h, seq: seq}, answer)
}

// Grants notes that the worker is about to be granted the address, or returns
// false: it is on its way out.
func (l *Link) Grants(key string) bool { return l.exchange.grants(key) }

// Listens notes that the worker listens on the oldest address that it was
// granted: it says so in the order of the answers, and not for which.
func (l *Link) Listens() { l.exchange.listens() }

// Closes notes that the worker has closed the address, and reports whether it did
// so while it stays: what a worker on its way out closes its successor listens on.
func (l *Link) Closes(key string) (stays bool) { return l.exchange.closes(key) }

// WorkerEnds answers a worker that says that it is to end of its own accord, with m.
// A node worker that has been told to disconnect gets no second word. One that
// closed what it had while a grant was under way to it is told to disconnect
// instead, which closes that too.
func (l *Link) WorkerEnds(m *wire.Message) {
	told, crossed, refused := l.exchange.beginExit()
	switch {
	case told:
	case crossed:
		l.lastOrder(&wire.Message{Act: wire.ActDisconnect})
	default:
		if err := l.handover.behind(answerLine, m.Line(), nil); errors.Is(err, errs.Backlog) {
			l.side.Overrun()
		}
	}
	refuse(refused)
}

// OrderDisconnect tells the worker to drain, and a Go worker how long it may and
// whether all workers are told, so that nobody takes what is queued after it. One
// that is not online yet may be gone before it can be asked what it has received:
// it is asked now, which node ignores.
func (l *Link) OrderDisconnect(timeout time.Duration, all bool) {
	m := &wire.Message{Act: wire.ActDisconnect}
	told, _, refused := l.exchange.beginExit()
	if l.SpeaksExtra() {
		m.Go = &wire.Extension{Timeout: timeout.Milliseconds(), Stop: all} // less than before, maybe
	}
	l.receipts.askEarly()
	if !told {
		l.lastOrder(m)
	}
	refuse(refused)
}

// lastOrder is Order of what ends the channel: not before all messages are said.
func (l *Link) lastOrder(m *wire.Message) {
	m.Cmd, m.Seq = wire.CmdCluster, wire.NextSeq()
	l.handover.behind(orderLine, m.Line(), nil)
}

// Flush waits until the kernel has all that was sent, or for ctx.
func (l *Link) Flush(ctx context.Context) error {
	done := make(chan error, 1)
	l.handover.behind(orderLine, nil, func(err error) {
		if err != nil {
			done <- err
			return
		}
		l.out.whenWritten(l.out.end(), func(err error) { done <- err })
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Start begins to read. pid is the process at the other end, if it is a worker.
func (l *Link) Start(pid int) {
	l.ch.SetPeer(pid)
	go l.workers.work(job{read: true})
}

// Done is closed when the link has ended: everything that came is passed on,
// and Side.Closed was called.
func (l *Link) Done() <-chan struct{} { return l.done }

// Counts returns how many messages of applications came and went.
func (l *Link) Counts() (in, out int64) { return l.in.messages.Load(), l.out.messages.Load() }

// Queued returns how many bytes the kernel has not taken yet.
func (l *Link) Queued() int { return l.out.queued() }

// Charge counts n bytes against the bound of the input, until Release.
func (l *Link) Charge(n int) { l.flow.add(n) }

// Release is told that what counted n bytes is delivered.
func (l *Link) Release(n int) { l.flow.release(n) }

// SetWaiting is told how many messages no handler takes yet.
func (l *Link) SetWaiting(n int) { l.flow.setWaiting(n) }

// Fault reports that the peer broke the protocol. The reader calls it.
func (l *Link) Fault(format string, args ...any) { l.in.fault(format, args...) }

// RetryRequests answers the waiting requests for which there is a handler now.
func (l *Link) RetryRequests() { l.requests.retry() }

// DropRequests ends the wait of the peer's requests when it is gone, and returns
// how many no handler took.
func (l *Link) DropRequests() (n int) { return l.requests.drop() }

// Answered waits until the requests of the peer that have a handler are answered.
func (l *Link) Answered() { l.requests.running.Wait() }

// PeerExited makes the reader take what is there and end: the peer has exited. A
// grandchild that inherited the channel could hold it open for ever.
func (l *Link) PeerExited() {
	l.final.Store(true)
	l.flow.open()
	l.ch.Interrupt()
	l.turn.pickUp()
}

// resume undoes an interrupt, except that of PeerExited.
func (c *core) resume() {
	if c.final.Load() {
		return
	}
	c.ch.Resume()
	if c.final.Load() { // just now
		c.ch.Interrupt()
	}
}

// Close ends the link from this side. The reader notices and does the rest.
func (l *Link) Close() {
	l.ch.Close()
	l.turn.pickUp()
}

// end is what the reader does last.
func end(l *Link) {
	l.in.dropAll()
	l.Discard()
	l.side.Closed()
	close(l.done)
}

// Discard ends everything that waits for the peer. The reader calls it, or who
// made the link and does not start it.
func (l *Link) Discard() {
	l.out.close(errs.Closed)
	l.ch.Close()
	unanswered := l.exchange.close()
	l.calls.close(errs.Closed)
	l.receipts.close(errs.Closed)
	l.handover.close()
	refuse(unanswered)
}
