package link

import (
	"sync"
	"sync/atomic"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
)

// outbox is the lines to the peer that the kernel has not taken yet. A line that finds
// nothing queued goes to the kernel at once, from the goroutine that sends it. Lines that
// come in a burst are held back for a moment and go together: see holdBack.
//
// One writer at a time empties buf into the kernel: the goroutine that sends, or one that
// writes what a sender has left.
type outbox struct {
	ch  sender
	max int // bytes, of what applications send

	mu       sync.Mutex
	buf      []byte       // lines not yet given to a writer
	marks    []fdMark     // descriptors that go with lines in buf
	batch    batch        // the writer's, while there is one
	spare    []byte       // the last writer's buffer, for reuse
	messages atomic.Int64 // messages of the application, since the beginning
	enqueued uint64       // bytes that were put into buf, since the beginning
	written  uint64       // how many of them the kernel has taken
	answers  int          // bytes not written yet that count against answersBound and not max
	inFlight int          // how many of those are in batch
	writing  bool         // a writer is at work, and will look at buf again
	parked   bool         // a goroutine waits until the kernel has room
	tried    uint64       // what enqueued was when the kernel last had no room
	back     holdBack
	waiting  []written // what to call when the kernel has taken so much
	err      error     // after close
	pause    writePause
	onFail   func() // the first write error; the reader sees the same end
}

// sender is the part of a channel that an outbox needs.
type sender interface {
	// Send gives the kernel as much of p as it takes now, with fd (unless it is
	// negative) attached to the first byte. An error that isNoRoom says that it
	// takes nothing yet.
	Send(p []byte, fd int) (int, error)
	// WaitRoom waits until it is worth to try again after noRoom.
	WaitRoom(noRoom error) error
}

// batch is what is being written.
type batch struct {
	whole []byte
	left  []byte // the end of whole that the kernel has not taken
	marks []fdMark
}

// fdMark says that a descriptor goes with the line at buf[start:end].
type fdMark struct {
	start, end int
	h          *handle.Handle
}

// written has fn called, with nil, once the kernel has taken all up to pos.
type written struct {
	pos uint64
	fn  func(error)
}

// answersBound is how many bytes of answers may wait for a peer that asks and does not
// read: some 20,000 acknowledgements.
const answersBound = 1 << 20

// lineKind says which bound a line counts against, and when it is written.
type lineKind struct {
	app    bool // the application sends it: a pause refuses it
	bound  bound
	urgent bool // somebody waits for what follows from it: it is never held back
	late   bool // it is written with the next line, or by flush
}

// bound is what limits the bytes of a kind that may wait for the peer.
type bound int

const (
	unbounded  bound = iota // orders, of which there are few
	maxQueue                // messages of applications: Options.MaxQueue
	maxAnswers              // answers to the peer: answersBound
)

var (
	userLine   = lineKind{app: true, bound: maxQueue}
	promptLine = lineKind{app: true, bound: maxQueue, urgent: true}
	orderLine  = lineKind{bound: unbounded, urgent: true}
	answerLine = lineKind{bound: maxAnswers, urgent: true}
	lateLine   = lineKind{bound: maxAnswers, urgent: true, late: true}
)

// put queues complete lines, and sees to it that they are written. It never
// waits. It takes h over, which goes with the first byte. pos is the position in the
// stream after the lines, for whenWritten.
func (o *outbox) put(kind lineKind, h *handle.Handle, lines ...[]byte) (pos uint64, err error) {
	o.mu.Lock()
	size := 0
	for _, l := range lines {
		size += len(l)
	}
	// A single line larger than the bound is taken when nothing else is queued.
	switch queued := int(o.enqueued-o.written) - o.answers; {
	case o.err != nil:
		err = o.err
	case kind.app && o.pause.on:
		err = errPaused
	case kind.bound == maxQueue && queued > 0 && queued+size > o.max,
		kind.bound == maxAnswers && o.answers+size > answersBound:
		err = errs.Backlog
	}
	if err != nil {
		o.mu.Unlock()
		h.Release()
		return 0, err
	}
	if kind.bound == maxAnswers {
		o.answers += size
	}
	start := len(o.buf)
	for _, l := range lines {
		o.buf = append(o.buf, l...)
	}
	if h != nil {
		o.marks = append(o.marks, fdMark{start, len(o.buf), h})
	}
	o.enqueued += uint64(size)
	if kind.bound == maxQueue {
		o.messages.Add(1)
	}
	pos = o.enqueued
	o.back.came(kind.urgent)
	if o.writing || o.pause.on || kind.late || o.hold() {
		o.mu.Unlock()
		return pos, nil
	}
	o.writing = true
	o.mu.Unlock()
	o.write(true)
	return pos, nil
}

// hold reports whether the lines in buf are to be written later. If so, it has seen to it
// that they will be. o.mu is held.
func (o *outbox) hold() bool {
	if o.parked {
		return o.enqueued-o.tried < wholeBatch
	}
	if !o.back.holds(len(o.buf)) {
		return false
	}
	if !o.back.armed {
		o.back.arm(o.release)
	}
	return true
}

// release writes the lines that were held back, when their time is over.
func (o *outbox) release() {
	o.mu.Lock()
	o.back.over()
	o.mu.Unlock()
	o.flush(false)
}

// flush becomes the writer, if there is none. one is as for write.
func (o *outbox) flush(one bool) {
	o.mu.Lock()
	if o.writing {
		o.mu.Unlock()
		return
	}
	o.writing = true
	o.mu.Unlock()
	o.write(one)
}

