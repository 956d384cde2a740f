package share

import (
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// handedQueue is the source of connections of one address on which the master
// accepts: a net.Listener whose Accept returns what the master hands over.
//
// The master wants to hear of each connection whether this worker serves it. It
// does as soon as an Accept is certain to return it, which is when there is a
// connection of package net's; until then the worker may
// give it back, so that it goes to another one. What is said to the master is
// said without the lock, and an Accept does not return a connection before.
type handedQueue struct {
	asker *Asker
	key   string

	mu       sync.Mutex
	changed  sync.Cond
	offers   []offer
	paused   []offer    // that no descriptor is free for, and a node primary is to have back in a moment
	promised int        // waiting Accepts that each have a connection coming
	taken    []net.Conn // connections that the master knows to be served here
	waiting  int        // Accepts that wait
	over     bool       // takes no more: draining or closed
	closed   bool
	timer    *time.Timer // of SetDeadline
	limit    time.Time
}

// offer is a connection whose fate the master wants to know.
type offer struct {
	seq *int64
	h   *handle.Handle
}

// maxOffers bounds what a primary can pile up here. An honest one has a single
// connection unanswered.
const maxOffers = 64

func (a *Asker) newQueue(key string) *handedQueue {
	q := &handedQueue{asker: a, key: key}
	q.changed.L = &q.mu
	a.mu.Lock()
	a.queues[key] = q
	a.mu.Unlock()
	return q
}

// Offered is called by the reader with a connection from the master. Without a
// descriptor there is nothing to answer: the link has refused the message.
func (a *Asker) Offered(w *wire.Message, h *handle.Handle) {
	if h == nil {
		return
	}
	a.mu.Lock()
	q := a.queues[w.Key]
	a.mu.Unlock()
	o := offer{w.Seq, h}
	if q == nil {
		a.answer(o, false)
		return
	}
	q.take(o)
}

// answer tells the master whether this worker serves the connection. The descriptor
// of one that it does not serve is closed before the master hears of it.
func (a *Asker) answer(o offer, accepted bool) {
	if !accepted {
		o.h.Release()
	}
	a.saying.Lock()
	defer a.saying.Unlock()
	full := a.worker.Go && a.worker.Places.Full()
	a.toldFull = a.toldFull || full
	a.worker.Link.Answer(wire.AcceptedLine(o.seq, accepted, full))
}

// Filled says that this worker has as many connections as it may.
func (a *Asker) Filled() { a.applyPlaces() }

// HasRoom tells the master that this worker takes connections again, if it has been told
// otherwise.
func (a *Asker) HasRoom() {
	a.applyPlaces()
	a.saying.Lock()
	defer a.saying.Unlock()
	if (a.toldFull || a.toldNoRoom) && !a.worker.Places.Full() {
		a.toldFull, a.toldNoRoom = false, false
		a.worker.Link.Answer((&wire.Message{Cmd: wire.CmdExtra, Act: wire.ActRoom}).Line())
	}
}

// Reserves says that each connection that Accept returns has taken a place.
func (q *handedQueue) Reserves() {}

// take takes the connection or refuses it.
func (q *handedQueue) take(o offer) {
	full := q.asker.worker.Places.Full()
	q.mu.Lock()
	if q.over || full || len(q.offers) >= maxOffers {
		q.mu.Unlock()
		q.asker.answer(o, false)
		return
	}
	if q.waiting <= len(q.taken)+q.promised {
		q.offers = append(q.offers, o)
		q.changed.Signal()
		q.mu.Unlock()
		return
	}
	// An Accept waits that nothing but this connection can end from now on. The
	// master is told at once, together with the acknowledgement of the message, so
	// that it sends the next one the sooner.
	q.promised++
	q.mu.Unlock()
	c := q.accept(o)
	q.mu.Lock()
	q.promised--
	if c != nil {
		q.taken = append(q.taken, c)
	}
	q.mu.Unlock()
	q.changed.Broadcast()
}

// accept makes the connection of an offer, and only then tells the master that this
// worker has it. It returns nil if there is none: the client is gone, or no place or no
// descriptor is free here, and the connection goes to another worker or waits.
func (q *handedQueue) accept(o offer) net.Conn {
	if !q.asker.worker.Places.Reserve() {
		q.asker.answer(o, false)
		return nil
	}
	c, err := socket.NewConn(o.h)
	if err == nil {
		q.asker.answer(o, true)
		return c
	}
	q.asker.worker.Places.Unreserve()
	o.h = nil // NewConn has taken it
	if !socket.Exhausted(err) {
		q.asker.answer(o, true) // nothing is left to be served
		return nil
	}
	q.asker.scarce.tell(q.asker.worker.Exhausted, err)
	if q.asker.worker.Go || !q.pause(o) {
		q.asker.answer(o, false)
	}
	return nil
}

// exhaustedPause is how long a node primary is left without an answer when no
// descriptor is free: it offers what it is given back again at once, to its only
// worker too. A Go master makes a pause of its own.
const exhaustedPause = 50 * time.Millisecond

// pause gives o back after a moment, unless a drain or Close does that before. It
// reports false if that has begun.
func (q *handedQueue) pause(o offer) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.over {
		return false
	}
	q.paused = append(q.paused, o)
	time.AfterFunc(exhaustedPause, func() {
		q.mu.Lock()
		paused := q.paused
		q.paused = nil
		q.mu.Unlock()
		q.giveBack(paused)
	})
	return true
}

