package supervise

import "fmt"

// What must hold at any time, whatever happens.

// wrong tells what does not hold, if anything.
func (w *simulation) wrong() string {
	for _, check := range []func() string{
		w.m.inconsistent, w.wrongReplacement, w.wrongCapacity, w.wrongDeadlines, w.wrongPrograms, w.wrongStop, w.wrongForks, w.wrongShown, w.wrongSnapshot,
	} {
		if wrong := check(); wrong != "" {
			return wrong
		}
	}
	return ""
}

// inconsistent tells what is wrong with the state, if anything is.
func (m *Machine) inconsistent() string {
	st := &m.st
	owners := make(map[int]bool)
	for i, s := range st.Slots {
		for _, id := range []int{s.Current, s.Next} {
			if id == 0 {
				continue
			}
			if w := m.worker(id); w == nil || owners[id] || s.Place != i || w.Place != i || w.slot() != s {
				return fmt.Sprintf("worker %d is not in its place in slot %d", id, i)
			}
			owners[id] = true
		}
		switch r := st.Replacing; {
		case s.Next != 0 && (r == nil || r.Slot != s.ID || r.Next != s.Next):
			return fmt.Sprintf("slot %d has a next worker without a replacement", i)
		case s.Current == 0 && s.Mode == slotLive && s.RetryAt.IsZero() && st.forking() == 0 && len(st.Fills) == 0 && !s.beingReplaced():
			return fmt.Sprintf("slot %d is left empty", i)
		case !st.Generations[s.Generation].Open:
			return fmt.Sprintf("slot %d has no program", i)
		}
	}
	for _, w := range st.running() {
		// Without Run those live on that were there when the supervision gave up.
		if s := w.slot(); s != nil && !owners[w.ID] && !w.Voluntary && (m.GaveUp() == nil || s.Mode != slotRemoved) {
			return fmt.Sprintf("worker %d is nobody's", w.ID)
		}
	}
	return ""
}

// wrongReplacement: one in the cluster at a time, and none without a job that wants
// it.
func (w *simulation) wrongReplacement() string {
	st := &w.m.st
	nexts := 0
	for _, s := range append(st.Slots, st.Removed...) {
		if s.Next != 0 && st.Stop == nil {
			nexts++
		}
	}
	r := st.Replacing
	for _, p := range st.running() {
		s, why := p.slot(), p.Reason
		if s != nil && s.Mode != slotRemoved && st.Stop == nil && p.State >= Draining && (why == ReasonReload || why == ReasonRecycle || why == ReasonRestart) && (r == nil || r.Old != p.ID) {
			return fmt.Sprintf("worker %d has been replaced, and others are while it drains", p.ID)
		}
	}
	switch {
	case nexts > 1:
		return fmt.Sprintf("%d replacements at a time", nexts)
	case r == nil:
		if st.Stop == nil && st.Reload != nil && st.Reload.Opened && st.forking() == 0 {
			for _, p := range st.running() {
				if p.Slot != 0 && p.Generation != st.Reload.Generation && (p.State >= Draining || p.Voluntary) {
					return "" // it waits for that one's death
				}
			}
			return "a reload that waits for nothing"
		}
		return ""
	case st.Stop != nil:
		return "a replacement during a stop"
	case r.Why == ReasonReload && (st.Reload == nil || r.Generation != st.Reload.Generation):
		return "a replacement for a reload that is over"
	case r.Why != ReasonReload && r.Old == 0 && st.Reload != nil && st.Reload.Opened:
		return "a reload waits for another replacement that is not up"
	case r.Old == 0 && (r.slot().Next != r.Next || r.slot().Mode == slotRemoved):
		return fmt.Sprintf("the replacement of slot %d is not its next", r.slot().Place)
	}
	if r.Old != 0 {
		if old := w.proc(r.Old); old.State() < Draining || old.IsDead() {
			return fmt.Sprintf("worker %d has been replaced and is %v", r.Old, old.State())
		}
	}
	return ""
}

// wrongCapacity checks that a worker that drains because of a reload, a restart or recycling has
// a successor that is up.
func (w *simulation) wrongCapacity() string {
	for _, p := range w.list() {
		if p.State() < Draining || w.draining[p] {
			continue
		}
		w.draining[p] = true
		r := p.worker()
		s, why := r.slot(), r.Reason
		if s == nil || s.Mode == slotRemoved || why != ReasonReload && why != ReasonRecycle && why != ReasonRestart {
			continue
		}
		needed := Online
		if s.EverReady {
			needed = Ready
		}
		if cur := w.of(s.Current); cur == nil || cur == p || cur.State() != needed && cur.State() != Ready {
			return fmt.Sprintf("worker %d of slot %d drains because of a %s, and nobody serves in its place", p.id, s.Place, why)
		}
	}
	return ""
}

// wrongDeadlines: none is left of what is over.
func (w *simulation) wrongDeadlines() string {
	st := &w.m.st
	for _, p := range st.Workers {
		for _, d := range p.deadlines() {
			if p.Forking && !d.at.IsZero() {
				return fmt.Sprintf("worker %d has no process, and a deadline", p.ID)
			}
		}
	}
	for _, s := range append(st.Slots, st.Removed...) {
		if (s.Mode != slotLive || s.Current != 0 || s.beingReplaced()) && !s.RetryAt.IsZero() {
			return fmt.Sprintf("slot %d is %v, and waits for its backoff", s.Place, s.Mode)
		}
	}
	if next := w.m.Next(); !next.IsZero() && next.Before(w.now) {
		return "something is overdue"
	}
	return ""
}

