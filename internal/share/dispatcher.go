package share

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// dispatcher accepts the connections of one address in the master and hands each to a free
// worker. After that the worker is not free until it has answered for the connection. So a
// worker that is stopped holds up at most one connection. The dispatcher accepts only while
// its policy has a worker for the next connection; the rest wait in the kernel. A worker that
// has said that it is full is offered nothing until it says that it has room.
//
// Answers come on the readers of the workers' channels, while accept waits on a goroutine of
// its own. A reader that frees a worker accepts the next connection for it at once, if one
// waits. It does so only if no other process has the socket (lent is false). Another process
// could clear O_NONBLOCK, and accept(2) would wait. So on a socket that is lent only the
// accepting goroutine calls accept(2), without the lock.
type dispatcher struct {
	head      []byte // of the line that carries a connection
	socks     []*socket.Acceptor
	lent      bool         // others have the sockets too
	closeConn func(fd int) // closes a connection, which a worker has or had too
	failed    func(error)  // is told why no connection can be accepted
	policy    policy

	mu      sync.Mutex
	changed sync.Cond
	seats   map[Member]*seat
	free    []*seat          // in the order in which they became free
	pending []*handle.Handle // accepted and not handed over
	flying  int              // handed over and not answered
	timer   *time.Timer      // looks again; nil if nobody has to
	closed  bool
	last    []*handle.Handle // after that: what is left for workers that take more
	pause   acceptPause
}

// seat is what a dispatcher knows of a worker.
type seat struct {
	member   Member
	left     bool // it gets no more
	full     bool // nor until it has room
	refusals int  // in a row

	offered time.Time // when it was offered what it has not answered for; or zero
	given   int64     // connections that it has taken here

	load  float64 // open connections, when the policy last looked
	tells bool    // it says itself how many those are
}

// handover is a connection on its way to a worker.
type handover struct {
	seat *seat
	conn *handle.Handle
}

// How long a worker that refuses a connection is left alone. Otherwise a lone worker that
// takes no more connections would be offered the same one in a loop.
const (
	refusalMin = 5 * time.Millisecond
	refusalMax = time.Second
)

// newDispatcher begins to accept on the sockets of an address, which stay the caller's. lent
// says that other processes have them too. closeConn closes connections; failed is called
// when accept fails.
func newDispatcher(key string, sockets []*handle.Handle, lent bool, p policy, closeConn func(fd int), failed func(error)) (*dispatcher, error) {
	d := &dispatcher{head: wire.AppendNewConn(nil, key), lent: lent, closeConn: closeConn, failed: failed, policy: p, seats: make(map[Member]*seat)}
	d.changed.L = &d.mu
	for _, h := range sockets {
		sock, err := socket.NewAcceptor(h, lent)
		if err != nil {
			d.close()
			return nil, err
		}
		d.socks = append(d.socks, sock)
	}
	d.beginAccepting()
	return d, nil
}

// closeConn returns the func that closes the connections that are accepted at addr. The kind
// of the socket tells what may wait: at a unix socket every close, at a TCP socket only the
// close of a connection that lingers.
func closeConn(c *handle.Closer, addr net.Addr) func(fd int) {
	if _, local := addr.(*net.UnixAddr); local {
		return c.Later
	}
	return c.CloseTCP
}

func (d *dispatcher) beginAccepting() {
	for _, sock := range d.socks {
		d.pause.accepting.Go(func() { d.accept(sock) })
	}
}

// accept is the accepting goroutine of a socket.
func (d *dispatcher) accept(sock *socket.Acceptor) {
	delay := time.Duration(0)
	for d.waitFree() {
		conn, err := sock.Accept(d.wants)
		if err == socket.ErrUnwanted {
			continue // a worker gave a connection back meanwhile, or another process took this one
		}
		if err != nil && d.pauses() {
			return
		}
		if err != nil {
			if delay = nextAcceptDelay(delay); !d.sleep(delay) {
				return
			}
			d.failed(err)
			continue
		}
		delay = 0
		conn.CloseBy(d.closeConn)
		d.mu.Lock()
		if d.closed {
			seats := slices.Collect(maps.Values(d.seats))
			d.flying += min(len(seats), 1)
			d.mu.Unlock()
			if len(seats) == 0 {
				conn.Release()
			} else { // it came together with the end
				d.handOver(handover{seats[0], conn})
			}
			return
		}
		d.pending = append(d.pending, conn)
		d.dispatch()
	}
}

// wants is hungry with the lock. The acceptor calls it.
func (d *dispatcher) wants() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed || d.hungry()
}

// nextAcceptDelay returns how long to wait after accept has failed, most likely because no
// descriptor is free: 5 ms, doubled up to 1 s, as in net/http.
func nextAcceptDelay(d time.Duration) time.Duration {
	return min(max(5*time.Millisecond, 2*d), time.Second)
}

