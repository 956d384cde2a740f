package share

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// unixSource is a worker's share of a unix socket. Every process that has the socket can shut
// it down. Then it never listens again, and an Accept waits for ever. So the master opens
// another socket and tells the workers. Each worker asks for that one, while its Accept goes
// on.
type unixSource struct {
	grant *Grant
	ctx   context.Context // until Close
	end   context.CancelFunc

	mu      sync.Mutex
	changed sync.Cond
	ln      *net.UnixListener // nil while the master is asked
	closed  bool
	limit   time.Time
	timer   *time.Timer // of SetDeadline
}

func (a *Asker) newUnixSource(g *Grant, ln *net.UnixListener) *unixSource {
	s := &unixSource{grant: g, ln: ln}
	s.ctx, s.end = context.WithCancel(context.Background())
	s.changed.L = &s.mu
	a.mu.Lock()
	a.unix[g.key] = s
	a.mu.Unlock()
	return s
}

// Again is called by the reader when the socket of an address is useless.
func (a *Asker) Again(w *wire.Message) {
	a.mu.Lock()
	s := a.unix[w.Key]
	a.mu.Unlock()
	if s != nil {
		s.again()
	}
}

// again gives up the socket and asks for another one. If its name is abstract, the master can
// open another one only when all processes have given this one up.
func (s *unixSource) again() {
	s.mu.Lock()
	old := s.ln
	s.ln = nil
	s.mu.Unlock()
	if old != nil { // nil if the master is being asked already, or after Close
		go func() {
			old.Close()
			s.ask()
		}()
	}
}

const (
	againMin = 50 * time.Millisecond
	againMax = 5 * time.Second
)

func (s *unixSource) ask() {
	for delay := againMin; s.ctx.Err() == nil; delay = min(2*delay, againMax) {
		if g, err := s.grant.asker.ask(s.ctx, s.grant.Query, func() {}); err == nil {
			ln, err := socket.NewListener(g.h)
			g.h.Release()
			if err == nil && s.set(ln.(*net.UnixListener)) {
				return
			}
			g.asker.close(g.key)
		}
		select {
		case <-s.ctx.Done():
		case <-time.After(delay):
		}
	}
}

// set goes on with the socket ln. After Close it closes ln and returns false.
func (s *unixSource) set(ln *net.UnixListener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		ln.Close()
		return false
	}
	s.ln = ln
	ln.SetDeadline(s.limit)
	s.changed.Broadcast()
	return true
}

// Accept returns the next connection of this socket, or of the one that takes its place.
func (s *unixSource) Accept() (net.Conn, error) {
	for {
		ln, err := s.current()
		if err != nil {
			return nil, err
		}
		c, err := ln.Accept()
		if err == nil || !s.replaces(ln) {
			return c, err
		}
	}
}

// current waits for a socket.
func (s *unixSource) current() (*net.UnixListener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.closed:
			return nil, net.ErrClosed
		case s.ln != nil:
			return s.ln, nil
		case !s.limit.IsZero() && !time.Now().Before(s.limit):
			return nil, errTimeout
		}
		s.changed.Wait()
	}
}

func (s *unixSource) replaces(ln *net.UnixListener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ln != ln && !s.closed
}

// SetDeadline bounds Accept.
func (s *unixSource) SetDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.limit = t
	if s.ln != nil {
		return s.ln.SetDeadline(t)
	}
	if !t.IsZero() {
		d := time.Until(t)
		s.limit = time.Now().Add(d) // by the clock of the timer, which rings once
		s.timer = time.AfterFunc(d, func() { broadcast(&s.changed) })
	}
	return nil
}

// Close gives up the socket.
func (s *unixSource) Close() error {
	a := s.grant.asker
	a.mu.Lock()
	if a.unix[s.grant.key] == s {
		delete(a.unix, s.grant.key)
	}
	a.mu.Unlock()
	s.end()
	s.mu.Lock()
	ln := s.ln
	s.ln, s.closed = nil, true
	s.changed.Broadcast()
	s.mu.Unlock()
	if ln == nil {
		return nil
	}
	return ln.Close()
}

// Addr returns nil: the listener around this source knows the address.
func (s *unixSource) Addr() net.Addr { return nil }

// SyscallConn gives access to the socket, unless it is being replaced.
func (s *unixSource) SyscallConn() (syscall.RawConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ln == nil {
		return nil, net.ErrClosed
	}
	return s.ln.SyscallConn()
}
