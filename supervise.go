package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"
)

// Backoff says how crashes in a row of one slot are answered: the first at
// once, for it may be the only one; then after Min, and Factor times as long
// after each further one, up to Max.
type Backoff struct {
	Min    time.Duration // default: 100 ms, as PM2's
	Max    time.Duration // default: 15 s
	Factor float64       // default: 2; at least 1
	Reset  time.Duration // a worker that was ready so long makes the next crash a first one. Default: 30 s
	Jitter float64       // each wait is up to this fraction longer or shorter. Default: 0.2; negative: none
}

// ExitNoRestart is the exit status (EX_CONFIG of sysexits.h) by which a worker
// says that it need not be tried again: it is not replaced.
const ExitNoRestart = 78

// Reason is why a worker ended, in [Exit].
type Reason string

const (
	ReasonCrash   Reason = "crash"   // by itself, with an error or before it was ready
	ReasonStall   Reason = "stall"   // the watchdog killed it
	ReasonReload  Reason = "reload"  // replaced by Reload, or a replacement that did not get ready
	ReasonRecycle Reason = "recycle" // replaced because of a limit of Recycle
	ReasonScale   Reason = "scale"   // its slot was removed
	ReasonStop    Reason = "stop"    // by Disconnect of the cluster or the end of Run
	ReasonKill    Reason = "kill"    // by Kill
	ReasonDrain   Reason = "drain"   // by Disconnect of the worker, a SIGTERM to it, or of its own accord with status 0
)

// slot is one of the places that AutoFork keeps filled. All of it belongs to
// the master's mailbox.
type slot struct {
	n    int
	gen  *generation // what its workers are forked from
	mode slotMode

	cur  *Process
	next *Process // that is to replace cur, and is not up yet

	failures  int  // crashes in a row, for the backoff
	boots     int  // deaths before ready in a row
	everReady bool // some worker of this slot was ready
	everUp    bool // some worker of this slot was online for Backoff.Reset
	restarts  int
	lastExit  string

	retry    *time.Timer
	pending  int // the fork or retry that may fill the slot; older ones are void
	recycles int // replacements in a row that failed
}

type slotMode int

const (
	slotLive slotMode = iota // is filled again
	slotOff                  // its worker's end was asked for: empty until AutoFork, Scale or Reload
	slotOut                  // its worker said ExitNoRestart
	slotGone                 // removed; nothing is forked here any more
)

// cleanAfter is how long a worker must have been ready for its exit with 0 to
// be no crash: it was told to stop by somebody else, or has done its work.
const cleanAfter = time.Second

// ---- filling

