package link

import (
	"context"
	"errors"
	"sync"
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
	ch   *channel.Channel
	out  outbox
	flow flow
	to   Receiver // whose messages these are
	name string   // of the worker, for errors
	side Side

	messages atomic.Int64 // of the application over there, ever
	readTurn readTurn     // who reads; all until the blank line is theirs
	in       wire.Framer
	unread   int         // bytes of this read, about, that are not looked at yet
	slab     []byte      // where small messages of one read are kept
	kept     int         // bytes of those
	fds      []int       // received and not yet claimed, oldest first
	held     int         // of fds, those that came with the line that is half read
	batch    [][]byte    // messages of one read, not delivered yet
	size     int         // of batch, in the flow's bytes
	asked    uint64      // the last receipt that the peer asked for in this read
	job      job         // the last request of this read
	acked    bool        // an acknowledgement may have to be written
	byCaller bool        // a caller reads
	final    atomic.Bool // the peer has exited: read what is there, do not wait
	done     chan struct{}

	mu       sync.Mutex
	err      error                                             // once the link is closed
	peer     PeerKind                                          // decided by the worker's online
	sent     uint64                                            // receipts asked for, or to be asked for
	receipts []receipt                                         // oldest first
	answers  map[int64]func(m *wire.Message, h *handle.Handle) // by the seq of the question
	handles  []outHandle                                       // not yet sent
	handleUp bool                                              // one is on its way, not acknowledged
	nodeExit nodeExit
	requests requests
}

// Receiver is what is above a link: it delivers what arrives. All methods but
// those of a Responder are called by the reader, and must not wait.
type Receiver interface {
	// Messages takes over messages of the application, in their order. They count
	// size bytes against the bound of the input until Link.Release.
	Messages(batch [][]byte, size int)
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
	// Closed is called once, after the last message.
	Closed()
	// Overrun is called when the peer makes this side owe it more answers than
	// it reads.
	Overrun()
}

// PeerKind is what the other side understands.
type PeerKind int

const (
	PeerUnknown PeerKind = iota
	PeerNode             // node's protocol only
	PeerGo               // ours as well
)

// receipt is told when the peer has received all up to n.
type receipt struct {
	n   uint64
	pos uint64 // in the outbox, for a peer that gives no receipts
	fn  func(error)
}

// outHandle is a NODE_HANDLE line and its descriptor.
type outHandle struct {
	line  []byte
	h     *handle.Handle
	seq   int64
	tries int
}

// Options are the bounds of a link, and its name.
type Options struct {
	Name       string // of the worker at either end, for errors: "worker 3"
	MaxMessage int    // bytes that a message from the peer may have
	MaxQueue   int    // bytes that may wait for the peer, and bytes read that may wait here
}

// New makes a link over ch, which it takes over. It reads from start on.
func New(ch *channel.Channel, to Receiver, s Side, peer PeerKind, o Options) *Link {
	l := &Link{
		ch: ch, to: to, name: o.Name, side: s, peer: peer,
		in:      wire.Framer{Max: o.MaxMessage},
		done:    make(chan struct{}),
		answers: make(map[int64]func(*wire.Message, *handle.Handle)),
	}
	l.requests.next = make(chan job)
	l.readTurn.init()
	l.out = outbox{ch: ch, max: o.MaxQueue, onFail: l.PeerExited}
	l.flow.init(o.MaxQueue)
	return l
}

// Send queues v as a message. received, if not nil, is called once the peer
// has it, on any goroutine; it must not wait.
func (l *Link) Send(v any, received func(error)) error {
	return wire.EncodeUser(v, func(line []byte) error {
		if received == nil {
			_, err := l.out.put(userLine, nil, line)
			return err
		}
		_, err := l.sendReceipt(line, received, nil)
		return err
	})
}

// SendContext sends v and waits until the peer has it, or for ctx.
func (l *Link) SendContext(ctx context.Context, v any) error {
	c := &call{began: time.Since(epoch), done: make(chan struct{})}
	told := func(err error) {
		c.err = err
		close(c.done)
	}
	reads := false
	err := wire.EncodeUser(v, func(line []byte) (err error) {
		reads, err = l.sendReceipt(line, told, c)
		return err
	})
	if err != nil {
		return err
	}
	l.flow.expect(1)
	defer l.flow.expect(-1)
	wait := c.wait
	if reads {
		wait = func(ctx context.Context) bool { return l.waitCall(ctx, c) }
	}
	if !wait(ctx) {
		return ctx.Err()
	}
	return c.err
}

