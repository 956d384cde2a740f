package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The end of the whole cluster: Disconnect, and the last part of Run.

// stop is one Disconnect of the whole cluster.
type stop struct {
	done   chan struct{}
	now    bool  // kill, do not drain
	killed []int // ids of workers that had to be killed
}

// disconnect drains all and waits.
func (m *master) disconnect(ctx context.Context) error {
	var s *stop
	m.call(func() { s = m.beginStop() })
	return m.waitStopped(ctx, s)
}

// waitStopped waits for the end of s, and hastens it when ctx ends.
func (m *master) waitStopped(ctx context.Context, s *stop) error {
	var ended error
	select {
	case <-s.done:
	case <-ctx.Done():
		m.call(func() { m.stopNow(s) })
		<-s.done
		ended = ctx.Err()
	}
	if len(s.killed) == 0 {
		return nil
	}
	if ended != nil {
		return ended
	}
	return fmt.Errorf("cluster: workers %s did not drain in time and were killed: %w",
		strings.Trim(fmt.Sprint(s.killed), "[]"), context.DeadlineExceeded)
}

// hurry shortens the drain of all workers.
func (m *master) hurry(timeout time.Duration) {
	m.post(func() {
		for _, p := range m.workers {
			m.drain(p, timeout)
		}
	})
}

func (m *master) beginStop() *stop {
	if m.stop != nil {
		return m.stop
	}
	m.stop = &stop{done: make(chan struct{})}
	s := m.stop
	m.dropSlots(ErrClosed)
	for _, p := range m.workers {
		m.drainFor(p, ReasonStop)
	}
	m.checkStopped()
	return s
}

// stopNow kills what is left of a Disconnect.
func (m *master) stopNow(s *stop) {
	if m.stop != s {
		return
	}
	s.now = true
	for _, p := range m.workers {
		m.killForStop(p)
	}
}

func (m *master) killForStop(p *Process) {
	p.voluntary.Store(true)
	p.advance(Draining)
	p.child.overdue = true
	m.killFor(p, ReasonStop)
}

// checkStopped ends the Disconnect under way when nothing is left.
func (m *master) checkStopped() {
	if m.stop == nil || m.forking > 0 || len(m.workers) > 0 {
		return
	}
	m.registry.closeAll()
	m.forked.Store(false)
	s := m.stop
	m.stop = nil
	slices.Sort(s.killed)
	close(s.done)
}
