package drain

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Source is what a Listener takes its connections from: the shared socket, the
// master, or a socket of this worker's own. A deadline that has passed makes
// Accept end with a timeout.
type Source interface {
	net.Listener
	syscall.Conn
	SetDeadline(time.Time) error
}

// Listener is a worker's listener: its connections are tracked, and Accept waits
// during a drain, since its error would end most programs.
type Listener struct {
	tracker   *Tracker
	source    Source
	addr      net.Addr
	keepAlive net.KeepAliveConfig
	release   func()
	asks      func() // the program asks for a connection

	foreign atomic.Bool // it is served by Serve, with something else than an *http.Server
	tells   atomic.Bool // it is served by ServeFunc: its connections say goodbye
	over    atomic.Bool // its server has shut down

	once   sync.Once // closes
	closed chan struct{}

	reserves bool // its source asks for a place itself
	calls    calls

	mu          sync.Mutex
	limit       time.Time   // of SetDeadline
	interrupted atomic.Bool // changed with mu: the worker is full, and so the source has a deadline in the past
	timer       *time.Timer // of SetDeadline, for timeUp
}

// Reserver is a Source that takes a place (Tracker.Reserve) for each connection that it
// is about to return.
type Reserver interface{ Reserves() }

// Listener wraps source, whose address is given as addr. keepAlive, if enabled,
// is set on every connection. release is called when the listener is closed.
func (t *Tracker) Listener(source Source, addr net.Addr, keepAlive net.KeepAliveConfig, release func()) *Listener {
	l := &Listener{tracker: t, source: source, addr: addr, keepAlive: keepAlive, release: release, asks: t.asks, closed: make(chan struct{})}
	_, l.reserves = source.(Reserver)
	t.enter(l)
	return l
}

// Addr returns the address that was given for it.
func (l *Listener) Addr() net.Addr { return l.addr }

// Close closes this worker's share of the address; other workers and the
// master keep theirs.
func (l *Listener) Close() error {
	err := l.errClosed("close")
	l.once.Do(func() {
		close(l.closed)
		l.tracker.leave(l)
		err = l.free()
		if l.tracker.Draining() && errors.Is(err, net.ErrClosed) {
			err = nil // the drain was first
		}
		l.tracker.lookAgain()
		l.release()
	})
	return err
}

func (l *Listener) errClosed(op string) error {
	return &net.OpError{Op: op, Net: l.addr.Network(), Addr: l.addr, Err: net.ErrClosed}
}

// stop interrupts an Accept under way, which then waits, and closes this process's
// descriptor of the socket. While others have the socket its queue is not lost; when
// the last one has closed it, clients are refused.
func (l *Listener) stop() {
	l.free()
}

// free closes this process's descriptor, also while an Accept waits in the kernel.
func (l *Listener) free() error {
	l.source.SetDeadline(past)
	l.calls.rouse(l.source)
	return l.source.Close()
}

// past is a deadline that ends what is under way.
var past = time.Unix(1, 0)

// SetDeadline bounds Accept, as in package net.
func (l *Listener) SetDeadline(t time.Time) error {
	if l.tracker.Draining() {
		return nil
	}
	err := l.setLimit(t)
	if l.tracker.Draining() { // it has begun meanwhile
		l.stop()
	}
	l.tracker.lookAgain()
	return err
}

// setLimit is SetDeadline without a drain.
func (l *Listener) setLimit(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = t
	if l.timer != nil {
		l.timer.Stop()
	}
	if !t.IsZero() {
		l.timer = time.AfterFunc(time.Until(t), l.timeUp)
	}
	if l.interrupted.Load() {
		return nil // the next Accept sets it
	}
	return l.source.SetDeadline(t)
}

// timeUp ends the Accept calls that the deadline of the source does not end: those that
// wait for room, and those that wait in the kernel.
func (l *Listener) timeUp() {
	l.tracker.lookAgain()
	l.calls.rouseLate(l.source)
}

// ended reports whether an Accept returns at once: the listener is closed, or its
// deadline has passed.
func (l *Listener) ended() bool { return l.isClosed() || l.expired() }

func (l *Listener) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// expired reports whether the application's deadline has passed.
func (l *Listener) expired() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.limit.IsZero() && !time.Now().Before(l.limit)
}

// interrupt ends an Accept under way, as the worker is full.
func (l *Listener) interrupt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.tracker.Draining() {
		l.interrupted.Store(true)
		l.source.SetDeadline(past)
		l.calls.rouseLate(l.source)
	}
}

// resume undoes interrupt, and reports whether there was one.
func (l *Listener) resume() bool {
	if !l.interrupted.Load() {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.interrupted.Swap(false) {
		return false
	}
	if !l.tracker.Draining() {
		l.source.SetDeadline(l.limit)
	}
	return true
}

// wasInterrupted reports whether an Accept has timed out only because the worker is full.
func (l *Listener) wasInterrupted() bool {
	return l.interrupted.Load() && !l.expired()
}

// SyscallConn gives access to this worker's descriptor of the socket.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return l.source.SyscallConn() }

// Unsendable returns why another process cannot have the listener, or nil if it can.
func (l *Listener) Unsendable() error { return unsendable(l.source) }

// unsendable asks a source. A source without the method has one socket, which is this worker's.
func unsendable(source any) error {
	if s, ok := source.(interface{ Unsendable() error }); ok {
		return s.Unsendable()
	}
	return nil
}

// Accept returns the next connection. In a drain it waits until the listener is
// closed, and in a worker that has as many connections as it may until one is.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		if !l.tracker.beginAccept(l) {
			<-l.closed
			return nil, l.errClosed("accept")
		}
		l.asks()
		// This Accept may have begun after the worker filled up and interrupted the others.
		if l.resume() && l.tracker.Full() && !l.ended() {
			l.tracker.endAccept(l, nil)
			continue
		}
		n := l.calls.begin()
		raw, err := l.source.Accept()
		l.calls.end(n)
		if err == nil {
			l.setKeepAlive(raw)
			wrapped, c := l.tracker.track(l, raw)
			l.tracker.endAccept(l, c)
			return wrapped, nil
		}
		l.tracker.endAccept(l, nil)
		if isTimeout(err) && l.isClosed() {
			return nil, l.errClosed("accept") // the deadline was that of free
		}
		if l.tracker.Draining() && (isTimeout(err) || errors.Is(err, net.ErrClosed)) {
			if isTimeout(err) && l.tracker.lastCall.Load() && l.wasInterrupted() {
				continue
			}
			<-l.closed
			return nil, l.errClosed("accept")
		}
		if !isTimeout(err) || !l.wasInterrupted() {
			return nil, err
		}
	}
}

func (l *Listener) setKeepAlive(c net.Conn) {
	if !l.keepAlive.Enable {
		return
	}
	if tcp, ok := c.(interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	}); ok {
		tcp.SetKeepAliveConfig(l.keepAlive)
	}
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}