// sendReceipt sends line, and behind it the question whether it has come. The
// peer that is not known yet is asked when it is: see SetPeer.
//
// c, unless nil, is a caller that waits for the receipt. It reports whether it may
// read that itself, from a peer that gives any.
func (l *Link) sendReceipt(line []byte, fn func(error), c *call) (reads bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := receipt{n: l.sent + 1, fn: fn}
	kind := userLine
	if c != nil {
		kind = promptLine
	}
	if l.peer == PeerGo {
		var room [wire.CallHead]byte
		r.pos, err = l.out.put(kind, nil, line, wire.AppendCount(room[:0], wire.ActAsk, r.n))
	} else {
		r.pos, err = l.out.put(kind, nil, line)
	}
	if err != nil {
		return false, err
	}
	l.sent++
	if l.peer == PeerNode {
		// Under the lock, for the order of the callbacks: fn does not wait.
		l.out.whenWritten(r.pos, fn)
		return false, nil
	}
	if reads = c != nil && l.peer == PeerGo; reads {
		c.alone = len(l.receipts) == 0 && len(l.requests.calls) == 0
	}
	l.receipts = append(l.receipts, r)
	if !reads {
		l.readTurn.pickUp()
	}
	return reads, nil
}

// SetPeer is told by the worker's online what the peer understands; what a second
// one says does not count. Receipts that wait for it are asked for, all by the last
// one; node is not asked.
func (l *Link) SetPeer(k PeerKind) {
	l.mu.Lock()
	if l.peer != PeerUnknown {
		l.mu.Unlock()
		return
	}
	l.peer = k
	var written []receipt
	if n := len(l.receipts); n > 0 && k == PeerGo {
		l.out.put(orderLine, nil, wire.AppendCount(nil, wire.ActAsk, l.receipts[n-1].n))
	} else if k == PeerNode {
		written, l.receipts = l.receipts, nil
	}
	l.mu.Unlock()
	for _, r := range written {
		l.out.whenWritten(r.pos, r.fn)
	}
	l.releaseRequests(k)
}

// SpeaksExtra reports whether the peer is known to understand NODE_GO_CLUSTER.
func (l *Link) SpeaksExtra() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peer == PeerGo
}

// Order sends an internal message of this side's own accord.
func (l *Link) Order(m *wire.Message) error {
	m.Cmd, m.Seq = wire.CmdCluster, wire.NextSeq()
	_, err := l.out.put(orderLine, nil, m.Line())
	return err
}

// OrderExtra sends an act of NODE_GO_CLUSTER, to a peer that understands it.
func (l *Link) OrderExtra(act string) error {
	m := &wire.Message{Cmd: wire.CmdExtra, Act: act}
	_, err := l.out.put(orderLine, nil, m.Line())
	return err
}

// Ask sends an internal message and calls answer with what comes back for it,
// or with nil when the link closes first. answer runs on the reader and takes
// over the handle.
func (l *Link) Ask(m *wire.Message, answer func(m *wire.Message, h *handle.Handle)) {
	m.Cmd, m.Seq = wire.CmdCluster, wire.NextSeq()
	l.expect(*m.Seq, answer)
	l.out.put(orderLine, nil, m.Line())
}

// expect registers who is told of the answer to seq. On a link that is closed
// that is at once.
func (l *Link) expect(seq int64, answer func(m *wire.Message, h *handle.Handle)) {
	l.mu.Lock()
	closed := l.err != nil
	if !closed {
		l.answers[seq] = answer
	}
	l.mu.Unlock()
	l.readTurn.pickUp()
	if closed {
		answer(nil, nil)
	}
}

// Answer sends what the peer asked for.
func (l *Link) Answer(line []byte) { l.answerAs(answerLine, line) }

// acknowledge answers a message with a descriptor, when all of this read is
// looked at: what follows from it often goes along. Only the reader calls it.
func (l *Link) acknowledge(cmd string) {
	l.acked = true
	l.answerAs(lateLine, []byte(`{"cmd":"`+cmd+`"}`+"\n"))
}

func (l *Link) answerAs(kind lineKind, line []byte) {
	if _, err := l.out.put(kind, nil, line); errors.Is(err, errs.Backlog) {
		l.side.Overrun()
	}
}

// SendHandle queues m with a descriptor, whose reference it takes over. Only
// one is on its way at a time: node has one place for a descriptor whose
// message is not complete, and a later one would overwrite it.
func (l *Link) SendHandle(typ string, m *wire.Message, h *handle.Handle) { l.AskHandle(typ, m, h, nil) }

// AskHandle is SendHandle for a message that has an answer, as in ask. A peer
// that gets the message without the descriptor, again and again, refuses it.
func (l *Link) AskHandle(typ string, m *wire.Message, h *handle.Handle, answer func(m *wire.Message, h *handle.Handle)) {
	m.Cmd, m.Seq = wire.CmdCluster, wire.NextSeq()
	inner := m.Line()
	outer := wire.Message{Cmd: wire.CmdHandle, Type: typ, Msg: inner[:len(inner)-1]}
	l.AskHandleLine(outer.Line(), *m.Seq, h, answer)
}

