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

// handedQueue is the source of connections of one address on which the master accepts: a
// net.Listener whose Accept returns the connections that the master hands over.
//
// The worker has to tell the master of each connection whether it serves it. It serves the
// connection as soon as an Accept is certain to return it, which is when there is a connection
// of package net. Until then the worker may give the connection back, and it goes to another
// worker. The master is told without the lock, and before Accept returns the connection.
type handedQueue struct {
	asker *Asker
	key   string

	mu       sync.Mutex
	changed  sync.Cond
	offers   []offer
	paused   []offer    // no descriptor is free for these; a node primary gets them back in a moment
	promised int        // waiting Accepts that each have a connection coming
	taken    []net.Conn // connections that the master knows to be served here
	waiting  int        // Accepts that wait
	over     bool       // it takes no more: draining or closed
	closed   bool
	timer    *time.Timer // of SetDeadline
	limit    time.Time
}

// offer is a connection from the master that is not answered yet.
type offer struct {
	seq *int64
	h   *handle.Handle
}

// maxOffers bounds the offers that a primary can pile up here. An honest one has only one that
// is not answered.
const maxOffers = 64

func (a *Asker) newQueue(key string) *handedQueue {
	q := &handedQueue{asker: a, key: key}
	q.changed.L = &q.mu
	a.mu.Lock()
	a.queues[key] = q
	a.mu.Unlock()
	return q
}

// Offered is called by the reader with a connection from the master. If there is no descriptor,
// nothing is to be answered: the link has refused the message.
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

// answer tells the master whether this worker serves the connection. If it does not, its
// descriptor is closed before the master is told.
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

// Filled says that this worker has as many connections as it may have.
func (a *Asker) Filled() { a.applyPlaces() }

// HasRoom tells the master that this worker takes connections again, if it was told otherwise.
func (a *Asker) HasRoom() {
	a.applyPlaces()
	a.saying.Lock()
	defer a.saying.Unlock()
	if (a.toldFull || a.toldNoRoom) && !a.worker.Places.Full() {
		a.toldFull, a.toldNoRoom = false, false
		a.worker.Link.Answer((&wire.Message{Cmd: wire.CmdExtra, Act: wire.ActRoom}).Line())
	}
}

// Reserves marks a source whose connections have taken a place (see Places) when Accept returns
// them.
func (q *handedQueue) Reserves() {}

// take accepts the offer, keeps it for an Accept, or refuses it.
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
	// An Accept waits, and from now on only this connection can end it. So the master is
	// told at once, together with the acknowledgement of the message, and sends the next
	// connection sooner.
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

// accept makes a net.Conn of an offer, and only then tells the master that this worker has the
// connection. It returns nil if it could not: the client is gone, or no place or no descriptor
// is free here, and the connection goes to another worker or waits.
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
		q.asker.answer(o, true) // no other worker could serve it either
		return nil
	}
	q.asker.scarce.tell(q.asker.worker.Exhausted, err)
	if q.asker.worker.Go || !q.pause(o) {
		q.asker.answer(o, false)
	}
	return nil
}

// exhaustedPause is how long a node primary waits for an answer when no descriptor is free. It
// offers a connection that it gets back again at once, and to this worker if it has no other. A
// Go master makes a pause of its own.
const exhaustedPause = 50 * time.Millisecond

// pause gives o back after a moment, unless a drain or Close does that before. It returns false
// if a drain or Close has begun already.
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

// Accept returns the next connection. If no Accept comes for an offered connection, that goes
// to another worker.
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

// SetDeadline bounds Accept. In a worker that drains, the queue gives back all offers and takes
// no more once t has passed. This is how a drain stops an Accept.
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

// stop makes the queue take no more. It returns the offers that have to be given back. q.mu is
// held.
func (q *handedQueue) stop() (refused []offer) {
	q.over = true
	refused = append(q.offers, q.paused...)
	q.offers, q.paused = nil, nil
	return refused
}

// giveBack refuses the offers that stop returned. It is called without the lock.
func (q *handedQueue) giveBack(refused []offer) {
	for _, o := range refused {
		q.asker.answer(o, false)
	}
}

// Close gives back the offers for which no Accept has come.
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

// Addr returns nil: the listener around this source knows the address.
func (q *handedQueue) Addr() net.Addr { return nil }

// Unsendable returns an error: the socket is the master's.
func (q *handedQueue) Unsendable() error { return errDispatched }

// SyscallConn fails: the socket is the master's.
func (q *handedQueue) SyscallConn() (syscall.RawConn, error) {
	return nil, fmt.Errorf("cluster: SyscallConn: %w", errs.NotSupported)
}
