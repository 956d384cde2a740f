package cluster

import (
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// robin takes the connections of one address that the master accepts.
type robin struct {
	in  *inside
	key string

	mu      sync.Mutex
	changed sync.Cond
	offers  []offer
	taken   []*handle.Handle // offers that an Accept under way has as good as taken
	waiting int              // Accept calls that wait
	over    bool             // takes no more: draining or closed
	closed  bool
	waiter  *time.Timer // of SetDeadline
	limit   time.Time
}

// offer is a connection that the master wants to know the fate of.
type offer struct {
	seq *int64
	h   *handle.Handle
}

// maxOffers bounds what a primary can pile up here; an honest one has a single
// connection unanswered.
const maxOffers = 64

func (in *inside) newRobin(key string) *robin {
	r := &robin{in: in, key: key}
	r.changed.L = &r.mu
	in.mu.Lock()
	in.robins[key] = r
	in.mu.Unlock()
	return r
}

// offered is called by the reader with a connection from the master.
func (in *inside) offered(w *wire.Message, h *handle.Handle) {
	in.mu.Lock()
	r := in.robins[w.Key]
	in.mu.Unlock()
	if h == nil {
		return // answered with a NACK
	}
	o := offer{w.Seq, h}
	if r == nil || !r.take(o) {
		in.answerOffer(o, false)
	}
}

// answerOffer tells the master whether this worker serves the connection. The
// descriptor of one that it does not is closed before the master hears of it.
func (in *inside) answerOffer(o offer, accepted bool) {
	if !accepted {
		o.h.Release()
	}
	in.p.link.answer(wire.AcceptedLine(o.seq, accepted))
}

func (r *robin) take(o offer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over || len(r.offers) >= maxOffers {
		return false
	}
	r.changed.Signal()
	if r.waiting > len(r.taken) {
		// An Accept waits for it, which nothing but this connection can end now.
		// Told at once, with the acknowledgement: the next one comes the sooner.
		r.taken = append(r.taken, o.h)
		r.in.answerOffer(o, true)
		return true
	}
	r.offers = append(r.offers, o)
	return true
}

// Accept returns the next connection. Only now is it accepted: one that was
// offered and never came here goes to another worker.
func (r *robin) Accept() (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if len(r.taken) > 0 {
			h := r.taken[0]
			r.taken = r.taken[1:]
			if c, err := socket.NewConn(h); err == nil {
				return c, nil
			}
			continue // reset meanwhile
		}
		switch {
		case r.closed:
			return nil, net.ErrClosed
		case !r.limit.IsZero() && !time.Now().Before(r.limit):
			return nil, errTimeout
		case len(r.offers) > 0:
			o := r.offers[0]
			r.offers = r.offers[1:]
			r.taken = append(r.taken, o.h)
			r.in.answerOffer(o, true)
			continue
		}
		r.waiting++
		r.changed.Wait()
		r.waiting--
	}
}

// errTimeout is what Accept returns past its deadline.
var errTimeout net.Error = timeoutError{}

type timeoutError struct{}

func (timeoutError) Error() string   { return "i/o timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

// SetDeadline bounds Accept. Past it nothing is taken, and what is offered is
// refused: that is how a drain stops it.
func (r *robin) SetDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiter != nil {
		r.waiter.Stop()
	}
	r.limit = time.Time{}
	if !t.IsZero() {
		d := time.Until(t)
		r.limit = time.Now().Add(d) // by the clock of the timer, which rings once
		r.waiter = time.AfterFunc(d, func() { broadcast(&r.changed) })
	}
	if r.in.drain.Draining() {
		r.refuse()
	}
	r.changed.Broadcast()
	return nil
}

// refuse gives back what was offered and takes no more. r.mu is held.
func (r *robin) refuse() {
	r.over = true
	for _, o := range r.offers {
		r.in.answerOffer(o, false)
	}
	r.offers = nil
}

func (r *robin) Close() error {
	r.in.mu.Lock()
	delete(r.in.robins, r.key)
	r.in.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.refuse()
	r.changed.Broadcast()
	return nil
}

func (r *robin) Addr() net.Addr { return nil }

// SyscallConn fails: the socket is the master's.
func (r *robin) SyscallConn() (syscall.RawConn, error) {
	return nil, callError("SyscallConn", ErrNotSupported)
}
