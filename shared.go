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
			if tcp, ok := c.(interface {
				SetKeepAliveConfig(net.KeepAliveConfig) error
			}); ok {
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
