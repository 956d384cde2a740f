package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

// link is the protocol over one channel, the same on both sides: messages out
// through the outbox, messages in through the framer to the process's events,
// receipts, the handle queue and questions of the internal protocol. Requests
// are in request.go.
//
// One goroutine reads. It waits for nothing but the peer, except that it stops
// reading while too much input is undelivered.
type link struct {
	ch   *channel
	out  outbox
	flow flow
	p    *Process // whose messages these are
	side side

	messages atomic.Int64 // of the application over there, ever
	in       framer       // of the reader, as all until the blank line
	unread   int          // bytes of this read, about, that are not looked at yet
	slab     []byte       // where small messages of one read are kept
	kept     int          // bytes of those
	fds      []int        // received and not yet claimed, oldest first
	held     int          // of fds, those that came with the line that is half read
	batch    []Message    // of one read, not delivered yet
	size     int          // of batch, in the flow's bytes
	asked    uint64       // the last receipt that the peer asked for in this read
	final    atomic.Bool  // the peer has exited: read what is there, do not wait
	done     chan struct{}

	mu       sync.Mutex
	err      error                              // once the link is closed
	peer     peerKind                           // decided by the worker's online
	sent     uint64                             // receipts asked for, or to be asked for
	receipts []receipt                          // oldest first
	answers  map[int64]func(m *wire, h *handle) // by the seq of the question
	handles  []outHandle                        // not yet sent
	handleUp bool                               // one is on its way, not acknowledged
	parting  bool                               // the worker was told to disconnect, or said that it does
	parted   bool                               // and was answered: it can take no descriptor
	requests requests
}

// side is what master and worker do differently with what arrives. All methods
// are called by the reader.
type side interface {
	// internal handles one NODE_CLUSTER or NODE_GO_CLUSTER message. It takes
	// over h, the descriptor that came along, if any.
	internal(m *wire, h *handle)
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
	h     *handle
	seq   int64
	tries int
}

func newLink(ch *channel, p *Process, s side, peer peerKind, o *Options) *link {
	l := &link{
		ch: ch, p: p, side: s, peer: peer,
		in:      framer{max: o.MaxMessage},
		done:    make(chan struct{}),
		answers: make(map[int64]func(*wire, *handle)),
	}
	l.requests.next = make(chan job)
	l.out = outbox{ch: ch, max: o.MaxQueue, onFail: l.finish}
	l.flow.init(o.MaxQueue)
	return l
}

// ---- out

// send queues v as a message. received, if not nil, is called once the peer
// has it, on any goroutine; it must not wait.
func (l *link) send(v any, received func(error)) error {
	return encodeUser(v, func(line []byte) error {
		if received == nil {
			_, err := l.out.put(userLine, nil, line)
			return err
		}
		return l.sendReceipt(line, received)
	})
}

