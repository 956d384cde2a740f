package cluster

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// roundRobin accepts the connections of one address in the master and hands
// each to the next free worker, as node's SCHED_RR: a worker that has one it
// has not answered for gets no other, so a stopped one holds at most one.
// Connections are accepted only while a worker is free; the rest wait in the
// kernel. It has a lock of its own, since the readers answer while it accepts:
// who frees a worker takes the next connection for it, and only if none waits
// the accepting goroutine waits for one.
type roundRobin struct {
	head []byte // of the line that carries a connection
	sock *socket.Acceptor

	mu      sync.Mutex
	changed sync.Cond
	workers map[*Process]*turn
	free    []*turn          // in the order in which they became free
	pending []*handle.Handle // accepted and not handed over
	closed  bool
}

// turn is a worker in the rotation.
type turn struct {
	p        *Process
	out      bool // left the rotation
	refusals int  // in a row
}

// handover is a connection on its way to a worker.
type handover struct {
	t    *turn
	conn *handle.Handle
}

// How long a worker that refuses is left alone: without it, a lone worker at
// its limit of connections would be offered the same one in a loop.
const (
	refusalMin = 5 * time.Millisecond
	refusalMax = time.Second
)

// newRoundRobin begins to accept on h, of which it keeps a reference.
func newRoundRobin(key string, h *handle.Handle) (*roundRobin, error) {
	sock, err := socket.NewAcceptor(h)
	if err != nil {
		return nil, err
	}
	r := &roundRobin{head: wire.AppendNewConn(nil, key), sock: sock, workers: make(map[*Process]*turn)}
	r.changed.L = &r.mu
	go r.accept()
	return r, nil
}

// accept is the accepting goroutine.
func (r *roundRobin) accept() {
	delay := time.Duration(0)
	for r.waitFree() {
		conn, err := r.sock.Accept(r.wants)
		if err == socket.ErrUnwanted {
			continue // somebody gave a connection back, or freed a worker, faster
		}
		if err != nil {
			if delay = nextAcceptDelay(delay); !r.sleep(delay) {
				return
			}
			continue
		}
		delay = 0
		r.mu.Lock()
		if r.closed {
			r.mu.Unlock()
			conn.Release()
			return
		}
		r.pending = append(r.pending, conn)
		r.dispatch()
	}
}

// wants is hungry, for the acceptor.
func (r *roundRobin) wants() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed || r.hungry()
}

// nextAcceptDelay is how long to wait after accept failed, for want of
// descriptors most likely: 5 ms, doubled up to 1 s, as net/http does.
func nextAcceptDelay(d time.Duration) time.Duration {
	return min(max(5*time.Millisecond, 2*d), time.Second)
}

// sleep waits, unless the queue is closed meanwhile.
func (r *roundRobin) sleep(d time.Duration) (open bool) {
	end := time.Now().Add(d) // before the timer, which rings once
	timer := time.AfterFunc(d, func() { broadcast(&r.changed) })
	defer timer.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.closed && time.Now().Before(end) {
		r.changed.Wait()
	}
	return !r.closed
}

// broadcast wakes who waits for c, under its lock: who has looked at the time and
// does not wait yet would miss it.
func broadcast(c *sync.Cond) {
	c.L.Lock()
	defer c.L.Unlock()
	c.Broadcast()
}

// waitFree waits until a worker is free and no connection waits for it.
func (r *roundRobin) waitFree() (open bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.closed && !r.hungry() {
		r.changed.Wait()
	}
	return !r.closed
}

// hungry reports whether a worker is free and no connection waits for it. r.mu
// is held.
func (r *roundRobin) hungry() bool { return len(r.free) > 0 && len(r.pending) == 0 }

// dispatch hands over what it can. It is called with the lock and gives it up:
// a link that is closed answers at once.
func (r *roundRobin) dispatch() {
	var out []handover
	for len(r.free) > 0 && !r.closed {
		if len(r.pending) == 0 {
			conn, ok := r.sock.TryAccept()
			if !ok {
				r.changed.Signal()
				break
			}
			r.pending = append(r.pending, conn)
		}
		out = append(out, handover{r.free[0], r.pending[0]})
		r.free, r.pending = r.free[1:], r.pending[1:]
	}
	r.mu.Unlock()
	for _, o := range out {
		r.handOver(o)
	}
}

// handOver sends the connection to the worker.
func (r *roundRobin) handOver(o handover) {
	seq := *wire.NextSeq()
	line := make([]byte, 0, len(r.head)+24)
	line = strconv.AppendInt(append(line, r.head...), seq, 10)
	o.t.p.link.askHandleLine(append(line, wire.CloseNewConn...), seq, o.conn.Retain(), func(m *wire.Message, h *handle.Handle) {
		h.Release()
		r.answered(o, m)
	})
}

// answered is called when the worker took or refused the connection, or (nil)
// died with it. Only then is it offered to another: while the worker lives it
// may yet serve it. One that the dead worker had begun to serve, though its word
// for that never came out of its queue, is closed: the client of a request that
// is gone would wait for ever.
func (r *roundRobin) answered(o handover, m *wire.Message) {
	r.mu.Lock()
	switch {
	case m != nil && m.Accepted != nil && *m.Accepted:
		o.conn.Release()
		o.t.refusals = 0
		if p := o.t.p; p.child != nil {
			p.child.m.counted(p, int(p.child.handed.Add(1)))
		}
		if !o.t.out {
			r.free = append(r.free, o.t)
		}
	case r.closed, m == nil && o.conn.Touched():
		o.conn.Release()
	default:
		r.pending = append([]*handle.Handle{o.conn}, r.pending...)
		if m == nil {
			break // nothing puts it back into the rotation
		}
		o.t.refusals++
		pause := min(refusalMin<<min(o.t.refusals-1, 10), refusalMax)
		time.AfterFunc(pause, func() { r.again(o.t) })
	}
	r.dispatch()
}

// again puts a worker back into the rotation after a refusal.
func (r *roundRobin) again(t *turn) {
	r.mu.Lock()
	if !t.out && !r.closed {
		r.free = append(r.free, t)
	}
	r.dispatch()
}

// add lets p take its turns.
func (r *roundRobin) add(p *Process) {
	r.mu.Lock()
	if r.workers[p] != nil || r.closed {
		r.mu.Unlock()
		return
	}
	t := &turn{p: p}
	r.workers[p] = t
	r.free = append(r.free, t)
	r.dispatch()
}

// remove takes p out of the rotation. A connection on its way to it is its own
// until it answers or its channel closes.
func (r *roundRobin) remove(p *Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.workers[p]
	if t == nil {
		return
	}
	t.out = true
	delete(r.workers, p)
	r.free = slices.DeleteFunc(r.free, func(f *turn) bool { return f == t })
}

// close ends the accepting and closes what was not handed over.
func (r *roundRobin) close() {
	r.mu.Lock()
	r.closed = true
	for _, h := range r.pending {
		h.Release()
	}
	r.pending, r.free = nil, nil
	r.changed.Broadcast()
	r.mu.Unlock()
	r.sock.Close()
}
