package cluster

import (
	"errors"
	"fmt"
	"time"
)

// What must hold at any time, whatever happens.

// seen is what a world has seen of its master so far.
type seen struct {
	slots    map[*slot]bool
	gens     map[*generation]bool
	draining map[*Process]bool
	retries  map[*time.Timer]*slot
}

// wrong tells what does not hold, if anything.
func (w *world) wrong(m *master) string {
	w.life.Lock()
	defer w.life.Unlock()
	for _, check := range []func(*master) string{
		(*master).inconsistent, w.wrongToken, w.wrongCapacity, w.wrongTimers, w.wrongPrograms, w.wrongStop, w.wrongForks, w.wrongStats,
	} {
		if wrong := check(m); wrong != "" {
			return wrong
		}
	}
	return ""
}

// wrongToken: one replacement in the cluster at a time, and none without a job
// that wants it.
func (w *world) wrongToken(m *master) string {
	for _, s := range m.slots {
		w.seen.slots[s] = true
	}
	nexts := 0
	for s := range w.seen.slots {
		if s.next != nil && !s.next.IsDead() && m.stop == nil {
			nexts++
		}
	}
	r := m.token
	for _, p := range m.workers {
		s, why := p.child.slot, p.child.reason
		if s != nil && s.mode != slotGone && m.stop == nil && p.State() >= Draining && (why == ReasonReload || why == ReasonRecycle) && (r == nil || r.old != p) {
			return fmt.Sprintf("worker %d has been replaced, and others are while it drains", p.id)
		}
	}
	switch {
	case nexts > 1:
		return fmt.Sprintf("%d replacements at a time", nexts)
	case r == nil:
		if m.stop == nil && m.reload != nil && m.reload.gen != nil && m.forking == 0 {
			for _, p := range m.workers {
				if p.child.slot != nil && p.child.gen != m.reload.gen && (p.State() >= Draining || p.voluntary.Load()) {
					return "" // it waits for that one's death
				}
			}
			return "a reload that waits for nothing"
		}
		return ""
	case m.stop != nil:
		return "a replacement during a stop"
	case r.why == ReasonReload && (m.reload == nil || r.gen != m.reload.gen):
		return "a replacement for a reload that is over"
	case r.why == ReasonRecycle && r.old == nil && m.reload != nil && m.reload.gen != nil:
		return "a reload waits for a recycling that is not up"
	case r.old == nil && (r.s.next != r.next || r.s.mode == slotGone):
		return fmt.Sprintf("the replacement of slot %d is not its next", r.s.n)
	case r.old != nil && (r.old.State() < Draining || r.old.IsDead()):
		return fmt.Sprintf("worker %d has been replaced and is %v", r.old.id, r.old.State())
	}
	return ""
}

// wrongCapacity: who drains because of a reload or of recycling has a successor
// that is up.
func (w *world) wrongCapacity(m *master) string {
	for _, p := range m.workers {
		if p.State() < Draining || w.seen.draining[p] {
			continue
		}
		w.seen.draining[p] = true
		s, why := p.child.slot, p.child.reason
		if s == nil || s.mode == slotGone || why != ReasonReload && why != ReasonRecycle {
			continue
		}
		needed := Online
		if s.everReady {
			needed = Ready
		}
		if s.cur == nil || s.cur == p || s.cur.State() != needed && s.cur.State() != Ready {
			return fmt.Sprintf("worker %d of slot %d drains because of a %s, and nobody serves in its place", p.id, s.n, why)
		}
	}
	return ""
}

// wrongTimers: none is left of what is over. A timer that Stop ends was left.
func (w *world) wrongTimers(m *master) string {
	left := func(t *time.Timer) bool { return t != nil && t.Stop() }
	for _, p := range w.all {
		c := p.child
		if p.IsDead() && (left(c.startTimer) || left(c.killTimer) || left(c.watch.timer) || left(c.recycle.timer)) {
			return fmt.Sprintf("worker %d is dead, and a timer of it runs", p.id)
		}
	}
	for s := range w.seen.slots {
		if s.retry != nil {
			w.seen.retries[s.retry] = s
		}
		if (s.mode != slotLive || s.cur != nil || m.replacing(s)) && left(s.retry) {
			return fmt.Sprintf("slot %d is %v, and waits for its backoff", s.n, s.mode)
		}
	}
	for retry, s := range w.seen.retries {
		if retry != s.retry && left(retry) {
			return fmt.Sprintf("slot %d waits for a backoff that was decided otherwise", s.n)
		}
	}
	return ""
}