// sendReceipt sends line, and behind it the question whether it has come. The
// peer that is not known yet is asked when it is: see setPeer.
func (l *link) sendReceipt(line []byte, fn func(error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := receipt{n: l.sent + 1, fn: fn}
	var err error
	if l.peer == peerGo {
		r.pos, err = l.out.put(userLine, nil, line, appendCount(nil, actAsk, r.n))
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
	return nil
}

// setPeer is told by the worker's online what the peer understands. Receipts
// that wait for it are asked for, all by the last one; node is not asked.
func (l *link) setPeer(k peerKind) {
	l.mu.Lock()
	l.peer = k
	var written []receipt
	if n := len(l.receipts); n > 0 && k == peerGo {
		l.out.put(orderLine, nil, appendCount(nil, actAsk, l.receipts[n-1].n))
	} else if k == peerNode {
		written, l.receipts = l.receipts, nil
	}
	l.mu.Unlock()
	for _, r := range written {
		l.out.whenWritten(r.pos, r.fn)
	}
	l.releaseRequests(k)
}

// speaksOurs reports whether the peer is known to understand NODE_GO_CLUSTER.
func (l *link) speaksOurs() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peer == peerGo
}

// order sends an internal message of this side's own accord.
func (l *link) order(m *wire) error {
	m.Cmd, m.Seq = cmdCluster, nextSeq()
	_, err := l.out.put(orderLine, nil, m.line())
	return err
}

// orderOurs sends an act of NODE_GO_CLUSTER, to a peer that understands it.
func (l *link) orderOurs(act string) error {
	m := &wire{Cmd: cmdOurs, Act: act}
	_, err := l.out.put(orderLine, nil, m.line())
	return err
}

// ask sends an internal message and calls answer with what comes back for it,
// or with nil when the link closes first. answer runs on the reader and takes
// over the handle.
func (l *link) ask(m *wire, answer func(m *wire, h *handle)) {
	m.Cmd, m.Seq = cmdCluster, nextSeq()
	l.expect(*m.Seq, answer)
	l.out.put(orderLine, nil, m.line())
}

// expect registers who is told of the answer to seq. On a link that is closed
// that is at once.
func (l *link) expect(seq int64, answer func(m *wire, h *handle)) {
	l.mu.Lock()
	closed := l.err != nil
	if !closed {
		l.answers[seq] = answer
	}
	l.mu.Unlock()
	if closed {
		answer(nil, nil)
	}
}

// answer sends what the peer asked for.
func (l *link) answer(line []byte) {
	if _, err := l.out.put(answerLine, nil, line); errors.Is(err, ErrBacklog) {
		l.side.overrun()
	}
}

// sendHandle queues m with a descriptor, whose reference it takes over. Only
// one is on its way at a time: node has one place for a descriptor whose
// message is not complete, and a later one would overwrite it.
func (l *link) sendHandle(typ string, m *wire, h *handle) { l.askHandle(typ, m, h, nil) }

// parts notes that the worker says that it ends by itself, and reports whether
// it is to be answered. A node worker disconnects on that answer as well as on
// the order to disconnect, and dies of an error when it gets both; and of
// another one when a descriptor comes behind the answer.
func (l *link) parts() (answer bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	answer = !l.parting || l.peer == peerGo
	l.parting = true
	l.parted = answer && l.peer != peerGo
	return answer
}

// askHandle is sendHandle for a message that has an answer, as in ask. A peer
// that gets the message without the descriptor, again and again, refuses it.
func (l *link) askHandle(typ string, m *wire, h *handle, answer func(m *wire, h *handle)) {
	m.Cmd, m.Seq = cmdCluster, nextSeq()
	inner := m.line()
	outer := wire{Cmd: cmdHandle, Type: typ, Msg: inner[:len(inner)-1]}
	l.mu.Lock()
	if l.err != nil || l.parted {
		l.mu.Unlock()
		h.release()
		if answer != nil {
			answer(nil, nil)
		}
		return
	}
	if answer != nil {
		l.answers[*m.Seq] = answer
	}
	l.handles = append(l.handles, outHandle{line: outer.line(), h: h, seq: *m.Seq})
	l.nextHandle()
	tooMany := len(l.handles) > maxHandles
	l.mu.Unlock()
	if tooMany {
		l.side.overrun()
	}
}

// maxHandles bounds the descriptors that wait for a peer which acknowledges
// none: the answers to its queries for all addresses that there can be.
const maxHandles = 2 * maxAddresses

// nextHandle sends the oldest handle if none is on its way. l.mu is held.
func (l *link) nextHandle() {
	if l.handleUp || l.parted || len(l.handles) == 0 {
		return
	}
	l.handleUp = true
	l.out.put(orderLine, l.handles[0].h.retain(), l.handles[0].line)
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
	var refused func(*wire, *handle)
	h := &l.handles[0]
	if h.tries++; ok || h.tries >= maxHandleTries {
		h.h.release()
		if !ok {
			refused = l.answers[h.seq]
			delete(l.answers, h.seq)
		}
		l.handles = l.handles[1:]
	}
	l.nextHandle()
	l.mu.Unlock()
	if refused != nil {
		refused(&wire{Accepted: ptr(false)}, nil)
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

// ---- in

// maxInternal bounds, in bytes, a message of the protocol: what an address is
// asked for with is kept for as long as the address is open.
const maxInternal = 64 << 10

const (
	// fullRead is how much is read at once, in bytes.
	fullRead = 64 << 10
	// maxHeld bounds the descriptors that a peer can make this side hold with a
	// line that it does not end.
	maxHeld = 64
)

// read is the reader's goroutine.
func (l *link) read() {
	defer close(l.done)
	for {
		in, err := l.ch.recv()
		l.take(in)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			if err != io.EOF && !errors.Is(err, os.ErrClosed) {
				l.p.report(fmt.Errorf("cluster: channel of worker %d: %w", l.p.id, err))
			}
			break
		}
		if l.final.Load() {
			l.readRest()
			break
		}
		l.pause()
	}
	l.shut()
}

// pause stops reading while too much input waits to be delivered.
func (l *link) pause() {
	for !l.flow.enter() {
		if l.flow.unclaimed() {
			l.p.report(fmt.Errorf("cluster: worker %d: %d bytes of messages and requests wait for a handler; its channel is not read until one takes them: %w",
				l.p.id, l.flow.max, ErrBacklog))
		}
		l.waitDelivered()
	}
}

// waitDelivered waits until something was delivered. Nothing is read meanwhile,
// so the end of the channel, which may be the master's death, has to be watched
// for on the side.
func (l *link) waitDelivered() {
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if l.ch.waitHangup() {
			l.flow.open()
		}
	}()
	l.flow.wait()
	l.ch.interrupt()
	<-watched
	if !l.final.Load() {
		l.ch.resume()
		if l.final.Load() { // just now: its interrupt must not be undone
			l.ch.interrupt()
		}
	}
}

// finish makes the reader take what is there and end: the peer has exited. A
// grandchild that inherited the channel could hold it open for ever.
func (l *link) finish() {
	l.final.Store(true)
	l.flow.open()
	l.ch.interrupt()
}

// readRest takes what the kernel has now and no more: who still holds the other
// end could write for ever.
func (l *link) readRest() {
	for left := l.ch.unread(); left > 0; {
		in, err := l.ch.tryRecv()
		if err == nil {
			left -= in.n
		}
		l.take(in)
		if err != nil {
			return
		}
	}
}

// take handles what one recvmsg returned.
func (l *link) take(in *input) {
	if in == nil {
		return
	}
	defer in.free()
	l.fds = append(l.fds, in.fds...)
	l.unread = in.n
	l.in.feed(in.data[:in.n], l.line, l.tooLong)
	l.slab, l.kept = nil, 0
	l.deliver()
	if l.asked > 0 {
		l.answer(appendCount(nil, actReceived, l.asked))
		l.asked = 0
	}
	l.held = 0
	if l.in.partial() {
		l.held = min(len(l.fds), maxHeld)
	}
	l.dropDescriptors(l.held, len(l.fds))
}

// dropDescriptors closes fds[from:to], which belong to no message.
func (l *link) dropDescriptors(from, to int) {
	if from >= to {
		return
	}
	closeDescriptors(l.fds[from:to])
	l.fds = append(l.fds[:from], l.fds[to:]...)
	l.fault("%d descriptors came with no message that takes them; closed", to-from)
}

// claim returns the oldest descriptor, or nil.
func (l *link) claim() *handle {
	if len(l.fds) == 0 {
		return nil
	}
	fd := l.fds[0]
	l.fds = l.fds[1:]
	if l.held > 0 {
		l.held--
	}
	return newHandle(fd)
}

// deliver posts the messages read so far, so that what is reported next comes
// after them.
func (l *link) deliver() {
	if len(l.batch) == 0 {
		return
	}
	if cap(l.batch) > 2*len(l.batch) {
		// One that is kept for a slow callback must not be much larger than what
		// it counts.
		l.batch = slices.Clone(l.batch)
	}
	l.messages.Add(int64(len(l.batch)))
	l.flow.add(l.size)
	l.p.events.post(event{msgs: l.batch, size: l.size})
	l.batch, l.size = nil, 0
}

// maxBatch is how many messages are posted at once: the callbacks need not
// wait for a whole read.
const maxBatch = 256

// message takes one for the application.
func (l *link) message(raw []byte) {
	if l.batch == nil {
		// The next messages are about as large.
		l.batch = make([]Message, 0, 1+min(max(0, l.unread)/(len(raw)+1), maxBatch-1))
	}
	l.batch = append(l.batch, Message{raw})
	l.size += len(raw) + messageCost
	if len(l.batch) == maxBatch {
		l.deliver()
	}
}

// slabSize is what small messages of one read share an allocation of. Any of
// them keeps it all.
const slabSize = 2 << 10

// keep copies a message out of the buffer of this read. The slabs grow with
// what is kept, so that a single small message keeps no large one.
func (l *link) keep(raw []byte) []byte {
	if len(raw) > slabSize/8 {
		return bytes.Clone(raw)
	}
	if len(raw) > cap(l.slab)-len(l.slab) {
		l.slab = make([]byte, 0, max(len(raw), min(4*l.kept, l.unread, slabSize)))
	}
	l.kept += len(raw)
	start := len(l.slab)
	l.slab = append(l.slab, raw...)
	return l.slab[start:len(l.slab):len(l.slab)]
}

// faultCost is what a report counts against the input bound, beside its text.
const faultCost = 512

// fault reports that the peer broke the protocol.
func (l *link) fault(format string, args ...any) {
	l.deliver()
	l.p.accuse(fmt.Errorf("cluster: worker %d: "+format, append([]any{l.p.id}, args...)...))
}

func (l *link) tooLong() {
	l.fault("%w: dropped, the bound is %d bytes", ErrMessageTooLong, l.in.max)
	l.dropHeld()
}

// dropHeld closes the descriptors that came while the line that ends now was
// half read: they were for it, and not for a later one.
func (l *link) dropHeld() {
	n := l.held
	l.held = 0
	l.dropDescriptors(0, n)
}

// line handles one line.
func (l *link) line(raw []byte, owned bool) {
	if !valid(raw) {
		l.fault("not JSON: %s", excerpt(raw))
	} else if cmd, ok := internalCmd(raw); ok {
		l.deliver()
		l.internal(cmd, raw)
	} else {
		if !owned {
			raw = l.keep(raw)
		}
		l.message(raw)
	}
	l.unread -= len(raw) + 1
	l.dropHeld()
}

// internal handles a message of the protocol's own. What it does not know it
// ignores, as node does.
func (l *link) internal(cmd string, raw []byte) {
	switch cmd {
	case cmdOurs:
		m, err := parseOurs(raw)
		if err != nil {
			l.fault("bad internal message %s: %w", excerpt(raw), err)
			return
		}
		l.ours(m)
	case cmdAck:
		l.handleAcked(true)
	case cmdNack:
		l.handleAcked(false)
	case cmdHandle:
		l.handle(raw)
	case cmdCluster:
		l.cluster(raw, nil)
	case cmdSocketsClose:
		l.sockets(raw, wire{Cmd: cmdSocketsClosed})
	case cmdSocketsCount:
		l.sockets(raw, wire{Cmd: cmdSocketsNumber, Count: ptr(0)})
	}
}

// sockets answers what node asks about sockets that it has sent here: they were
// closed when they came.
func (l *link) sockets(raw []byte, answer wire) {
	var m wire
	if err := json.Unmarshal(raw, &m); err != nil {
		l.fault("bad internal message %s: %w", excerpt(raw), err)
		return
	}
	answer.Key = m.Key
	l.answer(answer.line())
}

// handle takes a message that came with a descriptor. It is acknowledged before
// it is looked at, as node does: its sender sends nothing more until then.
func (l *link) handle(raw []byte) {
	h := l.claim()
	if h == nil {
		l.answer([]byte(`{"cmd":"` + cmdNack + `"}` + "\n"))
		l.fault("a handle message came without its descriptor: %s", excerpt(raw))
		return
	}
	l.answer([]byte(`{"cmd":"` + cmdAck + `"}` + "\n"))
	var outer wire
	if err := json.Unmarshal(raw, &outer); err != nil {
		h.release()
		l.fault("bad internal message %s: %w", excerpt(raw), err)
		return
	}
	if cmd, ok := internalCmd(outer.Msg); ok {
		// Nothing else of the protocol comes with a descriptor. In particular no
		// further NODE_HANDLE: nested ones would each hold a copy of the rest.
		if cmd == cmdCluster {
			l.cluster(outer.Msg, h)
			return
		}
		h.release()
		l.fault("a handle came with %q; closed", cmd)
		return
	}
	// A handle that the application over there sent: there is no way to hand it
	// to a callback, but the message that it came with is a message.
	h.release()
	l.fault("a handle of type %q was closed: %w", outer.Type, ErrNotSupported)
	if len(outer.Msg) > 0 {
		l.message(outer.Msg)
	}
}

// cluster handles a NODE_CLUSTER message: the answer to a question of ours, or
// something for the side.
func (l *link) cluster(raw []byte, h *handle) {
	if len(raw) > maxInternal {
		h.release()
		l.fault("an internal message of %d bytes is ignored: %s", len(raw), excerpt(raw))
		return
	}
	var m wire
	if err := json.Unmarshal(raw, &m); err != nil {
		h.release()
		l.fault("bad internal message %s: %w", excerpt(raw), err)
		return
	}
	if m.Ack == nil {
		l.side.internal(&m, h)
		return
	}
	l.mu.Lock()
	answer := l.answers[*m.Ack]
	delete(l.answers, *m.Ack)
	l.mu.Unlock()
	if answer == nil {
		h.release()
		return
	}
	answer(&m, h)
}

// ours handles a NODE_GO_CLUSTER message.
func (l *link) ours(m ours) {
	switch m.Act {
	case actAsk:
		l.asked = max(l.asked, m.N)
	case actReceived:
		l.received(m.N)
	case actRequest:
		l.requested(asked{m.ID, Message{bytes.Clone(m.Msg)}})
	case actReply:
		l.replied(m)
	default:
		if len(m.Msg) > maxInternal {
			l.fault("an internal message of %d bytes is ignored: %s", len(m.Msg), excerpt(m.Msg))
			return
		}
		l.side.internal(&wire{Cmd: cmdOurs, Act: m.Act, Msg: m.Msg}, nil)
	}
}

// received tells those whose messages the peer has received.
func (l *link) received(n uint64) {
	l.mu.Lock()
	i := 0
	for i < len(l.receipts) && l.receipts[i].n <= n {
		i++
	}
	told := l.receipts[:i]
	l.receipts = l.receipts[i:]
	l.mu.Unlock()
	for _, r := range told {
		r.fn(nil)
	}
}

// close ends the link from this side. The reader notices and does the rest.
func (l *link) close() { l.ch.close() }

// shut is the end of the link, and tells the side.
func (l *link) shut() {
	l.end()
	l.side.closed()
}

// end ends everything that waits for the peer.
func (l *link) end() {
	l.out.close(ErrClosed)
	l.ch.close()
	closeDescriptors(l.fds)
	l.fds = nil

	l.mu.Lock()
	l.err = ErrClosed
	receipts, answers, handles := l.receipts, l.answers, l.handles
	l.receipts, l.answers, l.handles = nil, nil, nil
	l.mu.Unlock()
	for _, h := range handles {
		h.h.release()
	}
	l.failRequests(ErrClosed)
	for _, r := range receipts {
		r.fn(ErrClosed)
	}
	for _, answer := range answers {
		answer(nil, nil)
	}
}

// flow bounds the input that is read and not delivered, in bytes.
type flow struct {
	mu       sync.Mutex
	changed  sync.Cond
	max      int
	bytes    int
	waiting  int  // messages for which there is no handler
	requests int  // the same of requests
	reported bool // that they are too many
	waiters  int  // calls whose answer may lie behind the flood
	final    bool
}

// floodAllowance is how far beyond the bound the channel is read while a call
// waits for its answer: the default MaxQueue once more.
const floodAllowance = defaultMaxQueue

func (f *flow) init(max int) {
	f.max = max
	f.changed.L = &f.mu
}

func (f *flow) full() bool {
	return !f.final && f.bytes > f.max && (f.waiters == 0 || f.bytes > f.max+floodAllowance)
}

// enter reports whether the reader may go on.
func (f *flow) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.full()
}

