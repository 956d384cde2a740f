package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ReloadResult is how a reload ended.
type ReloadResult struct {
	Err        error         // nil, or why it was given up; the slots replaced until then stay new
	Replaced   int           // slots that have a new worker
	Generation int           // the reload's own, if it is complete; else the last complete one
	Took       time.Duration // from its beginning
}

// replacement is one slot's change of worker. It is a token: there is one in
// the cluster at a time.
type replacement struct {
	s     *slot
	gen   *generation
	why   Reason
	order forkOrder
	next  *Process // once it is forked
	old   *Process // once next is up: what drains
	done  func(err error)
}

// reloadJob is a reload under way.
type reloadJob struct {
	gen      *generation // nil until it is looked up
	replaced int
	began    time.Time
	waiters  []chan error
}

// reloadWorkers is Reload.
func (m *master) reloadWorkers(ctx context.Context) error {
	done := make(chan error, 1)
	m.call(func() { m.askReload(done) })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// askReload begins a reload, or asks for one more after that under way: a
// deployment made meanwhile must not be missed.
func (m *master) askReload(done chan error) {
	switch {
	case m.stop != nil:
		done <- callError("Reload", ErrClosed)
	case !m.keeps():
		done <- fmt.Errorf("cluster: Reload: %w: AutoFork keeps none", ErrNoWorkers)
	default:
		m.reloadAsked = append(m.reloadAsked, done)
		m.prepareReload()
	}
}

// prepareReload makes the next reload's generation, if none is under way.
func (m *master) prepareReload() {
	if m.reload != nil || len(m.reloadAsked) == 0 {
		return
	}
	job := &reloadJob{began: time.Now(), waiters: m.reloadAsked}
	m.reload, m.reloadAsked = job, nil
	m.notifyReloading()
	go func() {
		gen, err := m.newGeneration(true)
		m.post(func() { m.beginReload(job, gen, err) })
	}()
}

func (m *master) beginReload(job *reloadJob, gen *generation, err error) {
	if m.reload != job { // cancelled meanwhile
		if gen != nil {
			gen.bin.close()
		}
		return
	}
	if err != nil {
		m.endReload(err)
		m.nextJob()
		return
	}
	m.enter(gen)
	job.gen = gen
	// A recycling that is not up yet gives way.
	if t := m.token; t != nil && t.old == nil {
		m.dropReplacement(t)
	}
	m.nextJob()
}

// nextJob starts the next replacement, if none is under way: the reload's, or
// one that recycling waits for.
func (m *master) nextJob() {
	if m.token != nil || m.stop != nil {
		return
	}
	job := m.reload
	if job == nil {
		m.nextRecycle()
		m.checkAllOut() // the last may have gone out while a replacement was under way
		return
	}
	if job.gen == nil {
		return // it is being looked up, and goes before recycling
	}
	for _, s := range m.slots {
		if s.gen != job.gen {
			m.replace(&replacement{s: s, gen: job.gen, why: ReasonReload, done: m.reloadStep})
			return
		}
	}
	old := false
	for _, p := range m.workers {
		if s := p.child.slot; s != nil && p.child.gen != job.gen {
			old = true
			// Without Run those are left that were there when the supervision gave up.
			if s.mode == slotGone && p.child.reason == "" {
				m.drainFor(p, ReasonReload)
			}
		}
	}
	if old {
		return // the last one's death goes on
	}
	m.endReload(nil)
	m.nextJob()
}

// replace begins a replacement.
func (m *master) replace(r *replacement) {
	m.token = r
	r.s.cancelRetry()
	r.order = forkOrder{slot: r.s, gen: r.gen, pending: r.s.pending, replacement: r}
	go func() {
		if _, err := m.fork(r.order, nil); err != nil {
			m.post(func() { m.replacementFailed(r, err) })
		}
	}()
}

// replacing reports whether a replacement for s is on its way.
func (m *master) replacing(s *slot) bool {
	return m.token != nil && m.token.s == s && m.token.old == nil
}

// checkPromotion lets p take its slot's place if it is up: ready, or online
// where no worker of this slot ever was ready.
func (m *master) checkPromotion(p *Process) {
	r := m.token
	if r == nil || r.next != p || r.old != nil {
		return
	}
	needed := Online
	if r.gen.opts.ManualReady || r.s.everReady {
		needed = Ready
	}
	if st := p.State(); st < needed || st > Ready {
		return
	}
	s := r.s
	old, oldGen := s.cur, s.gen
	s.cur, s.next, s.gen, s.mode = p, nil, r.gen, slotLive
	s.failures, s.boots = 0, 0
	p.child.startTimer.Stop()
	m.releaseGeneration(oldGen)
	if old == nil {
		m.endReplacement(r, nil)
	} else {
		s.everUp = s.everUp || old.child.longUp()
		r.old = old
		m.drainFor(old, r.why)
	}
	if p.child.recycle.due {
		m.wantRecycle(p)
	}
}

// replacedDied goes on when the predecessor is gone, so that no old code
// answers when a reload is reported done.
func (m *master) replacedDied(p *Process) {
	if r := m.token; r != nil && r.old == p {
		m.endReplacement(r, nil)
	} else if m.reload != nil {
		m.nextJob()
	}
}

// replacementDied is the death of a worker that was not up yet.
func (m *master) replacementDied(p *Process, e Exit) {
	if r := m.token; r != nil && r.next == p {
		m.replacementFailed(r, fmt.Errorf("the new worker of slot %d ended before it was up: %v%s", r.s.n, e, p.lastOutput()))
	}
}

// replacementFailed gives r up; the old worker stays. If it is gone meanwhile
// the slot is filled again as it was.
func (m *master) replacementFailed(r *replacement, err error) {
	if m.token != r {
		return
	}
	m.dropNext(r)
	s := r.s
	if s.cur == nil && s.mode == slotLive && m.stop == nil {
		m.token = nil
		m.refork(s, s.nextDelay())
	}
	if s.mode == slotOut {
		m.lastOut = err
	}
	m.endReplacement(r, err)
}

// dropReplacement cancels r, which is not up yet, without an outcome.
func (m *master) dropReplacement(r *replacement) {
	m.token = nil
	m.dropNext(r)
	if s := r.s; s.cur == nil && s.mode == slotLive && m.stop == nil {
		m.refork(s, 0)
	}
	if r.why == ReasonRecycle {
		m.wantRecycle(r.s.cur)
	}
}

// dropNext kills the worker that was to take over.
func (m *master) dropNext(r *replacement) {
	if r.old != nil {
		return
	}
	r.s.pending++ // the fork that may still be under way is void
	r.s.next = nil
	if p := r.next; p != nil && !p.IsDead() {
		p.voluntary.Store(true)
		m.killFor(p, r.why)
	}
}

func (m *master) endReplacement(r *replacement, err error) {
	if m.token == r {
		m.token = nil
	}
	r.done(err)
	m.nextJob()
}

// reloadStep is the outcome of one slot of the reload.
func (m *master) reloadStep(err error) {
	switch {
	case m.reload == nil:
	case err != nil:
		m.endReload(err)
	default:
		m.reload.replaced++
	}
}

func (m *master) endReload(err error) {
	job := m.reload
	m.reload = nil
	if err == nil {
		m.completed = job.gen.n
		if old := m.idle; old != nil {
			m.idle = job.gen
			m.releaseGeneration(old)
		}
	} else {
		m.releaseGeneration(job.gen)
	}
	m.reported(job, err)
	m.prepareReload()
}

// reported tells how a reload ended.
func (m *master) reported(job *reloadJob, err error) {
	if err != nil {
		err = callError("Reload", err)
	}
	m.lastReload = &ReloadResult{Err: err, Replaced: job.replaced, Generation: m.completed, Took: time.Since(job.began)}
	for _, w := range job.waiters {
		w <- err
	}
	if err != nil && !errors.Is(err, ErrClosed) {
		if opts, e := m.current(); e == nil {
			opts.logger().Error("cluster: the reload was given up", "err", err, "replaced", job.replaced)
		}
	}
	result := *m.lastReload
	m.reports.Post(func() {
		for _, r := range hooks.reload.all() {
			r.fn(result)
		}
	})
	m.notifyReloaded()
}

// cancelJobs ends the reload and every replacement, because the supervision
// ends.
func (m *master) cancelJobs(why error) {
	if r := m.token; r != nil {
		m.token = nil
		if m.stop == nil {
			m.dropNext(r)
		} // else it is drained as the others: it may serve already
	}
	m.recycling = nil
	if job := m.reload; job != nil {
		m.reload = nil
		m.releaseGeneration(job.gen)
		m.reported(job, why)
	}
	for _, w := range m.reloadAsked {
		w <- callError("Reload", why)
	}
	m.reloadAsked = nil
}
