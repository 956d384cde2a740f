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

	foreign atomic.Bool // its server, of Serve, is no *http.Server
	tells   atomic.Bool // its server is one of ServeFunc: its connections say goodbye
	over    atomic.Bool // and has shut down

	once   sync.Once // closes
	closed chan struct{}
}

// Listener wraps source, whose address is given as addr. keepAlive, if enabled,
// is set on every connection. release is called when the listener is closed.
func (t *Tracker) Listener(source Source, addr net.Addr, keepAlive net.KeepAliveConfig, release func()) *Listener {
	l := &Listener{tracker: t, source: source, addr: addr, keepAlive: keepAlive, release: release, asks: t.asks, closed: make(chan struct{})}
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
		err = l.source.Close()
		if l.tracker.Draining() && errors.Is(err, net.ErrClosed) {
			err = nil // the drain was first
		}
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
	l.source.SetDeadline(past)
	l.source.Close()
}

// past is a deadline that ends what is under way.
var past = time.Unix(1, 0)

// SetDeadline bounds Accept, as in package net.
func (l *Listener) SetDeadline(t time.Time) error {
	if l.tracker.Draining() {
		return nil
	}
	err := l.source.SetDeadline(t)
	if l.tracker.Draining() { // it has begun meanwhile
		l.stop()
	}
	return err
}

// SyscallConn gives access to this worker's descriptor of the socket.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return l.source.SyscallConn() }

// Accept returns the next connection. In a drain it waits until the listener is
// closed.
func (l *Listener) Accept() (net.Conn, error) {
	if !l.tracker.beginAccept() {
		<-l.closed
		return nil, l.errClosed("accept")
	}
	l.asks()
	raw, err := l.source.Accept()
	if err != nil {
		l.tracker.endAccept(nil)
		if l.tracker.Draining() && (isTimeout(err) || errors.Is(err, net.ErrClosed)) {
			<-l.closed
			return nil, l.errClosed("accept")
		}
		return nil, err
	}
	l.setKeepAlive(raw)
	wrapped, c := l.tracker.track(l, raw)
	l.tracker.endAccept(c)
	return wrapped, nil
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
