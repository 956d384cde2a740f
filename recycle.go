package cluster

import (
	"slices"
	"time"
)

// Recycle replaces workers that have served long enough, one at a time in the
// cluster, each replacement being up first. Zero limits are off.
type Recycle struct {
	Connections int           // accepted by the worker; for node workers under RoundRobin only
	Age         time.Duration // since the fork
	Memory      int64         // resident bytes, looked at every Watchdog.Interval
	Jitter      float64       // each worker's limits differ by up to this fraction, so that not all are due at once. Default: 0.2; negative: none
	MinAge      time.Duration // no worker is replaced before. Default: 10 s
}

// recycle is one worker's share of it: its own limits.
type recycle struct {
	connections int
	age         time.Duration
	memory      int64
	notBefore   time.Time // after a replacement that failed
	due         bool      // before it had its slot
	timer       *time.Timer
}

func (r *recycle) init(o *Options) {
	j := o.Recycle.Jitter
	r.connections = jittered(o.Recycle.Connections, j)
	if o.Recycle.Connections > 0 {
		r.connections = max(1, r.connections) // 0 is no limit
	}
	r.age = jittered(o.Recycle.Age, j)
	r.memory = jittered(o.Recycle.Memory, j)
}

func (r *recycle) stop() {
	if r.timer != nil {
		r.timer.Stop()
	}
}

// recycleAfter calls wantRecycle in d.
func (m *master) recycleAfter(p *Process, d time.Duration) {
	r := &p.child.recycle
	r.stop()
	r.timer = time.AfterFunc(d, func() { m.post(func() { m.wantRecycle(p) }) })
}

// ageWorker sets p's clock.
func (m *master) ageWorker(p *Process) {
	if c := p.child; c.slot != nil && c.recycle.age > 0 {
		m.recycleAfter(p, max(c.recycle.age, c.opts.Recycle.MinAge))
	}
}

// checkMemory looks at p's size: the system's word, or else its own.
func (m *master) checkMemory(p *Process) {
	size := residentBytes(p.pid)
	if size == 0 {
		size = p.child.watch.report.Memory
	}
	if size > p.child.recycle.memory {
		m.wantRecycle(p)
	}
}

// counted is told that p has accepted n connections in all that were handed to
// it. A Go worker counts itself, and with them those that it accepted alone.
func (m *master) counted(p *Process, n int) {
	if limit := p.child.recycle.connections; n == limit && !p.link.speaksOurs() {
		m.post(func() { m.wantRecycle(p) })
	}
}

// wantRecycle queues p to be replaced.
func (m *master) wantRecycle(p *Process) {
	if p == nil || p.child.slot == nil || p.child.slot.mode == slotGone || p.State() >= Draining || m.stop != nil {
		return
	}
	s := p.child.slot
	if s.next == p { // it says so once only
		p.child.recycle.due = true
	}
	if s.cur != p {
		return
	}
	wait := max(p.child.opts.Recycle.MinAge-time.Since(p.child.started), time.Until(p.child.recycle.notBefore))
	if wait > 0 {
		m.recycleAfter(p, wait)
		return
	}
	// A reload of its slot may fail; and what drains for p is no successor of it.
	underWay := m.replacing(s) && m.token.why == ReasonRecycle
	if !underWay && !slices.Contains(m.recycling, p) {
		m.recycling = append(m.recycling, p)
	}
	m.nextJob()
}

// nextRecycle replaces the next worker that is due. The token is free, and no
// reload waits for it.
func (m *master) nextRecycle() {
	for len(m.recycling) > 0 {
		p := m.recycling[0]
		m.recycling = m.recycling[1:]
		s := p.child.slot
		if s.cur != p || s.mode != slotLive || p.State() >= Draining {
			continue
		}
		m.replace(&replacement{s: s, gen: s.gen, why: ReasonRecycle, done: func(err error) {
			if err == nil {
				s.recycles = 0
				return
			}
			// The old worker serves on, and is due again later.
			s.recycles++
			if p.IsDead() {
				return
			}
			d := s.gen.opts.Backoff.delay(s.recycles + 1)
			p.logger().Warn("cluster: the replacement of a worker that is due failed", "worker", p.id, "slot", s.n, "err", err, "retry", d)
			p.child.recycle.notBefore = time.Now().Add(d)
			m.recycleAfter(p, d)
		}})
		return
	}
}
