package socket

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// A Merged accepts from a socket that had a connection a moment ago. Another process that
// has the socket as well may have taken it since, and then accept waits, while connections
// come to other sockets.
//
// A deadline for each call would end that, but costs 3 % of the CPU time of a connection. So
// there is one only for a while after a socket was given, and after one was found to be
// others' too. At other times a guard looks now and then, while there are connections,
// whether a call is still the one of the look before.

const (
	// overtakenTime bounds a call while others may have the socket.
	overtakenTime = time.Millisecond
	// carefulTime is how long calls are bounded.
	carefulTime = 2 * time.Second
	// guardTime is between two looks.
	guardTime = 50 * time.Millisecond
)

// guard bounds the accept(2) calls of a Merged.
type guard struct {
	careful atomic.Bool // each call has a deadline
	relax   *time.Timer // ends that
	looking atomic.Bool // look is about to be called
	looks   *time.Timer
}

func (g *guard) init(m *Merged) {
	g.relax = time.AfterFunc(carefulTime, func() { g.careful.Store(false) })
	g.looks = time.AfterFunc(guardTime, m.look)
	g.close()
}

// close ends the timers. The sockets are closed, which ends the calls.
func (g *guard) close() {
	g.relax.Stop()
	g.looks.Stop()
}

// beCareful bounds each call for a while.
func (g *guard) beCareful() {
	g.careful.Store(true)
	g.relax.Reset(carefulTime)
}

// watch sees to it that somebody looks after a call that has begun.
func (g *guard) watch() {
	if !g.looking.Load() && !g.looking.Swap(true) {
		g.looks.Reset(guardTime)
	}
}

// accept accepts from s. Its error is of a deadline if there is no connection.
func (m *Merged) accept(s *member) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.careful.Load() {
		s.ln.SetDeadline(time.Now().Add(overtakenTime))
		defer s.ln.SetDeadline(time.Time{}) // it would wake this process
		return s.ln.Accept()
	}
	s.calls.Add(1)
	m.watch()
	c, err := s.ln.Accept()
	s.calls.Add(1)
	if errors.Is(err, os.ErrDeadlineExceeded) { // that of a look, which may have been for the call before
		m.beCareful()
		s.ln.SetDeadline(time.Time{})
	}
	return c, err
}

// endCalls ends the calls that are under way.
func (m *Merged) endCalls() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.all {
		if s.calls.Load()%2 != 0 {
			s.ln.SetDeadline(past)
		}
	}
}

// past is a deadline that ends what is under way.
var past = time.Unix(1, 0)

// look ends the calls that it has seen before. It is called by the timer, until there was
// no call between two looks.
func (m *Merged) look() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	busy := false
	for _, s := range m.all {
		calls := s.calls.Load()
		underWay := calls%2 != 0
		if underWay && calls == s.seen {
			s.ln.SetDeadline(past)
		}
		busy = busy || underWay || calls != s.seen
		s.seen = calls
	}
	if busy {
		m.looks.Reset(guardTime)
		return
	}
	m.looking.Store(false)
	for _, s := range m.all {
		if s.calls.Load() != s.seen { // it has begun meanwhile, and found that somebody looks
			m.watch()
		}
	}
}
