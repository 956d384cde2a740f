package cluster

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/wire"
)

// link is the protocol over one channel, the same on both sides: messages out
// through the outbox, messages in through the framer to the process's events,
// receipts, the handle queue and questions of the internal protocol. Requests
// are in request.go.
//
// One goroutine reads at a time (readTurn.go). It waits for nothing but the peer,
// except that it stops reading while too much input is undelivered.
type link struct {
	ch   *channel.Channel
	out  outbox
	flow flow
	to   receiver // whose messages these are
	name string   // of the worker, for errors
	side side

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
	peer     peerKind                                          // decided by the worker's online
	sent     uint64                                            // receipts asked for, or to be asked for
	receipts []receipt                                         // oldest first
	answers  map[int64]func(m *wire.Message, h *handle.Handle) // by the seq of the question
	handles  []outHandle                                       // not yet sent
	handleUp bool                                              // one is on its way, not acknowledged
	nodeExit nodeExit
	requests requests
}

// receiver is what is above a link: it delivers what arrives. All methods but
// those of a responder are called by the reader, and must not wait.
type receiver interface {
	// messages takes over messages of the application, in their order. They count
	// size bytes against the bound of the input until Link.Release.
	messages(batch [][]byte, size int)
	// report tells of an error, which counts size bytes likewise.
	report(err error, size int)
	// responder returns what answers the request, or nil if nothing does yet:
	// Link.RetryRequests asks again.
	responder(msg []byte) responder
}

// responder answers a request. It is called on a goroutine of the link's, and may
// take its time. The error goes to the peer as its text.
type responder interface {
	respond(to receiver, msg []byte) (reply any, err error)
}

// side is what master and worker do differently with what arrives. All methods
// are called by the reader.
type side interface {
	// internal handles one NODE_CLUSTER or NODE_GO_CLUSTER message. It takes
	// over h, the descriptor that came along, if any.
	internal(m *wire.Message, h *handle.Handle)
	// closed is called once, after the last message.
	closed()
	// overrun is called when the peer makes this side owe it more answers than
	// it reads.
	overrun()
}

// peerKind is what the other side understands.
type peerKind int