// unclaimed reports, once for each time that it happens, that what fills the
// bound waits for a handler to be registered.
func (f *flow) unclaimed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := f.waiting+f.requests > 0 && !f.reported
	f.reported = f.reported || first
	return first
}

// wait returns when the reader may go on, or has something to report first.
func (f *flow) wait() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.full() && (f.waiting+f.requests == 0 || f.reported) {
		f.changed.Wait()
	}
}

func (f *flow) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	wasFull := f.full()
	change()
	if wasFull {
		f.changed.Broadcast()
	}
}

func (f *flow) add(n int) { f.update(func() { f.bytes += n }) }

func (f *flow) release(n int) { f.update(func() { f.bytes -= n }) }

// expect notes that a call waits (1) or has ended (-1).
func (f *flow) expect(n int) { f.update(func() { f.waiters += n }) }

func (f *flow) setWaiting(n int) {
	f.update(func() {
		f.waiting = n
		f.reported = f.reported && f.waiting+f.requests > 0
	})
}

// addRequests notes that n more requests wait for a handler.
func (f *flow) addRequests(n int) {
	f.update(func() {
		f.requests += n
		f.reported = f.reported && f.waiting+f.requests > 0
	})
}

// open removes the bound: what is left in the kernel is little.
func (f *flow) open() { f.update(func() { f.final = true }) }
