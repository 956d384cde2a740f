package cluster

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// slot is one of the places that AutoFork keeps filled. All of it belongs to
// the master's mailbox but n and opts, which do not change.
type slot struct {
	n    int
	opts *Options // of the AutoFork that made the slot

	cur       *Process
	failures  int  // crashes in a row, for the backoff
	boots     int  // deaths before ready in a row
	everReady bool // some worker of this slot was ready
	gone      bool // nothing is forked here any more
	off       bool // its worker's end was asked for: empty until the next AutoFork
	retry     *time.Timer
}

// How a crash is answered. The first one at once, for it may be the only one;
// then ever later, up to a bound that keeps a crash loop from costing anything.
// The values are PM2's and einhorn's.
const (
	backoffMin    = 100 * time.Millisecond
	backoffMax    = 15 * time.Second
	backoffFactor = 2
	backoffJitter = 0.2
	// backoffReset is how long a worker must have been ready to make the next
	// crash a first one.
	backoffReset = 30 * time.Second
	// cleanAfter is how long a worker must have been ready for its exit with 0
	// to be no crash: it was told to stop by somebody else, or has done its work.
	cleanAfter = time.Second
	// maxBootFailures is how many workers in a row may die in one slot before
	// they are ready until Run gives up, while no worker ever was. By count, as
	// systemd's "5 in 10 s" never sees a slow boot.
	maxBootFailures = 5
)

// autoFork fills Options.Workers slots, all or none.
func (m *master) autoFork() error {
	var slots []*slot
	var err error
	m.call(func() { slots, err = m.beginAutoFork() })
	if err != nil {
		return callError("AutoFork", err)
	}
	for _, s := range slots {
		if _, err := m.fork(s, nil); err != nil {
			m.call(func() { m.abandon(slots) })
			return err
		}
	}
	return nil
}

func (m *master) beginAutoFork() ([]*slot, error) {
	if m.stop != nil {
		return nil, fmt.Errorf("a Disconnect is under way: %w", ErrClosed)
	}
	if len(m.workers) > 0 || m.forking > 0 || m.filling() {
		return nil, nil
	}
	opts, err := m.current()
	if err != nil {
		return nil, err
	}
	m.dropSlots()
	m.boot = nil
	for n := range opts.Workers {
		m.slots = append(m.slots, &slot{n: n, opts: opts})
	}
	return m.slots, nil
}

// filling reports whether some empty slot will be filled again.
func (m *master) filling() bool {
	for _, s := range m.slots {
		if !s.off && !s.gone {
			return true
		}
	}
	return false
}

// abandon undoes an AutoFork that could not fork all.
func (m *master) abandon(slots []*slot) {
	for _, s := range slots {
		s.close()
		if s.cur != nil && !s.cur.IsDead() {
			s.cur.voluntary.Store(true)
			m.signal(s.cur, sigKill)
		}
	}
	m.slots = nil
}

// dropSlots ends all supervision: what dies from now on is not replaced.
func (m *master) dropSlots() {
	for _, s := range m.slots {
		s.close()
	}
	m.slots = nil
}

func (s *slot) close() {
	s.gone = true
	if s.retry != nil {
		s.retry.Stop()
	}
}

// slotDeath decides what follows the death of p in s.
func (m *master) slotDeath(s *slot, p *Process, e Exit, wasReady bool) {
	if s.cur != p || s.gone {
		return
	}
	s.cur = nil
	switch ready := time.Since(p.child.readyAt); {
	case e.Voluntary:
		s.off = true
		return
	case wasReady && ready >= cleanAfter && e.Code == 0:
		m.refork(s, 0)
		return
	case wasReady && ready >= backoffReset,
		!wasReady && e.Uptime >= backoffReset:
		s.failures = 0
	}
	if !wasReady {
		s.boots++
	}
	p.logger().Warn("cluster: a worker died", "worker", p.id, "pid", p.pid, "slot", s.n, "exit", e.String())
	if s.boots >= maxBootFailures && !m.proven() {
		m.giveUp(s, e)
		return
	}
	m.refork(s, s.nextDelay())
}

// nextDelay counts one more crash and returns how long to wait.
func (s *slot) nextDelay() time.Duration {
	s.failures++
	if s.failures == 1 {
		return 0
	}
	d := float64(backoffMin)
	for range s.failures - 2 {
		if d *= backoffFactor; d >= float64(backoffMax) {
			d = float64(backoffMax)
			break
		}
	}
	return time.Duration(d * (1 + backoffJitter*(2*rand.Float64()-1)))
}

// refork fills s after d. A fork that fails counts as a crash.
func (m *master) refork(s *slot, d time.Duration) {
	fill := func() {
		if _, err := m.fork(s, nil); err != nil {
			m.post(func() { m.forkFailed(s, err) })
		}
	}
	if d <= 0 {
		go fill()
		return
	}
	s.retry = time.AfterFunc(d, fill)
}

func (m *master) forkFailed(s *slot, err error) {
	if s.gone || m.stop != nil {
		return
	}
	d := s.nextDelay()
	s.opts.logger().Warn("cluster: a worker could not be started", "slot", s.n, "err", err, "retry", d)
	m.refork(s, max(d, backoffMin))
}

// proven reports whether this program is known to work: then a crash loop is
// no reason to give up.
func (m *master) proven() bool {
	for _, s := range m.slots {
		if s.everReady {
			return true
		}
		if c := s.cur; c != nil && c.State() >= Online && time.Since(c.child.started) >= backoffReset {
			return true
		}
	}
	return false
}

// giveUp ends the supervision, and with it a Run.
func (m *master) giveUp(s *slot, e Exit) {
	m.boot = fmt.Errorf("cluster: %w: %d in a row in slot %d, the last with %v", ErrBootLoop, s.boots, s.n, e)
	s.opts.logger().Error("cluster: giving up", "err", m.boot)
	m.dropSlots()
	m.runner.fail(m.boot)
}