const (
	peerUnknown peerKind = iota
	peerNode             // node's protocol only
	peerGo               // ours as well
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

// linkOptions are the bounds of a link, and its name.
type linkOptions struct {
	Name       string // of the worker at either end, for errors: "worker 3"
	MaxMessage int    // bytes that a message from the peer may have
	MaxQueue   int    // bytes that may wait for the peer, and bytes read that may wait here
}

// newLink makes a link over ch, which it takes over. It reads from start on.
func newLink(ch *channel.Channel, to receiver, s side, peer peerKind, o linkOptions) *link {
	l := &link{
		ch: ch, to: to, name: o.Name, side: s, peer: peer,
		in:      wire.Framer{Max: o.MaxMessage},
		done:    make(chan struct{}),
		answers: make(map[int64]func(*wire.Message, *handle.Handle)),
	}
	l.requests.next = make(chan job)
	l.readTurn.init()
	l.out = outbox{ch: ch, max: o.MaxQueue, onFail: l.finish}
	l.flow.init(o.MaxQueue)
	return l
}

// send queues v as a message. received, if not nil, is called once the peer
// has it, on any goroutine; it must not wait.
func (l *link) send(v any, received func(error)) error {
	return wire.EncodeUser(v, func(line []byte) error {
		if received == nil {
			_, err := l.out.put(userLine, nil, line)
			return err
		}
		return l.sendReceipt(line, received)
	})
}

// sendContext sends v and waits until the peer has it, or for ctx.
func (l *link) sendContext(ctx context.Context, v any) error {
	told := make(chan error, 1)
	if err := l.send(v, func(err error) { told <- err }); err != nil {
		return err
	}
	l.flow.expect(1)
	defer l.flow.expect(-1)
	select {
	case err := <-told:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sendReceipt sends line, and behind it the question whether it has come. The
// peer that is not known yet is asked when it is: see setPeer.
func (l *link) sendReceipt(line []byte, fn func(error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := receipt{n: l.sent + 1, fn: fn}
	var err error
	if l.peer == peerGo {
		r.pos, err = l.out.put(userLine, nil, line, wire.AppendCount(nil, wire.ActAsk, r.n))
	} else {
		r.pos, err = l.out.put(userLine, nil, line)
	}
	if err != nil {
		return err
	}
	l.sent++
	if l.peer == peerNode {
		// Under the lock, for the order of the callbacks: fn does not wait.
		l.out.whenWritten(r.pos, fn)
		return nil
	}
	l.receipts = append(l.receipts, r)
	l.readTurn.pickUp()
	return nil
}

// setPeer is told by the worker's online what the peer understands; what a second
// one says does not count. Receipts that wait for it are asked for, all by the last
// one; node is not asked.
func (l *link) setPeer(k peerKind) {
	l.mu.Lock()
	if l.peer != peerUnknown {
		l.mu.Unlock()
		return
	}
	l.peer = k
	var written []receipt
	if n := len(l.receipts); n > 0 && k == peerGo {
		l.out.put(orderLine, nil, wire.AppendCount(nil, wire.ActAsk, l.receipts[n-1].n))
	} else if k == peerNode {
		written, l.receipts = l.receipts, nil
	}
	l.mu.Unlock()
	for _, r := range written {
		l.out.whenWritten(r.pos, r.fn)
	}
	l.releaseRequests(k)
}

// speaksExtra reports whether the peer is known to understand NODE_GO_CLUSTER.
func (l *link) speaksExtra() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peer == peerGo
}

// order sends an internal message of this side's own accord.
func (l *link) order(m *wire.Message) error {
	m.Cmd, m.Seq = wire.CmdCluster, wire.NextSeq()
	_, err := l.out.put(orderLine, nil, m.Line())
	return err
}

// orderExtra sends an act of NODE_GO_CLUSTER, to a peer that understands it.
func (l *link) orderExtra(act string) error {
	m := &wire.Message{Cmd: wire.CmdExtra, Act: act}
	_, err := l.out.put(orderLine, nil, m.Line())
	return err
}

// ask sends an internal message and calls answer with what comes back for it,
// or with nil when the link closes first. answer runs on the reader and takes
// over the handle.
func (l *link) ask(m *wire.Message, answer func(m *wire.Message, h *handle.Handle)) {
	m.Cmd, m.Seq = wire.CmdCluster, wire.NextSeq()
	l.expect(*m.Seq, answer)
	l.out.put(orderLine, nil, m.Line())
}

// expect registers who is told of the answer to seq. On a link that is closed
// that is at once.
func (l *link) expect(seq int64, answer func(m *wire.Message, h *handle.Handle)) {
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

// answer sends what the peer asked for.
func (l *link) answer(line []byte) { l.answerAs(answerLine, line) }

// acknowledge answers a message with a descriptor, when all of this read is
// looked at: what follows from it often goes along. Only the reader calls it.
func (l *link) acknowledge(cmd string) {
	l.acked = true
	l.answerAs(lateLine, []byte(`{"cmd":"`+cmd+`"}`+"\n"))
}

func (l *link) answerAs(kind lineKind, line []byte) {
	if _, err := l.out.put(kind, nil, line); errors.Is(err, errs.Backlog) {
		l.side.overrun()
	}
}

// sendHandle queues m with a descriptor, whose reference it takes over. Only
// one is on its way at a time: node has one place for a descriptor whose
// message is not complete, and a later one would overwrite it.
func (l *link) sendHandle(typ string, m *wire.Message, h *handle.Handle) { l.askHandle(typ, m, h, nil) }

// askHandle is sendHandle for a message that has an answer, as in ask. A peer
// that gets the message without the descriptor, again and again, refuses it.
func (l *link) askHandle(typ string, m *wire.Message, h *handle.Handle, answer func(m *wire.Message, h *handle.Handle)) {
	m.Cmd, m.Seq = wire.CmdCluster, wire.NextSeq()
	inner := m.Line()
	outer := wire.Message{Cmd: wire.CmdHandle, Type: typ, Msg: inner[:len(inner)-1]}
	l.askHandleLine(outer.Line(), *m.Seq, h, answer)
}

// askHandleLine is askHandle with the line as it is to be, of which the message
// has the number seq.
func (l *link) askHandleLine(line []byte, seq int64, h *handle.Handle, answer func(m *wire.Message, h *handle.Handle)) {
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
		l.side.overrun()
	}
}

// maxHandles bounds the descriptors that wait for a peer which acknowledges
// none: the answers to its queries for all addresses that there can be, twice over.
const maxHandles = 2048

// nextHandle sends the oldest handle if none is on its way. l.mu is held.
func (l *link) nextHandle() {
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
func (l *link) handleAcked(ok bool) {
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

// flush waits until the kernel has all that was sent, or for ctx.
func (l *link) flush(ctx context.Context) error {
	done := make(chan error, 1)
	l.out.whenWritten(l.out.end(), func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start begins to read. pid is the process at the other end, if it is a worker.
func (l *link) start(pid int) {
	l.ch.SetPeer(pid)
	go l.work(job{read: true})
}

// isDone is closed when the link has ended: everything that came is passed on,
// and side.closed was called.
func (l *link) isDone() <-chan struct{} { return l.done }

// counts returns how many messages of applications came and went.
func (l *link) counts() (in, out int64) { return l.messages.Load(), l.out.messages.Load() }

// queued returns how many bytes the kernel has not taken yet.
func (l *link) queued() int { return l.out.queued() }

// charge counts n bytes against the bound of the input, until release.
func (l *link) charge(n int) { l.flow.add(n) }

// release is told that what counted n bytes is delivered.
func (l *link) release(n int) { l.flow.release(n) }

// setWaiting is told how many messages no handler takes yet.
func (l *link) setWaiting(n int) { l.flow.setWaiting(n) }

// answered waits until the requests of the peer that have a handler are answered.
func (l *link) answered() { l.requests.running.Wait() }

// close ends the link from this side. The reader notices and does the rest.
func (l *link) close() {
	l.ch.Close()
	l.readTurn.pickUp()
}

// awaits reports whether anything here waits for the peer to say something.
func (l *link) awaits() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.receipts) > 0 || len(l.answers) > 0 || len(l.requests.calls) > 0 || l.handleUp
}

// shut is the end of the link, and tells the side.
func (l *link) shut() {
	l.end()
	l.side.closed()
}

// end ends everything that waits for the peer.
func (l *link) end() {
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