// wrongPrograms: a generation's program is open while a slot, the reload or the
// slots to come need it, and closed when none does. What nothing refers to is
// forgotten.
func (w *simulation) wrongPrograms() string {
	st := &w.m.st
	used := make(map[int]bool)
	if st.Idle != 0 {
		used[st.Idle] = true
		if len(st.Slots) > 0 {
			return "a program is held for slots to come, though there are some"
		}
	}
	if st.Reload != nil && st.Reload.Opened {
		used[st.Reload.Generation] = true
	}
	for _, s := range st.Slots {
		used[s.Generation] = true
	}
	for _, o := range st.Openings {
		used[o.Generation] = true
	}
	refers := make(map[int]bool)
	for _, p := range st.Workers {
		refers[p.Generation] = true
		if p.Slot == 0 && p.Forking {
			used[p.Generation] = true
		}
	}
	for _, s := range st.Removed {
		refers[s.Generation] = true
	}
	for id, p := range w.programs {
		if p.open != used[id] {
			return fmt.Sprintf("the program of generation %d is needed: %v, open: %v", id, used[id], p.open)
		}
	}
	for id, g := range st.Generations {
		if g.Open != used[id] || !g.Open && !refers[id] {
			return fmt.Sprintf("generation %d is needed: %v, open: %v, and remembered", id, used[id], g.Open)
		}
	}
	for _, s := range st.Removed {
		is := false
		for _, p := range st.Workers {
			is = is || p.Slot == s.ID
		}
		if !is {
			return fmt.Sprintf("slot %d is removed, has no worker, and is remembered", s.Place)
		}
	}
	return ""
}

// wrongStop: nothing is forked from the beginning of a stop to its end.
func (w *simulation) wrongStop() string {
	st := &w.m.st
	switch {
	case st.Stop == nil:
		w.frozen = 0
	case w.frozen == 0:
		w.frozen = len(w.all) + 1
	case w.frozen != len(w.all)+1:
		return "a fork during the stop"
	}
	if st.Stop != nil && (st.Reload != nil || len(st.ReloadAsked) > 0 || len(st.Recycling) > 0 || len(st.Slots) > 0) {
		return "the supervision goes on during the stop"
	}
	return ""
}

// wrongForks: each worker dies once, and each slot runs its own generation.
func (w *simulation) wrongForks() string {
	st := &w.m.st
	for _, p := range w.forked() {
		if len(p.exits) > 1 || p.IsDead() != (st.Workers[p.id] == nil) {
			return fmt.Sprintf("worker %d, %v, died %d times", p.id, p.State(), len(p.exits))
		}
	}
	for _, s := range st.Slots {
		cur, next := st.Workers[s.Current], st.Workers[s.Next]
		switch {
		case cur != nil && cur.Generation != s.Generation:
			return fmt.Sprintf("slot %d runs generation %d, and is of %d", s.Place, cur.Generation, s.Generation)
		case next != nil && next.Generation != st.Replacing.Generation:
			return fmt.Sprintf("slot %d gets generation %d instead of %d", s.Place, next.Generation, st.Replacing.Generation)
		case cur != nil && s.Mode != slotLive:
			return fmt.Sprintf("slot %d is %v, and has a worker", s.Place, s.Mode)
		}
	}
	return ""
}

// wrongShown: what the events have shown of the workers is what they are.
func (w *simulation) wrongShown() string {
	for _, p := range w.list() {
		if r := p.worker(); r.State != p.state || r.Voluntary != p.voluntary {
			return fmt.Sprintf("worker %d is %v, voluntary: %v, and is shown as %v, %v", p.id, r.State, r.Voluntary, p.state, p.voluntary)
		}
	}
	return ""
}

// wrongSnapshot: the snapshot tells the state as it is.
func (w *simulation) wrongSnapshot() string {
	st, s := &w.m.st, w.stats()
	if s.Target != len(st.Slots) || s.Reloading != (st.Reload != nil) || s.Generation != st.Completed {
		return fmt.Sprintf("snapshot: target %d of %d, reload %v, generation %d", s.Target, len(st.Slots), s.Reloading, s.Generation)
	}
	for _, i := range s.Empty {
		if sl := st.Slots[i.Place]; sl.Current != 0 || i.Mode != sl.Mode.String() {
			return fmt.Sprintf("snapshot: slot %d: %+v", sl.Place, i)
		}
	}
	empty := len(s.Empty)
	for _, sl := range st.Slots {
		if sl.Current == 0 {
			empty--
		}
	}
	if len(s.Workers) != len(w.list()) || empty != 0 {
		return fmt.Sprintf("snapshot: %d of %d workers, %d empty slots too many", len(s.Workers), len(w.list()), empty)
	}
	counted := make(map[Reason]int)
	for _, p := range w.all {
		for _, e := range p.exits {
			counted[e.Reason]++
		}
	}
	for why, n := range s.Exits {
		if counted[why] != n {
			return fmt.Sprintf("snapshot: %d exits by %s of %d", n, why, counted[why])
		}
	}
	return ""
}
