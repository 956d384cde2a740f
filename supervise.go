package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
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
	everUp    bool // some worker of this slot was online for backoffReset
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
			var left []*Process
			m.call(func() { left = m.abandon(slots) })
			// Until they are gone the next AutoFork would take them for its own.
			for _, p := range left {
				<-p.child.exited
			}
			return err
		}
	}
	return nil
}

func (m *master) beginAutoFork() ([]*slot, error) {
	if err := m.closed(); err != nil {
		return nil, err
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

// abandon undoes an AutoFork that could not fork all. It returns the workers
// that it killed.
func (m *master) abandon(slots []*slot) (killed []*Process) {
	for _, s := range slots {
		s.close()
	}
	if len(m.slots) > 0 && m.slots[0] == slots[0] { // no Disconnect came between
		m.slots = nil
	}
	for _, p := range m.workers {
		if slices.Contains(slots, p.child.slot) {
			p.voluntary.Store(true)
			m.signal(p, sigKill)
			killed = append(killed, p)
		}
	}
	return killed
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
func (m *master) slotDeath(s *slot, p *Process, e Exit) {
	if s.cur != p || s.gone {
		return
	}
	s.cur = nil
	c := p.child
	wasReady := !c.readyAt.IsZero()
	s.everUp = s.everUp || c.longUp()
	switch ready := time.Since(c.readyAt); {
	case e.Voluntary:
		s.off = true
		return
	case wasReady && ready >= cleanAfter && e.Code == 0:
		m.refork(s, 0)
		return
	case wasReady && ready >= backoffReset, !wasReady && c.longUp():
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
		if s.everReady || s.everUp || s.cur != nil && s.cur.child.longUp() {
			return true
		}
	}
	return false
}

// longUp reports whether a worker has been online for so long that it works,
// though it may never listen.
func (c *child) longUp() bool { return !c.onlineAt.IsZero() && time.Since(c.onlineAt) >= backoffReset }

// giveUp ends the supervision, and with it a Run.
func (m *master) giveUp(s *slot, e Exit) {
	m.boot = fmt.Errorf("cluster: %w: %d in a row in slot %d, the last with %v", ErrBootLoop, s.boots, s.n, e)
	s.opts.logger().Error("cluster: giving up", "err", m.boot)
	m.dropSlots()
	m.runner.fail(m.boot)
}