// sleep waits for delay, or until close.
func (d *dispatcher) sleep(delay time.Duration) (open bool) {
	end := time.Now().Add(delay) // before the timer, which rings once
	timer := time.AfterFunc(delay, func() { broadcast(&d.changed) })
	defer timer.Stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.closed && !d.pause.held && time.Now().Before(end) {
		d.changed.Wait()
	}
	return !d.closed && !d.pause.held
}

// broadcast wakes all goroutines that wait for c. It takes c's lock: else a goroutine that has
// just looked at the time, and does not wait yet, would miss the call.
func broadcast(c *sync.Cond) {
	c.L.Lock()
	defer c.L.Unlock()
	c.Broadcast()
}

// waitFree waits until a worker is free and no connection waits for it.
func (d *dispatcher) waitFree() (open bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.closed && !d.pause.held && !d.hungry() {
		d.changed.Wait()
	}
	return !d.closed && !d.pause.held
}

// hungry reports whether there is a worker for the next connection and no connection
// waits for it. d.mu is held.
func (d *dispatcher) hungry() bool {
	if len(d.free) == 0 || len(d.pending) > 0 {
		return false
	}
	i, _ := d.policy.next(time.Now(), d.free, d.seats)
	return i >= 0
}

// dispatch hands over as many connections as it can. It is called with d.mu held, and unlocks
// it before it sends: a channel that is closed calls answered at once.
func (d *dispatcher) dispatch() {
	var out []handover
	for len(d.free) > 0 && !d.closed && !d.pause.frozen {
		now := time.Now()
		i, wait := d.policy.next(now, d.free, d.seats)
		if i < 0 {
			d.lookIn(wait)
			break
		}
		if len(d.pending) == 0 {
			conn := d.tryAccept()
			if conn == nil {
				d.changed.Broadcast()
				break
			}
			d.pending = append(d.pending, conn)
		}
		d.free[i].offered = now
		out = append(out, handover{d.free[i], d.pending[0]})
		d.free, d.pending = without(d.free, i), d.pending[1:]
		d.flying++
	}
	d.mu.Unlock()
	for _, o := range out {
		d.handOver(o)
	}
}

// lookIn makes a timer dispatch after wait, if nothing happens before. d.mu is held.
func (d *dispatcher) lookIn(wait time.Duration) {
	if wait <= 0 || d.timer != nil {
		return
	}
	d.timer = time.AfterFunc(wait, func() {
		d.mu.Lock()
		d.timer = nil
		d.dispatch()
	})
}

// tryAccept accepts a connection if one waits and accept(2) is certain not to wait.
// d.mu is held.
func (d *dispatcher) tryAccept() *handle.Handle {
	if d.lent || d.pause.held {
		return nil
	}
	for _, sock := range d.socks {
		if conn, ok := sock.TryAccept(); ok {
			return conn.CloseBy(d.closeConn)
		}
	}
	return nil
}

// without removes the i-th seat. That is nearly always the first, which costs no copy.
func without(free []*seat, i int) []*seat {
	if i == 0 {
		return free[1:]
	}
	return slices.Delete(free, i, i+1)
}

// handOver sends the connection to the worker.
func (d *dispatcher) handOver(o handover) {
	seq := *wire.NextSeq()
	line := make([]byte, 0, len(d.head)+24)
	line = strconv.AppendInt(append(line, d.head...), seq, 10)
	o.seat.member.AskHandleLine(append(line, wire.CloseNewConn...), seq, o.conn.Retain(), func(w *wire.Message, h *handle.Handle) {
		h.Release()
		d.answered(o, w)
	})
}

// answered is called when the worker has taken or refused the connection, or, with a nil w,
// has died with it. Only then another worker is offered the connection: as long as the first
// one lives it may serve it.
//
// A dead worker may have begun to serve the connection without telling the master. Then the
// connection is closed: its request is gone, and the client would wait for ever for an answer.
func (d *dispatcher) answered(o handover, w *wire.Message) {
	if w == nil {
		// settle may wait, for as long as another process likes. The caller must not: it
		// has the worker's death to report.
		go d.settle(o, nil)
		return
	}
	d.settle(o, w)
}

// settle is the part of answered that may wait.
func (d *dispatcher) settle(o handover, w *wire.Message) {
	accepted := w != nil && w.Accepted != nil && *w.Accepted
	lost := w == nil && o.conn.Touched()
	if accepted || lost {
		o.conn.Release()
	}
	if accepted {
		o.seat.member.Took()
	}
	full := w != nil && w.Full
	d.mu.Lock()
	o.seat.offered = time.Time{}
	d.flying--
	if d.closed {
		if !accepted && !lost {
			o.conn.Release()
		}
		d.goOn(o.seat, accepted)
		return
	}
	switch {
	case accepted:
		o.seat.refusals = 0
		o.seat.given++
		if o.seat.full = full; !full && !o.seat.left {
			d.free = append(d.free, o.seat)
		}
	case lost:
	default:
		d.pending = slices.Insert(d.pending, 0, o.conn)
		if o.seat.full = full; w != nil && !full { // a dead worker is not put back into the rotation
			d.rest(o.seat)
		}
	}
	d.dispatch()
}

