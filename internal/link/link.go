package link

import (
	"context"
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
	kind  atomic.Int32  // a PeerKind; known when the worker says online
	final atomic.Bool   // the peer has exited: read what is there, do not wait
	done  chan struct{} // closed at the end of the link
}

// Receiver is what is above a link: it delivers what arrives. All methods but
// those of a Responder are called by the reader, and must not wait.
type Receiver interface {
	// Messages takes over messages of the application, in their order. They count
	// size bytes against the bound of the input until Link.Release.
	Messages(batch [][]byte, size int)
	// Prompt reports whether nothing is being delivered, and the last callbacks have
	// returned soon.
	Prompt() bool
	// Reserve is called before Deliver. If it returns false, something is being delivered.
	Reserve() bool
	// Deliver is Messages for the goroutine that has read the batch: it calls the
	// callbacks. What follows meanwhile may be delivered as well. done is called when
	// the batch is delivered, or copied: the memory of the messages is used again then.
	Deliver(batch [][]byte, size int, done func())
	// Handle takes over a message and the descriptor h that came with it. The message
	// comes after those of the last Messages, and counts in the same way.
	Handle(msg []byte, h *handle.Handle, size int)
	// Report tells of an error, which counts size bytes in the same way.
	Report(err error, size int)
	// Responder returns what answers the request, or nil if nothing does yet. Then
	// Link.RetryRequests asks again.
	Responder(msg []byte) Responder
}

// Responder answers a request. It is called on a goroutine of the link's, and may
// take its time. The error goes to the peer as its text.
type Responder interface {
	Respond(to Receiver, msg []byte) (reply any, err error)
}

// Side is what master and worker do differently with what arrives. All methods but
// Overrun are called by the reader.
type Side interface {
	// Internal handles one NODE_CLUSTER or NODE_GO_CLUSTER message. It takes
	// over h, the descriptor that came with the message; nil if none did.
	Internal(m *wire.Message, h *handle.Handle)
	// Coord handles one message of package coord. Its id is 0 if no answer is expected.
	// Coord must not keep msg.
	Coord(act string, id uint64, msg []byte)
	// Closed is called once, after the last message.
	Closed()
	// Overrun is called when the peer asks so much, without reading the answers, that
	// this side owes it more than answersBound, or sends descriptors that cannot be
	// closed. It may be called on any goroutine.
	Overrun()
}

// PeerKind is what the other side understands.
type PeerKind int

const (
	PeerUnknown PeerKind = iota
	PeerNode             // node's protocol only
	PeerGo               // this package's as well
)

// Options are the bounds of a link, and its name.
type Options struct {
	Name       string // of the worker, at either end, for errors: "worker 3"
	MaxMessage int    // bytes that a message from the peer may have
	PeerMax    int    // bytes that a message to the peer may have; 0: unknown, or no bound
	MaxQueue   int    // bytes that may wait for the peer, and bytes that may be read and not delivered
}

// New makes a link over ch, which it takes over. It does not read before Start.
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

// Send queues v as a message. received, if not nil, is called once the peer has
// received it. It may be called on any goroutine, and must not wait.
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

// SendWith is Send of a message with the descriptor h, which it takes over. as says what
// h is to node.
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
	if l.SpeaksExtra() { // a receipt of another peer is no line that the caller could read
		wait = func(ctx context.Context) bool { return l.in.waitFor(ctx, c) }
	}
	if !wait(ctx) {
		l.receipts.forget(receipt)
		return ctx.Err()
	}
	return c.err
}

// Request sends v and waits for the answer. The reader hands the answer over directly and
// not through the events: it may be their goroutine that calls Request.
func (l *Link) Request(ctx context.Context, v, reply any) error {
	c := newCall()
	err := wire.EncodeUser(v, func(line []byte) error {
		return l.out.unpaused(func() error { return l.calls.start(c, wire.ActRequest, line) })
	})
	if err != nil {
		return err
	}
	if err := l.await(ctx, c); err != nil || reply == nil {
		return err
	}
	if err := wire.Decode(c.msg, reply); err != nil {
		return fmt.Errorf("cluster: reply %s: %w", wire.Excerpt(c.msg), err)
	}
	return nil
}

// await waits for the answer to c, and gives c up when ctx ends first.
func (l *Link) await(ctx context.Context, c *call) error {
	l.flow.expect(1)
	defer l.flow.expect(-1)
	if !l.in.waitFor(ctx, c) {
		l.calls.forget(c)
		return ctx.Err()
	}
	return c.err
}

// SetPeerMax sets how many bytes a message to the peer may have, for what is sent from
// now on. It is called before SetPeer.
func (l *Link) SetPeerMax(n int) { l.most.Store(int64(n)) }

// SetPeer sets what the peer understands, when the worker has said online. Further calls
// do nothing.
func (l *Link) SetPeer(k PeerKind) {
	if l.kind.CompareAndSwap(int32(PeerUnknown), int32(k)) {
		l.receipts.setPeer(k)
		l.handover.setPeer()
		l.calls.setPeer(k)
	}
}

// check returns an error if the peer would drop a line of size bytes, its newline
// included, in which value stands levels deep.
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

// OrderExtra sends an act of NODE_GO_CLUSTER to a peer that understands it. msg, if any,
// is JSON that goes with it.
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

// answerAs sends lines that the peer has caused. If it does not read them, and too many
// bytes wait for it, the side is told of an overrun.
func (c *core) answerAs(kind lineKind, lines ...[]byte) {
	kind.app = false
	if _, err := c.out.put(kind, nil, lines...); errors.Is(err, errs.Backlog) {
		c.side.Overrun()
	}
}

