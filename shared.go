package cluster

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// listener is a worker's listener, whatever its connections come from: the
// shared socket, the master, or a socket of its own. Accept waits during a
// drain, since its error would end most programs.
type listener struct {
	in        *inside
	t         target
	source    net.Listener
	addr      net.Addr
	keepAlive net.KeepAliveConfig
	release   func()

	foreign atomic.Bool // its server, of Serve, is no *http.Server
	over    atomic.Bool // and has shut down

	once   sync.Once
	closed chan struct{}
}

// cuttable reports whether its idle connections may be closed by a drain: not
// if a server that knows what they are does that itself.
func (l *listener) cuttable() bool { return !l.foreign.Load() }

func (in *inside) newListener(t target, source net.Listener, keepAlive net.KeepAliveConfig, addr net.Addr, release func()) *listener {
	l := &listener{in: in, t: t, source: source, addr: addr, keepAlive: keepAlive, release: release, closed: make(chan struct{})}
	in.enter(l)
	in.opened(t, addr)
	return l
}

// enter registers s to be stopped by a drain, which may have begun.
func (in *inside) enter(s stopper) {
	in.mu.Lock()
	in.stoppers[s] = struct{}{}
	in.mu.Unlock()
	if in.draining() {
		s.stop()
	}
}

func (in *inside) leave(s stopper) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.stoppers, s)
}

func (l *listener) Addr() net.Addr { return l.addr }

// Close closes this worker's share of the address; other workers and the
// master keep theirs.
func (l *listener) Close() error {
	err := error(&net.OpError{Op: "close", Net: l.addr.Network(), Addr: l.addr, Err: net.ErrClosed})
	l.once.Do(func() {
		close(l.closed)
		l.in.leave(l)
		err = l.source.Close()
		l.release()
	})
	return err
}

// stop interrupts an Accept under way, which then waits. The deadline is this
// process's own; the socket stays open, and its queue is not lost.
func (l *listener) stop() {
	l.source.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Unix(1, 0))
}

// SetDeadline bounds Accept, as in package net.
func (l *listener) SetDeadline(t time.Time) error {
	if l.in.draining() {
		return nil
	}
	err := l.source.(interface{ SetDeadline(time.Time) error }).SetDeadline(t)
	if l.in.draining() {
		l.stop()
	}
	return err
}

// SyscallConn gives access to this worker's descriptor of the socket.
func (l *listener) SyscallConn() (syscall.RawConn, error) {
	if c, ok := l.source.(syscall.Conn); ok {
		return c.SyscallConn()
	}
	return nil, callError("SyscallConn", ErrNotSupported)
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		if !l.in.beginAccept() {
			<-l.closed
			return nil, &net.OpError{Op: "accept", Net: l.addr.Network(), Addr: l.addr, Err: net.ErrClosed}
		}
		c, err := l.source.Accept()
		if err != nil {
			l.endAccept(nil)
			if l.in.draining() && isTimeout(err) {
				continue
			}
			return nil, err
		}
		if l.keepAlive.Enable {
			if tcp, ok := c.(*net.TCPConn); ok {
				tcp.SetKeepAliveConfig(l.keepAlive)
			}
		}
		return l.endAccept(c), nil
	}
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}

// beginAccept notes that a connection may come, unless a drain has begun. A
// connection that accept(2) has returned and no server knows yet is in nobody's
// list but this count.
func (in *inside) beginAccept() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.draining() {
		return false
	}
	in.accepting++
	return true
}

// endAccept notes how that ended: c, unless nil, is in flight until it is closed.
func (l *listener) endAccept(c net.Conn) net.Conn {
	in := l.in
	in.mu.Lock()
	defer in.mu.Unlock()
	in.accepting--
	if c == nil {
		return nil
	}
	tracked, t := l.trackConn(c)
	in.conns[t] = struct{}{}
	in.accepted++
	if in.accepted == int64(in.hello.Connections) {
		in.p.link.orderOurs(actFull)
	}
	return tracked
}

// robin takes the connections of one address that the master accepts.
type robin struct {
	in  *inside
	key string

	mu      sync.Mutex
	changed sync.Cond
	offers  []offer
	over    bool // takes no more: draining or closed
	closed  bool
	waiter  *time.Timer // of SetDeadline
	limit   time.Time
}