// rest leaves a worker alone that has refused a connection: longer each time that it refuses
// again. d.mu is held.
func (d *dispatcher) rest(s *seat) {
	s.refusals++
	pause := min(refusalMin<<min(s.refusals-1, 10), refusalMax)
	time.AfterFunc(pause, func() { d.again(s) })
}

// again puts a worker back into the rotation after a refusal.
func (d *dispatcher) again(s *seat) {
	d.mu.Lock()
	if !s.left && !d.closed {
		d.free = append(d.free, s)
	}
	d.dispatch()
}

// hasRoom puts a worker that was full back into the rotation.
func (d *dispatcher) hasRoom(m Member) {
	d.mu.Lock()
	if s := d.seats[m]; s != nil && s.full {
		s.full = false
		d.free = append(d.free, s)
	}
	d.dispatch()
}

// add gives m a seat.
func (d *dispatcher) add(m Member) {
	d.mu.Lock()
	if d.seats[m] != nil || d.closed {
		d.mu.Unlock()
		return
	}
	s := &seat{member: m, given: headStart(d.seats)}
	d.seats[m] = s
	d.free = append(d.free, s)
	d.dispatch()
}

// remove takes m's seat away. A connection on its way to m still belongs to m, until m answers
// or its channel closes.
func (d *dispatcher) remove(m Member) {
	d.mu.Lock()
	if s := d.seats[m]; s != nil {
		s.left = true
		delete(d.seats, m)
		d.free = slices.DeleteFunc(d.free, func(f *seat) bool { return f == s })
	}
	d.dispatch() // the policy may have waited for this worker
}

// maxLast bounds how many connections a worker is handed at once at the end of the address. A
// worker takes more than that at a time.
const maxLast = maxOffers / 2

// handOut hands over the connections that wait, at the end of the address, to all workers in
// turn. Workers that have not answered for their last connection are among these, and full
// ones only if all are full. If there are more connections than the workers take at a time,
// the rest follows as they answer. queued says that the connections in the sockets' queues
// are handed over too; those of a socket that is lent stay for the processes that have it.
func (d *dispatcher) handOut(queued bool) {
	d.mu.Lock()
	seats := slices.Collect(maps.Values(d.seats))
	if room := slices.DeleteFunc(slices.Clone(seats), func(s *seat) bool { return s.full }); len(room) > 0 {
		seats = room
	}
	waiting := d.pending
	d.pending, d.free, d.closed = nil, nil, true
	for budget := socket.Budget(); queued && len(seats) > 0; {
		conn := d.tryAccept()
		if conn == nil {
			break
		}
		waiting = append(waiting, conn)
		if conn.FD() >= budget {
			break
		}
	}
	now := waiting[:min(len(waiting), maxLast*len(seats))]
	d.last = waiting[len(now):]
	d.flying += len(now)
	var refused []*handle.Handle
	if len(seats) == 0 {
		refused, d.last = d.last, nil
	}
	d.mu.Unlock()
	for i, conn := range now {
		d.handOver(handover{seats[i%len(seats)], conn})
	}
	releaseAll(refused)
}

// goOn is called after the end, when a worker has answered. If the worker took its connection,
// it gets another one of those that are left. When no worker can be expected to take more,
// they are closed. goOn is called with d.mu held, and unlocks it.
func (d *dispatcher) goOn(s *seat, took bool) {
	var next *handle.Handle
	var refused []*handle.Handle
	switch {
	case took && !s.left && len(d.last) > 0:
		next, d.last = d.last[0], d.last[1:]
		d.flying++
	case d.flying == 0:
		refused, d.last = d.last, nil
	}
	d.mu.Unlock()
	if next != nil {
		d.handOver(handover{s, next})
	}
	releaseAll(refused)
}

func releaseAll(conns []*handle.Handle) {
	for _, conn := range conns {
		conn.Release()
	}
}

// close ends the accepting and closes what was not handed over.
func (d *dispatcher) close() {
	d.mu.Lock()
	d.closed = true
	pending := d.pending
	d.pending, d.free = nil, nil
	if d.timer != nil {
		d.timer.Stop()
	}
	d.changed.Broadcast()
	d.mu.Unlock()
	releaseAll(pending)
	for _, sock := range d.socks {
		if d.lent { // an accept under way may have to be waited for
			go sock.Close()
		} else {
			sock.Close()
		}
	}
}