// autoFork fills Options.Workers slots, all or none.
func (m *master) autoFork() error {
	gen, err := m.newGeneration(false)
	if err != nil {
		return callError("AutoFork", err)
	}
	var slots []*slot
	m.call(func() { slots, err = m.beginAutoFork(gen) })
	if len(slots) == 0 {
		gen.bin.close()
	}
	if err != nil {
		return callError("AutoFork", err)
	}
	for _, s := range slots {
		// A Scale or a Reload may have decided otherwise meanwhile.
		if _, err := m.fork(forkOrder{slot: s, gen: gen}, nil); err != nil && !errors.Is(err, errVoid) {
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

func (m *master) beginAutoFork(gen *generation) ([]*slot, error) {
	if err := m.closed(); err != nil {
		return nil, err
	}
	if len(m.workers) > 0 || m.forking > 0 || m.filling() || m.idle != nil && gen.opts.Workers == 0 {
		return nil, nil
	}
	m.dropSlots(ErrClosed)
	m.gaveUp, m.works = nil, false
	for n := range gen.opts.Workers {
		m.slots = append(m.slots, &slot{n: n, gen: gen})
	}
	m.enter(gen)
	m.completed = gen.n
	return slices.Clone(m.slots), nil
}

// filling reports whether some empty slot will be filled again.
func (m *master) filling() bool {
	for _, s := range m.slots {
		if s.mode == slotLive {
			return true
		}
	}
	return false
}

// abandon undoes an AutoFork that could not fork all. It returns the workers
// that it killed.
func (m *master) abandon(slots []*slot) (killed []*Process) {
	if len(m.slots) > 0 && m.slots[0] == slots[0] { // no Disconnect came between
		m.dropSlots(ErrClosed)
	}
	for _, p := range m.workers {
		if slices.Contains(slots, p.child.slot) {
			p.voluntary.Store(true)
			m.killFor(p, ReasonStop)
			killed = append(killed, p)
		}
	}
	return killed
}

// dropSlots ends all supervision: what dies from now on is not replaced.
func (m *master) dropSlots(why error) {
	m.cancelJobs(why)
	for _, s := range m.slots {
		s.remove()
		s.gen.bin.close()
	}
	m.slots = nil
	if m.idle != nil {
		m.idle.bin.close()
		m.idle = nil
	}
}

func (s *slot) remove() {
	s.mode = slotGone
	s.cancelRetry()
}

// cancelRetry voids the timer, or the fork under way, that would fill the slot.
func (s *slot) cancelRetry() {
	s.pending++
	if s.retry != nil {
		s.retry.Stop()
		s.retry = nil
	}
}

// refork fills s after d, from its own generation.
func (m *master) refork(s *slot, d time.Duration) {
	s.cancelRetry()
	order := forkOrder{slot: s, gen: s.gen, pending: s.pending}
	fill := func() {
		if _, err := m.fork(order, nil); err != nil {
			m.post(func() { m.forkFailed(order, err) })
		}
	}
	if d <= 0 {
		go fill()
		return
	}
	s.retry = time.AfterFunc(d, fill)
}

// forkFailed counts a fork that failed as a crash.
func (m *master) forkFailed(order forkOrder, err error) {
	s := order.slot
	if s.mode != slotLive || s.pending != order.pending || m.stop != nil {
		return
	}
	d := max(s.nextDelay(), s.gen.opts.Backoff.Min)
	s.gen.opts.logger().Warn("cluster: a worker could not be started", "slot", s.n, "err", err, "retry", d)
	m.refork(s, d)
}

// ---- what happens to workers

// up is told of every step of p towards ready.
func (m *master) up(p *Process) {
	s := p.child.slot
	if s == nil {
		m.notifyUp()
		return
	}
	if p.State() == Ready {
		s.everReady = true
		s.boots = 0
	}
	m.checkPromotion(p)
	m.notifyUp()
}

// death decides what follows the death of p.
func (m *master) death(p *Process, e Exit, wasReady bool) {
	s := p.child.slot
	if s == nil {
		return
	}
	s.lastExit = e.String()
	s.everUp = s.everUp || p.child.longUp()
	switch {
	case s.next == p:
		s.next = nil
		m.replacementDied(p, e)
	case s.cur == p:
		s.cur = nil
		m.curDied(s, p, e, wasReady)
	}
	m.replacedDied(p)
}

func (m *master) curDied(s *slot, p *Process, e Exit, wasReady bool) {
	if m.stop != nil || s.mode == slotGone || m.replacing(s) {
		return // nothing follows, or the replacement inherits the slot
	}
	opts := s.gen.opts
	ready := time.Duration(0)
	if wasReady {
		ready = time.Since(p.child.readyAt)
	}
	if ready >= opts.Backoff.Reset || !wasReady && p.child.longUp() {
		s.failures = 0
	}
	switch {
	case e.Voluntary:
		s.mode = slotOff
		return
	case e.Code == ExitNoRestart:
		m.slotOut(s, p, e)
		return
	case wasReady && ready >= cleanAfter && e.Code == 0:
		s.restarts++
		m.refork(s, 0)
		return
	}
	if !wasReady {
		s.boots++
	}
	p.logger().Warn("cluster: a worker died", "worker", p.id, "pid", p.pid, "slot", s.n, "exit", e.String())
	if opts.MaxBootFailures > 0 && s.boots >= opts.MaxBootFailures && !m.proven() {
		m.giveUp(fmt.Errorf("cluster: %w: %d in a row in slot %d, the last with %v%s", ErrBootLoop, s.boots, s.n, e, p.lastOutput()), opts)
		return
	}
	s.restarts++
	m.refork(s, s.nextDelay())
}

// slotOut leaves s empty, as its worker asked.
func (m *master) slotOut(s *slot, p *Process, e Exit) {
	s.mode = slotOut
	p.logger().Warn("cluster: a worker asks not to be replaced", "worker", p.id, "pid", p.pid, "slot", s.n, "exit", e.String())
	m.lastOut = fmt.Errorf("the last with %v%s", e, p.lastOutput())
	m.checkAllOut()
}

// checkAllOut gives up when no slot is to be filled again, and no replacement
// is on its way to one.
func (m *master) checkAllOut() {
	if len(m.slots) == 0 || m.token != nil || m.reload != nil {
		return
	}
	for _, s := range m.slots {
		if s.mode != slotOut {
			return
		}
	}
	m.giveUp(fmt.Errorf("cluster: %w: all exited with status %d (ExitNoRestart), %w", ErrNoWorkers, ExitNoRestart, m.lastOut), m.slots[0].gen.opts)
}

// nextDelay counts one more crash and returns how long to wait.
func (s *slot) nextDelay() time.Duration {
	s.failures++
	return s.gen.opts.Backoff.delay(s.failures)
}

// delay is the wait after the n-th failure in a row.
func (b Backoff) delay(n int) time.Duration {
	if n <= 1 {
		return 0
	}
	d := float64(b.Min)
	for range n - 2 {
		if d *= b.Factor; d >= float64(b.Max) {
			d = float64(b.Max)
			break
		}
	}
	return jittered(time.Duration(d), b.Jitter)
}

// jittered is v, up to the fraction longer or shorter.
func jittered[T ~int | ~int64](v T, fraction float64) T {
	if fraction <= 0 {
		return v
	}
	return T(float64(v) * (1 + fraction*(2*rand.Float64()-1)))
}

// proven reports whether this program is known to work: then a crash loop is
// no reason to give up.
func (m *master) proven() bool {
	return m.works || slices.ContainsFunc(m.slots, (*slot).proven)
}

func (s *slot) proven() bool {
	return s.everReady || s.everUp || s.cur != nil && s.cur.child.longUp()
}

// longUp reports whether a worker has been online for so long that it works,
// though it may never listen.
func (c *child) longUp() bool {
	return !c.onlineAt.IsZero() && time.Since(c.onlineAt) >= c.opts.Backoff.Reset
}

// giveUp ends the supervision, and with it a Run.
func (m *master) giveUp(err error, opts *Options) {
	m.gaveUp = err
	opts.logger().Error("cluster: giving up", "err", err)
	m.dropSlots(err)
	m.runner.fail(err)
}

// ---- scaling

// scale changes the number of slots to n.
func (m *master) scale(n int) error {
	if n < 0 {
		return fmt.Errorf("cluster: Scale(%d): the number of workers must not be negative", n)
	}
	return m.scaleTo(func(int) int { return n })
}

// scaleTo changes the number of slots to what target makes of it. Two calls at
// once see each other's outcome.
func (m *master) scaleTo(target func(slots int) int) error {
	gen, err := m.newGeneration(false)
	if err != nil {
		return callError("Scale", err)
	}
	var fill []forkOrder
	m.call(func() { fill, err = m.beginScale(target(len(m.slots)), gen) })
	if err != nil {
		return callError("Scale", err)
	}
	var failed []error
	for _, order := range fill {
		if _, err := m.fork(order, nil); err != nil && !errors.Is(err, errVoid) {
			m.call(func() { m.forkFailed(order, err) })
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (m *master) beginScale(n int, gen *generation) (fill []forkOrder, err error) {
	if err := m.closed(); err != nil {
		gen.bin.close()
		return nil, err
	}
	m.setTarget(n)
	if g := m.newest(); g != nil {
		gen.bin.close()
		gen = g // what the others run, not what lies there now
	} else {
		m.enter(gen)
		m.completed = gen.n
		m.gaveUp, m.works = nil, false
	}
	if n == 0 {
		m.idle = gen
	}
	for len(m.slots) > n {
		s := m.slots[len(m.slots)-1]
		m.slots = m.slots[:len(m.slots)-1]
		m.removeSlot(s)
	}
	if n > 0 {
		m.idle = nil // a slot has it from here on
	}
	for _, s := range m.slots {
		if s.mode == slotOff || s.mode == slotOut {
			s.mode = slotLive
			s.failures, s.boots = 0, 0
			if s.cur == nil && !m.replacing(s) {
				s.cancelRetry()
				fill = append(fill, forkOrder{slot: s, gen: s.gen, pending: s.pending})
			}
		}
	}
	for len(m.slots) < n {
		s := &slot{n: len(m.slots), gen: gen}
		m.slots = append(m.slots, s)
		fill = append(fill, forkOrder{slot: s, gen: gen})
	}
	m.nextJob()
	return fill, nil
}

// setTarget changes the default number of workers, and with it the share of
// GOMAXPROCS that new ones get.
func (m *master) setTarget(n int) {
	opts, err := m.current()
	if err != nil {
		return
	}
	changed := *opts
	changed.Workers = n
	m.opts = &changed
}

// removeSlot drains s for good.
func (m *master) removeSlot(s *slot) {
	m.works = m.works || s.proven()
	s.remove()
	if m.replacing(s) {
		m.dropReplacement(m.token)
	}
	if s.cur != nil {
		m.drainFor(s.cur, ReasonScale)
	}
	m.releaseGeneration(s.gen)
}

// drainFor drains p because the master has decided so.
func (m *master) drainFor(p *Process, why Reason) {
	p.voluntary.Store(true)
	p.child.blame(why)
	m.drain(p, p.child.opts.ShutdownTimeout)
}

// killFor kills p because the master has decided so.
func (m *master) killFor(p *Process, why Reason) {
	p.child.blame(why)
	m.signal(p, os.Kill)
}

// blame notes why the worker will have ended. The first reason holds.
func (c *child) blame(why Reason) {
	if c.reason == "" {
		c.reason = why
	}
}

// reasonFor is why a worker ended that nobody is to blame for.
func reasonFor(e Exit, wasReady bool) Reason {
	if e.Code == 0 && (wasReady || e.Voluntary) {
		return ReasonDrain
	}
	if e.Voluntary {
		return ReasonKill
	}
	return ReasonCrash
}