// offer is a connection that the master wants to know the fate of.
type offer struct {
	seq *int64
	h   *handle
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
func (in *inside) offered(w *wire, h *handle) {
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
		o.h.release()
	}
	in.p.link.answer((&wire{Cmd: cmdCluster, Ack: o.seq, Accepted: &accepted, Seq: nextSeq()}).line())
}

func (r *robin) take(o offer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over || len(r.offers) >= maxOffers {
		return false
	}
	r.offers = append(r.offers, o)
	r.changed.Signal()
	return true
}

// Accept returns the next connection. Only now is it accepted: one that was
// offered and never came here goes to another worker.
func (r *robin) Accept() (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		switch {
		case r.closed:
			return nil, net.ErrClosed
		case !r.limit.IsZero() && !time.Now().Before(r.limit):
			return nil, errTimeout
		case len(r.offers) > 0:
			o := r.offers[0]
			r.offers = r.offers[1:]
			c, err := connOf(o.h)
			if err != nil { // reset meanwhile
				r.in.answerOffer(o, true)
				o.h.release()
				continue
			}
			r.in.answerOffer(o, true)
			o.h.release()
			return c, nil
		}
		r.changed.Wait()
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
	r.limit = t
	if !t.IsZero() {
		r.waiter = time.AfterFunc(time.Until(t), r.changed.Broadcast)
	}
	if r.in.draining() {
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

// packetConn is a worker's datagram socket. Its reads wait during a drain;
// writes still work, so that what was read can be answered.
type packetConn struct {
	net.PacketConn
	in      *inside
	addr    net.Addr
	release func()

	once   sync.Once
	closed chan struct{}
}

func (in *inside) newPacketConn(t target, c net.PacketConn, release func()) net.PacketConn {
	p := &packetConn{PacketConn: c, in: in, addr: t.addr(c.LocalAddr()), release: release, closed: make(chan struct{})}
	in.enter(p)
	in.opened(t, p.addr)
	return p
}

func (c *packetConn) LocalAddr() net.Addr { return c.addr }

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		if c.in.draining() {
			<-c.closed
			return 0, nil, &net.OpError{Op: "read", Net: c.addr.Network(), Addr: c.addr, Err: net.ErrClosed}
		}
		n, from, err := c.PacketConn.ReadFrom(b)
		if err != nil && c.in.draining() && isTimeout(err) {
			continue
		}
		return n, from, err
	}
}

func (c *packetConn) Close() error {
	err := error(&net.OpError{Op: "close", Net: c.addr.Network(), Addr: c.addr, Err: net.ErrClosed})
	c.once.Do(func() {
		close(c.closed)
		c.in.leave(c)
		err = c.PacketConn.Close()
		c.release()
	})
	return err
}

// stop interrupts a read under way. A plain SetDeadline would stop writes too.
func (c *packetConn) stop() { c.PacketConn.SetReadDeadline(time.Unix(1, 0)) }

func (c *packetConn) SetReadDeadline(t time.Time) error {
	err := c.PacketConn.SetReadDeadline(t)
	if c.in.draining() {
		c.stop()
	}
	return err
}

func (c *packetConn) SetDeadline(t time.Time) error {
	if err := c.PacketConn.SetWriteDeadline(t); err != nil {
		return err
	}
	return c.SetReadDeadline(t)
}

// SyscallConn, SetReadBuffer and SetWriteBuffer are what protocols over UDP
// look for.
func (c *packetConn) SyscallConn() (syscall.RawConn, error) {
	return c.PacketConn.(syscall.Conn).SyscallConn()
}

func (c *packetConn) SetReadBuffer(bytes int) error {
	return c.PacketConn.(interface{ SetReadBuffer(int) error }).SetReadBuffer(bytes)
}

func (c *packetConn) SetWriteBuffer(bytes int) error {
	return c.PacketConn.(interface{ SetWriteBuffer(int) error }).SetWriteBuffer(bytes)
}

// stopAll stops whatever takes on work.
func (in *inside) stopAll() {
	in.mu.Lock()
	var all []stopper
	for s := range in.stoppers {
		all = append(all, s)
	}
	in.mu.Unlock()
	for _, s := range all {
		s.stop()
	}
}

// openKeys are the master's names of what this worker listens on.
func (in *inside) openKeys() (keys []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for k := range in.keys {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