// AskHandle queues m with a descriptor, whose reference it takes over. answer, if not
// nil, is told of the answer, as in Ask. If the descriptor gets lost on the way as often
// as maxHandleTries, answer gets a message that refuses it.
func (l *Link) AskHandle(typ string, m *wire.Message, h *handle.Handle, answer func(m *wire.Message, h *handle.Handle)) {
	line, seq := carrier(typ, m)
	l.AskHandleLine(line, seq, h, answer)
}

// SendHandle is AskHandle of what has no answer. lost is called without a lock if the
// worker says that it has not got the descriptor, as often as that is sent: it has none
// free. An address that m grants is then not granted.
func (l *Link) SendHandle(typ string, m *wire.Message, h *handle.Handle, lost func()) {
	line, seq := carrier(typ, m)
	l.exchange.sendHandle(outHandle{line: line, h: h, seq: seq, lost: func() {
		l.exchange.closes(m.Key)
		lost()
	}}, nil)
}

func carrier(typ string, m *wire.Message) (line []byte, seq int64) {
	m.Cmd, m.Seq = wire.CmdCluster, wire.NextSeq()
	inner := m.Line()
	outer := wire.Message{Cmd: wire.CmdHandle, Type: typ, Msg: inner[:len(inner)-1]}
	return outer.Line(), *m.Seq
}

// AskHandleLine is AskHandle of a line that is complete. Its message has the number seq.
func (l *Link) AskHandleLine(line []byte, seq int64, h *handle.Handle, answer func(m *wire.Message, h *handle.Handle)) {
	l.exchange.sendHandle(outHandle{line: line, h: h, seq: seq}, answer)
}

// Grants notes that the worker is about to be granted the address. It returns false if
// the worker is on its way out and takes no address any more.
func (l *Link) Grants(key string) bool { return l.exchange.grants(key) }

// Listens notes that the worker listens on the oldest address that it was granted. A node
// worker does not name the address, but reports in the order of the answers.
func (l *Link) Listens() { l.exchange.listens() }

// Closes notes that the worker has closed the address. stays reports that it goes on
// running. A worker on its way out closes all it has, and its successor listens there.
func (l *Link) Closes(key string) (stays bool) { return l.exchange.closes(key) }

// WorkerEnds answers, with m, a worker that says that it ends of its own accord. A node
// worker that has been told to disconnect gets no second answer, of which it would die. A
// node worker may have closed all its addresses while another one was being granted to
// it, and would not end then: it is told to disconnect instead, which closes that address
// too.
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

// OrderDisconnect tells the worker to drain. A Go worker is told as well how long it may
// take, and whether all workers drain (all): then nobody is left to take the connections
// that are queued. A worker that is not online yet may be gone before it can be asked for
// receipts, so it is asked now; node ignores the question.
func (l *Link) OrderDisconnect(timeout time.Duration, all bool) {
	m := &wire.Message{Act: wire.ActDisconnect}
	told, _, refused := l.exchange.beginExit()
	if l.SpeaksExtra() {
		m.Go = &wire.Extension{Timeout: timeout.Milliseconds(), Stop: all} // the time may be less than in an order before
	}
	l.receipts.askEarly()
	if !told {
		l.lastOrder(m)
	}
	refuse(refused)
}

// lastOrder is Order of a message that ends the channel. It waits behind all messages.
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

// Start begins to read. pid is the process at the other end if that is a worker, else 0.
func (l *Link) Start(pid int) {
	l.ch.SetPeer(pid)
	go l.workers.work(job{read: true})
}

// Done is closed when the link has ended: everything that came is passed on,
// and Side.Closed was called.
func (l *Link) Done() <-chan struct{} { return l.done }

// Counts returns how many messages of the applications have come in and gone out.
func (l *Link) Counts() (in, out int64) { return l.in.messages.Load(), l.out.messages.Load() }

// Queued returns how many bytes the kernel has not taken yet.
func (l *Link) Queued() int { return l.out.queued() }

// Charge counts n bytes against the bound of the input, until Release.
func (l *Link) Charge(n int) { l.flow.add(n) }

// Release ends what Charge, or a call of the Receiver, has counted.
func (l *Link) Release(n int) { l.flow.release(n) }

// SetWaiting sets how many messages wait for a handler.
func (l *Link) SetWaiting(n int) { l.flow.setWaiting(n) }

// Fault reports that the peer broke the protocol. The reader calls it.
func (l *Link) Fault(format string, args ...any) { l.in.fault(format, args...) }

// RetryRequests asks the Receiver again for responders to the requests that wait.
func (l *Link) RetryRequests() { l.requests.retry() }

// DropRequests gives up the requests of a peer that is gone, and returns how many waited.
func (l *Link) DropRequests() (n int) { return l.requests.drop() }

// Answered waits until the requests of the peer that have a handler are answered.
func (l *Link) Answered() { l.requests.running.Wait() }

// PeerExited says that the peer's process has ended: the reader takes what is in the
// channel and ends. It cannot wait for the end of file, since a grandchild that inherited
// the channel may hold it open for ever.
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
	if c.final.Load() { // PeerExited has come in between
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

// Discard ends everything that waits for the peer. It is called by the reader, and by
// whoever made the link and does not start it.
func (l *Link) Discard() {
	l.out.close(errs.Closed)
	l.ch.Close()
	unanswered := l.exchange.close()
	l.calls.close(errs.Closed)
	l.receipts.close(errs.Closed)
	l.handover.close()
	refuse(unanswered)
}