// Accept returns the next connection. A connection that was offered and that no
// Accept comes for goes to another worker.
func (q *handedQueue) Accept() (net.Conn, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		switch {
		case len(q.taken) > 0:
			c := q.taken[0]
			q.taken = q.taken[1:]
			return c, nil
		case q.promised > 0: // it comes in a moment
		case q.closed:
			return nil, net.ErrClosed
		case !q.limit.IsZero() && !time.Now().Before(q.limit):
			return nil, errTimeout
		case len(q.offers) > 0:
			o := q.offers[0]
			q.offers = q.offers[1:]
			q.mu.Unlock()
			c := q.accept(o)
			q.mu.Lock()
			if c != nil {
				return c, nil
			}
			continue
		}
		q.waiting++
		q.changed.Wait()
		q.waiting--
	}
}

// errTimeout is what Accept returns past its deadline.
var errTimeout net.Error = timeoutError{}

type timeoutError struct{}

func (timeoutError) Error() string   { return "i/o timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

// SetDeadline bounds Accept. In a worker that drains, what was offered is given
// back and nothing more is taken once t has passed: that is how a drain stops an
// Accept.
func (q *handedQueue) SetDeadline(t time.Time) error {
	q.mu.Lock()
	if q.timer != nil {
		q.timer.Stop()
	}
	q.limit = time.Time{}
	if !t.IsZero() {
		d := time.Until(t)
		q.limit = time.Now().Add(d) // by the clock of the timer, which rings once
		q.timer = time.AfterFunc(d, func() { broadcast(&q.changed) })
	}
	var refused []offer
	if q.asker.worker.Draining() && !t.After(time.Now()) {
		refused = q.stop()
	}
	q.changed.Broadcast()
	q.mu.Unlock()
	q.giveBack(refused)
	return nil
}

// stop lets the queue take no more. It returns what has to be given back. q.mu is
// held.
func (q *handedQueue) stop() (refused []offer) {
	q.over = true
	refused = append(q.offers, q.paused...)
	q.offers, q.paused = nil, nil
	return refused
}

// giveBack refuses what stop returned, without the lock.
func (q *handedQueue) giveBack(refused []offer) {
	for _, o := range refused {
		q.asker.answer(o, false)
	}
}

// Close gives back what no Accept has come for.
func (q *handedQueue) Close() error {
	q.asker.mu.Lock()
	delete(q.asker.queues, q.key)
	q.asker.mu.Unlock()
	q.mu.Lock()
	q.closed = true
	refused := q.stop()
	q.changed.Broadcast()
	q.mu.Unlock()
	q.giveBack(refused)
	return nil
}

// Addr returns nil: the address is that of the master's socket, which the listener
// around this source knows.
func (q *handedQueue) Addr() net.Addr { return nil }

// SyscallConn fails: the socket is the master's.
func (q *handedQueue) SyscallConn() (syscall.RawConn, error) {
	return nil, fmt.Errorf("cluster: SyscallConn: %w", errs.NotSupported)
}
