package link

import (
	"slices"
	"sync"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/wire"
)

// exchange is the internal protocol of this side: the questions that wait for an
// answer, and the descriptors that wait for their turn. Only one descriptor is on
// its way at a time. Node has one place for a descriptor whose message is not
// complete, and a later one would overwrite it.
type exchange struct {
	*core

	mu      sync.Mutex
	closed  bool
	answers map[int64]answer // by the seq of the question
	handles []outHandle      // oldest first; not acknowledged yet
	up      bool             // the first of them is on its way
	exit    nodeExit
}

// answer is told what came back for a question, or nil when nothing will. It takes
// over the handle.
type answer func(m *wire.Message, h *handle.Handle)

// outHandle is a NODE_HANDLE line and its descriptor.
type outHandle struct {
	line  []byte
	h     *handle.Handle
	seq   int64
	tries int
	lost  func() // called when the peer has refused it for good; may be nil

	// Set for a message of the application only:
	told  func(error)   // called when the line is written; may be nil
	acked func(ok bool) // called when the peer has acknowledged it, or refused it for good
}

// nodeExit is how far a worker is on its way out, as its link knows it. A Go worker
// takes whatever still comes. A node worker does not. It disconnects when it is told
// to, and when it has said that it will and gets an answer to that. It dies of an error
// when both come, or when a descriptor comes after them. It never ends if it is granted
// an address after it has closed all that it had.
type nodeExit struct {
	begun   bool     // it was told to disconnect, or said that it does
	granted []string // addresses, by key, that were granted and that it does not listen on yet
}

// expect notes that told is to be called with the answer to seq. If the link is closed,
// told is called at once.
func (x *exchange) expect(seq int64, told answer) {
	x.mu.Lock()
	closed := x.closed
	if !closed {
		x.answers[seq] = told
	}
	x.mu.Unlock()
	x.turn.pickUp()
	if closed {
		told(nil, nil)
	}
}

// answered returns what waits for the answer to seq, and forgets it. It is nil if nothing
// does.
func (x *exchange) answered(seq int64) answer {
	x.mu.Lock()
	defer x.mu.Unlock()
	told := x.answers[seq]
	delete(x.answers, seq)
	return told
}

// any reports whether the peer has something to answer or to acknowledge.
func (x *exchange) any() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.answers) > 0 || x.up
}

// maxHandles bounds the descriptors that wait for a peer which acknowledges
// none. It is twice as many as the answers for all addresses that there can be.
const maxHandles = 2048

// sendHandle queues a descriptor. told, if not nil, is told of the answer.
func (x *exchange) sendHandle(one outHandle, told answer) {
	x.mu.Lock()
	if x.closed || x.leaves() {
		x.mu.Unlock()
		one.h.Release()
		if told != nil {
			told(nil, nil)
		}
		return
	}
	if told != nil {
		x.answers[one.seq] = told
	}
	x.handles = append(x.handles, one)
	x.nextHandle()
	tooMany := len(x.handles) > maxHandles
	x.mu.Unlock()
	if tooMany {
		x.side.Overrun()
	}
}

// sendUser queues a descriptor of the application, which it takes over unless it
// returns false: then the link has closed.
func (x *exchange) sendUser(one outHandle) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return false
	}
	x.handles = append(x.handles, one)
	x.nextHandle()
	return true
}

// nextHandle sends the oldest descriptor if none is on its way. x.mu is held.
func (x *exchange) nextHandle() {
	if x.up || len(x.handles) == 0 {
		return
	}
	x.up = true
	x.turn.pickUp()
	one := &x.handles[0]
	line, h, kept := x.ch.Attach(one.line, one.h)
	kept.Release() // handles keeps one.h until it is acknowledged
	pos, err := x.out.put(orderLine, h, line)
	told := one.told
	one.told = nil
	switch {
	case told == nil:
	case err != nil:
		told(err)
	default:
		// Under the lock, for the order of the callbacks: told does not wait.
		x.out.whenWritten(pos, told)
	}
}