// pins reports whether programs are held open on this system.
var pins = func() bool {
	b, err := openBinary(&Options{}, false)
	if err != nil {
		return false
	}
	b.close()
	return isClosed(b)
}()

func isClosed(b *binary) bool {
	_, done, err := b.forExec(workerChannelFD)
	if err != nil {
		return errors.Is(err, errVoid)
	}
	done()
	return false
}

// wrongPrograms: a generation's program is open while a slot, the reload or the
// slots to come need it, and closed when none does.
func (w *world) wrongPrograms(m *master) string {
	used := make(map[*generation]bool)
	if m.idle != nil {
		used[m.idle] = true
		if len(m.slots) > 0 {
			return "a program is held for slots to come, though there are some"
		}
	}
	if m.reload != nil && m.reload.gen != nil {
		used[m.reload.gen] = true
	}
	for _, s := range m.slots {
		used[s.gen] = true
	}
	for g := range used {
		w.seen.gens[g] = true
	}
	for _, p := range w.all {
		if p.child.slot != nil {
			w.seen.gens[p.child.gen] = true
		}
	}
	for g := range w.seen.gens {
		if closed := isClosed(g.bin); pins && closed == used[g] {
			return fmt.Sprintf("the program of generation %d is needed: %v, closed: %v", g.n, used[g], closed)
		}
	}
	return ""
}

// wrongStop: nothing is forked from the beginning of a stop to its end.
func (w *world) wrongStop(m *master) string {
	switch {
	case m.stop == nil:
		w.frozen = 0
	case w.frozen == 0:
		w.frozen = len(w.all) + 1
	case w.frozen != len(w.all)+1:
		return "a fork during the stop"
	}
	if m.stop != nil && (m.reload != nil || len(m.reloadAsked) > 0 || len(m.recycling) > 0 || len(m.slots) > 0) {
		return "the supervision goes on during the stop"
	}
	return ""
}

// wrongForks: each worker dies once, and each slot runs its own generation.
func (w *world) wrongForks(m *master) string {
	for _, p := range w.all {
		if len(w.deaths[p]) > 1 || p.IsDead() != (m.workers[p.id] == nil) {
			return fmt.Sprintf("worker %d, %v, died %d times", p.id, p.State(), len(w.deaths[p]))
		}
	}
	for _, s := range m.slots {
		switch {
		case s.cur != nil && s.cur.child.gen != s.gen:
			return fmt.Sprintf("slot %d runs generation %d, and is of %d", s.n, s.cur.child.gen.n, s.gen.n)
		case s.next != nil && s.next.child.gen != m.token.gen:
			return fmt.Sprintf("slot %d gets generation %d instead of %d", s.n, s.next.child.gen.n, m.token.gen.n)
		case s.cur != nil && s.mode != slotLive:
			return fmt.Sprintf("slot %d is %v, and has a worker", s.n, s.mode)
		}
	}
	return ""
}

// wrongStats: Stats tells the state as it is.
func (w *world) wrongStats(m *master) string {
	s := m.snapshot()
	if s.Target != len(m.slots) || s.Reload.Running != (m.reload != nil) || s.Generation != m.completed {
		return fmt.Sprintf("Stats: target %d of %d, reload %v, generation %d", s.Target, len(m.slots), s.Reload.Running, s.Generation)
	}
	living, empty := 0, 0
	for _, ws := range s.Workers {
		if ws.ID == 0 {
			if sl := m.slots[ws.Slot]; sl.cur != nil || ws.PID != 0 || ws.State != sl.mode.empty() || ws.Generation != sl.gen.n {
				return fmt.Sprintf("Stats: slot %d: %+v", sl.n, ws)
			}
			empty++
			continue
		}
		living++
		p := m.workers[ws.ID]
		if p == nil || p.IsDead() || ws.PID != p.pid || ws.State != p.State().String() || ws.Slot != p.slot || ws.Generation != p.child.gen.n {
			return fmt.Sprintf("Stats: worker %d: %+v", ws.ID, ws)
		}
	}
	for _, sl := range m.slots {
		if sl.cur == nil {
			empty--
		}
	}
	if living != len(m.workers) || empty != 0 {
		return fmt.Sprintf("Stats: %d of %d workers, %d empty slots too many", living, len(m.workers), empty)
	}
	counted := make(map[Reason]int)
	for _, all := range w.deaths {
		for _, e := range all {
			counted[e.Reason]++
		}
	}
	for why, n := range s.Exits {
		if counted[why] != n {
			return fmt.Sprintf("Stats: %d exits by %s of %d", n, why, counted[why])
		}
	}
	return ""
}