// AskHandleLine is AskHandle with the line as it is to be, of which the message
// has the number seq.
func (l *Link) AskHandleLine(line []byte, seq int64, h *handle.Handle, answer func(m *wire.Message, h *handle.Handle)) {
	l.mu.Lock()
	if l.err != nil || l.leaves() {
		l.mu.Unlock()
		h.Release()
		if answer != nil {
			answer(nil, nil)
		}
		return
	}
	if answer != nil {
		l.answers[seq] = answer
	}
	l.handles = append(l.handles, outHandle{line: line, h: h, seq: seq})
	l.nextHandle()
	tooMany := len(l.handles) > maxHandles
	l.mu.Unlock()
	if tooMany {
		l.side.Overrun()
	}
}

// maxHandles bounds the descriptors that wait for a peer which acknowledges
// none: the answers to its queries for all addresses that there can be, twice over.
const maxHandles = 2048

// nextHandle sends the oldest handle if none is on its way. l.mu is held.
func (l *Link) nextHandle() {
	if l.handleUp || len(l.handles) == 0 {
		return
	}
	l.handleUp = true
	l.readTurn.pickUp()
	line, h := l.ch.Attach(l.handles[0].line, l.handles[0].h)
	l.out.put(orderLine, h, line)
}

// maxHandleTries is how often a handle is sent to a peer that answers that no
// descriptor came: as often as node does.
const maxHandleTries = 3

// handleAcked goes on with the next handle, or again with the last one.
func (l *Link) handleAcked(ok bool) {
	l.mu.Lock()
	if !l.handleUp {
		l.mu.Unlock()
		return // an answer to nothing
	}
	l.handleUp = false
	var refused func(*wire.Message, *handle.Handle)
	h := &l.handles[0]
	if h.tries++; ok || h.tries >= maxHandleTries || l.leaves() {
		h.h.Release()
		if !ok {
			refused = l.answers[h.seq]
			delete(l.answers, h.seq)
		}
		l.handles = l.handles[1:]
	}
	l.nextHandle()
	l.mu.Unlock()
	if refused != nil {
		refused(&wire.Message{Accepted: new(false)}, nil)
	}
}

// Flush waits until the kernel has all that was sent, or for ctx.
func (l *Link) Flush(ctx context.Context) error {
	done := make(chan error, 1)
	l.out.whenWritten(l.out.end(), func(err error) { done <- err })
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
	go l.work(job{read: true})
}

// Done is closed when the link has ended: everything that came is passed on,
// and Side.Closed was called.
func (l *Link) Done() <-chan struct{} { return l.done }

// Counts returns how many messages of applications came and went.
func (l *Link) Counts() (in, out int64) { return l.messages.Load(), l.out.messages.Load() }

// Queued returns how many bytes the kernel has not taken yet.
func (l *Link) Queued() int { return l.out.queued() }

// Charge counts n bytes against the bound of the input, until release.
func (l *Link) Charge(n int) { l.flow.add(n) }

// Release is told that what counted n bytes is delivered.
func (l *Link) Release(n int) { l.flow.release(n) }

// SetWaiting is told how many messages no handler takes yet.
func (l *Link) SetWaiting(n int) { l.flow.setWaiting(n) }

// Answered waits until the requests of the peer that have a handler are answered.
func (l *Link) Answered() { l.requests.running.wait() }

// Close ends the link from this side. The reader notices and does the rest.
func (l *Link) Close() {
	l.ch.Close()
	l.readTurn.pickUp()
}

// awaits reports whether anything here waits for the peer to say something.
func (l *Link) awaits() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.receipts) > 0 || len(l.answers) > 0 || len(l.requests.calls) > 0 || l.handleUp
}

// shut is the end of the link, and tells the side.
func (l *Link) shut() {
	l.Discard()
	l.side.Closed()
}

// Discard ends everything that waits for the peer.
func (l *Link) Discard() {
	l.out.close(errs.Closed)
	l.ch.Close()
	channel.CloseAll(l.fds)
	l.fds = nil

	l.mu.Lock()
	l.err = errs.Closed
	receipts, answers, handles := l.receipts, l.answers, l.handles
	l.receipts, l.answers, l.handles = nil, nil, nil
	l.mu.Unlock()
	for _, h := range handles {
		h.h.Release()
	}
	l.failRequests(errs.Closed)
	for _, r := range receipts {
		r.fn(errs.Closed)
	}
	for _, answer := range answers {
		answer(nil, nil)
	}
}