// maxHandleTries is how often a descriptor is sent to a peer that answers that none
// came. Node sends as often.
const maxHandleTries = 3

// handleAcked is called when the peer has acknowledged a descriptor (ok), or says that
// none came. It sends the next one, or the last one once more.
func (x *exchange) handleAcked(ok bool) {
	x.mu.Lock()
	if !x.up {
		x.mu.Unlock()
		return // the peer answers something that was not sent
	}
	x.up = false
	var refused answer
	var acked func(bool)
	var lost func()
	one := &x.handles[0]
	if one.tries++; ok || one.tries >= maxHandleTries || x.leaves() && one.acked == nil {
		one.h.Release()
		acked = one.acked
		if !ok {
			lost = one.lost
			refused = x.answers[one.seq]
			delete(x.answers, one.seq)
		}
		x.handles = x.handles[1:]
	}
	x.nextHandle()
	x.mu.Unlock()
	if refused != nil {
		refused(&wire.Message{Accepted: new(false)}, nil)
	}
	if acked != nil {
		acked(ok)
	}
	if lost != nil {
		lost()
	}
}

// leaves reports whether the peer takes nothing new any more. x.mu is held.
func (x *exchange) leaves() bool { return x.exit.begun && x.peer() != PeerGo }

// leaving is leaves, for callers that do not hold x.mu.
func (x *exchange) leaving() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.leaves()
}

// grants is Link.Grants.
func (x *exchange) grants(key string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.leaves() {
		return false
	}
	if x.peer() != PeerGo {
		x.exit.granted = append(x.exit.granted, key)
	}
	return true
}

// listens is Link.Listens.
func (x *exchange) listens() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.exit.granted) > 0 {
		x.exit.granted = x.exit.granted[1:]
	}
}

// closes is Link.Closes.
func (x *exchange) closes(key string) (stays bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if i := slices.Index(x.exit.granted, key); i >= 0 {
		x.exit.granted = slices.Delete(x.exit.granted, i, i+1)
	}
	return !x.exit.begun
}

// beginExit notes that the worker is on its way out. told says that a node worker was on
// its way out before, crossed that a grant is under way to it. refused are the answers to
// those descriptors that it does not take any more.
func (x *exchange) beginExit() (told, crossed bool, refused []answer) {
	x.mu.Lock()
	defer x.mu.Unlock()
	told, crossed = x.leaves(), len(x.exit.granted) > 0
	x.exit.begun = true
	return told, crossed, x.dropHandles()
}

// dropHandles takes back the descriptors that a worker on its way out cannot
// take: all but the one that it has to acknowledge, and those of the application,
// which were sent before. It returns what waits for the answers to them. x.mu
// is held.
func (x *exchange) dropHandles() (refused []answer) {
	if !x.leaves() {
		return nil
	}
	all := x.handles
	x.handles = nil
	for i, one := range all {
		if i == 0 && x.up || one.acked != nil {
			x.handles = append(x.handles, one)
			continue
		}
		one.h.Release()
		if told := x.answers[one.seq]; told != nil {
			refused = append(refused, told)
			delete(x.answers, one.seq)
		}
	}
	return refused
}

// close takes back all descriptors and returns what waits for answers.
func (x *exchange) close() (unanswered []answer) {
	x.mu.Lock()
	x.closed = true
	answers, handles := x.answers, x.handles
	x.answers, x.handles = nil, nil
	x.mu.Unlock()
	for _, one := range handles {
		one.h.Release()
		if one.told != nil {
			one.told(errs.Closed)
		}
	}
	for _, told := range answers {
		unanswered = append(unanswered, told)
	}
	return unanswered
}

// refuse tells all of unanswered that no answer will come.
func refuse(unanswered []answer) {
	for _, told := range unanswered {
		told(nil, nil)
	}
}