// write is the writer: it empties buf into the kernel, batch by batch. With one it
// writes a single batch and leaves the rest to a new goroutine, so that no sender is kept
// by what others add meanwhile. Nothing here waits for the peer.
func (o *outbox) write(one bool) {
	for o.take() {
		if noRoom := o.writeBatch(); noRoom != nil {
			o.stall(noRoom)
			return
		}
		if !o.done() {
			return
		}
		if one {
			go o.write(false)
			return
		}
	}
}

// take makes buf the writer's batch, unless something is left of the last one. If there
// is nothing to write it returns false, and then there is no writer any more.
func (o *outbox) take() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		o.rest()
		o.drop()
		return false
	}
	if o.pause.on {
		o.rest()
		return false
	}
	if len(o.batch.left) > 0 {
		return true
	}
	if len(o.buf) == 0 {
		o.rest()
		return false
	}
	o.batch = batch{whole: o.buf, left: o.buf, marks: o.marks}
	o.buf, o.spare, o.marks = o.spare[:0], nil, nil
	o.inFlight = o.answers
	o.back.urgent = false
	return true
}

// writeBatch writes the batch. A descriptor goes with the first byte of its line,
// and no other line goes in the same call: node takes the descriptor for whichever
// line ends first. When the kernel has no room, writeBatch leaves the rest and
// returns why. After any other error the channel is as good as closed.
func (o *outbox) writeBatch() (noRoom error) {
	b := &o.batch
	for len(b.left) > 0 {
		off := len(b.whole) - len(b.left)
		end, fd := len(b.left), -1
		if len(b.marks) > 0 {
			if m := b.marks[0]; m.start > off {
				end = m.start - off
			} else {
				end, fd = m.end-off, m.h.FD()
			}
		}
		n, err := o.ch.Send(b.left[:end], fd)
		if channel.IsNoRoom(err) {
			return err
		}
		if err != nil {
			releaseMarks(b.marks)
			b.left, b.marks = nil, nil
			o.fail()
			return nil
		}
		if fd >= 0 { // it went with the first byte, however few went along
			b.marks[0].h.Release()
			b.marks = b.marks[1:]
		}
		b.left = b.left[n:]
		o.advance(n)
	}
	return nil
}

// stall ends the writing for now, as the kernel has no room. A goroutine waits for room.
// A sender that has added a whole batch meanwhile tries again by itself: if it keeps the
// only P busy, the goroutine that waits does not run.
func (o *outbox) stall(noRoom error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rest()
	if o.err != nil {
		o.drop()
		return
	}
	o.tried = o.enqueued
	if !o.parked {
		o.parked = true
		go o.awaitRoom(noRoom)
	}
}

// awaitRoom writes on once the kernel has room.
func (o *outbox) awaitRoom(noRoom error) {
	err := o.ch.WaitRoom(noRoom)
	o.mu.Lock()
	o.parked = false
	o.mu.Unlock()
	if err != nil {
		o.fail()
		return
	}
	o.flush(false)
}

// drop gives up what the writer has left. o.mu is held, and nobody writes.
func (o *outbox) drop() {
	releaseMarks(o.batch.marks)
	o.batch = batch{}
}

func releaseMarks(marks []fdMark) {
	for _, m := range marks {
		m.h.Release()
	}
}

// advance counts n more bytes as taken by the kernel, and calls what waited for them.
func (o *outbox) advance(n int) {
	o.mu.Lock()
	o.written += uint64(n)
	var tell []written
	for len(o.waiting) > 0 && o.waiting[0].pos <= o.written {
		tell = append(tell, o.waiting[0])
		o.waiting = o.waiting[1:]
	}
	o.mu.Unlock()
	for _, w := range tell {
		w.fn(nil)
	}
}

// done is called when the batch is written. It keeps the buffer for reuse, unless that
// has grown large, and reports whether the writer goes on.
func (o *outbox) done() (more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answers -= o.inFlight
	o.inFlight = 0
	if whole := o.batch.whole; cap(whole) <= 2*wholeBatch {
		o.spare = whole[:0]
	}
	o.batch = batch{}
	o.back.wrote()
	if len(o.buf) > 0 && o.err == nil && !o.hold() {
		return true
	}
	o.rest()
	return false
}

// whenWritten calls fn once the kernel has all up to pos (a result of put), or with an
// error if the outbox is closed before. fn must not wait.
func (o *outbox) whenWritten(pos uint64, fn func(error)) {
	o.mu.Lock()
	switch {
	case o.written >= pos:
		o.mu.Unlock()
		fn(nil)
	case o.err != nil:
		o.mu.Unlock()
		fn(o.err)
	default:
		o.waiting = append(o.waiting, written{pos, fn})
		o.back.urgent = true
		o.mu.Unlock()
		o.flush(true)
	}
}

// queued is how many bytes the kernel has not taken yet.
func (o *outbox) queued() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return int(o.enqueued - o.written)
}

// end returns the position after the last line that was put.
func (o *outbox) end() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.enqueued
}

// fail closes the outbox after a write error.
func (o *outbox) fail() {
	o.close(errs.Closed)
	if o.onFail != nil {
		o.onFail()
	}
}

// close refuses all that comes from now on with err, and drops what is queued.
func (o *outbox) close(err error) {
	o.mu.Lock()
	if o.err != nil {
		o.mu.Unlock()
		return
	}
	o.err = err
	o.back.stop()
	marks, waiting := o.marks, o.waiting
	o.buf, o.spare, o.marks, o.waiting = nil, nil, nil, nil
	if !o.writing {
		o.drop()
	}
	o.mu.Unlock()
	releaseMarks(marks)
	for _, w := range waiting {
		w.fn(err)
	}
}
