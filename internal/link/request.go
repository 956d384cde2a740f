package link

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/wire"
)

// requests are the calls of a link, both ways.
type requests struct {
	// Under the link's lock:
	last  uint64
	calls map[uint64]*call // ours, by id
	held  []*call          // ours, made before the peer is known

	mu      sync.Mutex
	waiting []asked // the peer's, that no handler fits yet

	running inFlight     // the peer's, being answered
	next    chan job     // to the goroutine that rests until there is one
	resting atomic.Int32 // goroutines that do: one, or none
}

// call is one Request under way.
type call struct {
	id    uint64
	began time.Duration // since epoch
	alone bool          // no other was under way then
	line  []byte
	done  chan struct{}
	msg   []byte
	err   error
}

// over reports whether the call has ended.
func (c *call) over() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// asked is a Request of the peer's.
type asked struct {
	id  uint64
	msg []byte
}

func (a *asked) size() int { return len(a.msg) + requestCost }

// RemoteError is an error that a handler on the other side returned.
type RemoteError struct{ text string }

func (e *RemoteError) Error() string { return e.text }

// Request sends v and waits for the answer, which the reader hands over without
// a detour through the events: their goroutine may be who is calling.
func (l *Link) Request(ctx context.Context, v, reply any) error {
	c := &call{began: time.Since(epoch), done: make(chan struct{})}
	err := wire.EncodeUser(v, func(line []byte) error { return l.startCall(c, line) })
	if err != nil {
		return err
	}
	l.flow.expect(1)
	defer l.flow.expect(-1)
	if !l.waitCall(ctx, c) {
		l.forgetCall(c)
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

// waitCall waits for the end of c, reading the channel itself if it has the turn.
// It returns false if ctx ends first.
func (l *Link) waitCall(ctx context.Context, c *call) (ended bool) {
	mine, granted := l.readTurn.begin(c)
	if granted != nil {
		l.ch.Interrupt()
		select {
		case <-granted:
			mine = true
		case <-c.done:
			mine = l.readTurn.withdraw()
		case <-ctx.Done():
			mine = l.readTurn.withdraw()
		}
		if mine {
			l.resume()
		} // else the reader does, who may have an interrupt of its own by now
	}
	if mine {
		l.readFor(ctx, c)
		if !c.over() {
			// The reader reads on, if anybody is to have an answer.
			l.readTurn.giveUp()
			return c.wait(ctx)
		}
		l.readTurn.leave()
		if l.final.Load() || l.awaits() {
			l.readTurn.pickUp() // others that wait saw that somebody reads
		}
		return true
	}
	ended = c.wait(ctx)
	// Only now: the next call follows soon on the answer, not on the question.
	l.readTurn.ended()
	return ended
}

// wait waits for the end of the call, or returns false when ctx ends first.
func (c *call) wait(ctx context.Context) (ended bool) {
	select {
	case <-c.done:
		return true
	case <-ctx.Done():
		return false
	}
}

func (l *Link) startCall(c *call, msg []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	if l.peer == PeerNode {
		return errNodeRequest
	}
	r := &l.requests
	r.last++
	c.id = r.last
	if l.peer == PeerUnknown {
		head, body, tail := wire.CallParts(nil, wire.ActRequest, c.id, msg)
		c.line = slices.Concat(head, body, tail)
		r.held = append(r.held, c)
		return nil
	}
	if r.calls == nil {
		r.calls = make(map[uint64]*call)
	}
	c.alone = len(r.calls) == 0
	r.calls[c.id] = c
	var room [wire.CallHead]byte
	head, body, tail := wire.CallParts(room[:0], wire.ActRequest, c.id, msg)
	_, err := l.out.put(promptLine, nil, head, body, tail)
	if err != nil {
		delete(r.calls, c.id)
	}
	return err
}

var errNodeRequest = fmt.Errorf("a node peer answers no requests: %w", errs.NotSupported)

// releaseRequests sends the requests that waited for the peer to be known.
func (l *Link) releaseRequests(k PeerKind) {
	l.mu.Lock()
	r := &l.requests
	held := r.held
	r.held = nil
	var failed []*call
	for _, c := range held {
		if k != PeerGo {
			c.err = errNodeRequest
		} else if _, c.err = l.out.put(orderLine, nil, c.line); c.err == nil {
			if r.calls == nil {
				r.calls = make(map[uint64]*call)
			}
			r.calls[c.id] = c
			continue
		}
		failed = append(failed, c)
	}
	l.mu.Unlock()
	for _, c := range failed {
		close(c.done)
	}
}

// forgetCall gives up waiting; an answer that still comes is ignored.
func (l *Link) forgetCall(c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.requests.calls, c.id)
	for i, h := range l.requests.held {
		if h == c {
			l.requests.held = append(l.requests.held[:i], l.requests.held[i+1:]...)
			return
		}
	}
}

// replied hands the peer's answer to the call that waits for it.
func (l *Link) replied(m wire.Extra) {
	l.mu.Lock()
	c := l.requests.calls[m.ID]
	delete(l.requests.calls, m.ID)
	l.mu.Unlock()
	if c == nil {
		return
	}
	c.msg = bytes.Clone(m.Msg)
	if m.Error != nil {
		c.err = &RemoteError{*m.Error}
	}
	close(c.done)
}

// failRequests ends the calls under way: no answer will come.
func (l *Link) failRequests(err error) {
	l.mu.Lock()
	calls, held := l.requests.calls, l.requests.held
	l.requests.calls, l.requests.held = nil, nil
	l.mu.Unlock()
	for _, c := range calls {
		c.err = err
		close(c.done)
	}
	for _, c := range held {
		c.err = err
		close(c.done)
	}
}

// requestCost is what a request that is being answered costs beside its bytes:
// a goroutine.
const requestCost = 4 << 10

// requested sees to the answer to a request of the peer's. The reader does not
// wait for the callbacks before it: nested calls could deadlock.
func (l *Link) requested(a asked) {
	l.flow.add(a.size())
	if j, ok := l.jobFor(a); ok {
		if l.byCaller { // who has better things to do
			l.spawn(j)
			return
		}
		if l.job.by != nil {
			l.spawn(l.job)
		}
		l.job = j // see passOn
		return
	}
	l.flow.addRequests(1)
	l.requests.mu.Lock()
	l.requests.waiting = append(l.requests.waiting, a)
	l.requests.mu.Unlock()
	if l.to.Responder(a.msg) != nil { // it has come in between
		l.RetryRequests()
	}
}

// jobFor is the answering of a, if a handler fits.
func (l *Link) jobFor(a asked) (j job, ok bool) {
	r := l.to.Responder(a.msg)
	if r == nil {
		return job{}, false
	}
	l.requests.running.begin()
	return job{asked: a, by: r}, true
}

// job is what a goroutine of the link's does: to answer a request by the handler
// found for it, or to read.
type job struct {
	asked
	by   Responder
	read bool
}

// spawn runs j on a goroutine of its own: the one that rests, if there is one.
func (l *Link) spawn(j job) {
	select {
	case l.requests.next <- j:
		// By who sends: where there is one P the other has not run yet, and this
		// goroutine may be the next to rest.
		l.requests.resting.Add(-1)
	default:
		go l.work(j)
	}
}

// work does j, on a goroutine of its own, which then waits for another job
// unless one does already: its stack has grown to what JSON takes, and to grow
// a new one costs as much as the rest.
func (l *Link) work(j job) {
	for {
		if j.read {
			l.read()
		} else {
			l.do(j)
		}
		if !l.requests.resting.CompareAndSwap(0, 1) {
			return
		}
		select {
		case j = <-l.requests.next:
		case <-l.done:
			return
		}
	}
}

// do runs the handler and sends what it returns.
func (l *Link) do(j job) {
	defer l.requests.running.end()
	reply, err := j.by.Respond(l.to, j.msg)
	l.flow.release(j.size())
	if err == nil {
		err = wire.Encode(reply, func(line []byte) error {
			var room [wire.CallHead]byte
			head, body, tail := wire.CallParts(room[:0], wire.ActReply, j.id, line)
			l.reply(head, body, tail)
			return nil
		})
	}
	if err != nil { // of the handler, or of the encoder
		l.reply(wire.AppendFailure(nil, j.id, err.Error()))
	}
}

// reply sends an answer. A peer that asks and does not read has gone too far.
func (l *Link) reply(line ...[]byte) {
	if _, err := l.out.put(promptLine, nil, line...); errors.Is(err, errs.Backlog) {
		l.side.Overrun()
	}
}

// RetryRequests answers the waiting requests for which there is a handler now.
func (l *Link) RetryRequests() {
	r := &l.requests
	r.mu.Lock()
	waiting := r.waiting
	r.waiting = nil
	r.mu.Unlock()
	var still []asked
	for _, m := range waiting {
		if j, ok := l.jobFor(m); ok {
			l.spawn(j)
		} else {
			still = append(still, m)
		}
	}
	l.flow.addRequests(len(still) - len(waiting))
	if len(still) > 0 {
		r.mu.Lock()
		r.waiting = append(still, r.waiting...)
		r.mu.Unlock()
	}
}

// DropRequests ends the wait of the peer's requests when it is gone, and returns
// how many no handler took.
func (l *Link) DropRequests() (n int) {
	r := &l.requests
	r.mu.Lock()
	defer r.mu.Unlock()
	n = len(r.waiting)
	r.waiting = nil
	return n
}
