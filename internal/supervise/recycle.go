package supervise

import (
	"slices"
	"time"
)

// Limits are the limits after which a worker is replaced: those of the settings, each with
// a jitter of the worker's own.
type Limits struct {
	Connections int
	Age         time.Duration
	Memory      int64 // bytes

	NotBefore time.Time // the worker is not replaced before: a replacement has failed
	Due       bool      // a limit was reached before the worker had its slot
	DueAt     time.Time // when the worker is replaced
}

func newLimits(o Recycle, d *dice) (l Limits) {
	l.Connections = jittered(o.Connections, o.Jitter, d.cast())
	if o.Connections > 0 {
		l.Connections = max(1, l.Connections) // 0 is no limit
	}
	l.Age = jittered(o.Age, o.Jitter, d.cast())
	l.Memory = jittered(o.Memory, o.Jitter, d.cast())
	return l
}

// beginAge begins to count a worker's age.
func (w *Worker) beginAge() {
	if w.Slot != 0 && w.Limits.Age > 0 {
		w.Limits.DueAt = w.m.now.Add(max(w.Limits.Age, w.settings().Recycle.MinAge))
	}
}

// checkMemory compares the worker's memory with its limit. It asks the system, and uses the
// worker's own figure if the system does not tell.
func (w *Worker) checkMemory() {
	size := w.m.host.Resident(w.ID)
	if size == 0 {
		size = w.Watch.Pulse.Memory
	}
	if size > w.Limits.Memory {
		w.wantRecycling()
	}
}

// wantRecycling queues the worker for replacement, or sets DueAt if that is too early.
func (w *Worker) wantRecycling() {
	m, s := w.m, w.slot()
	if s == nil || s.Mode == slotRemoved || w.State >= Draining || m.st.Stop != nil {
		return
	}
	if s.Next == w.ID { // promote asks again: a worker says only once that it is full
		w.Limits.Due = true
	}
	if s.Current != w.ID {
		return
	}
	wait := max(w.settings().Recycle.MinAge-m.now.Sub(w.Started), w.Limits.NotBefore.Sub(m.now))
	if wait > 0 {
		w.Limits.DueAt = m.now.Add(wait)
		return
	}
	// A reload of the slot does not count, since it may fail.
	underWay := s.beingReplaced() && m.st.Replacing.Why == ReasonRecycle
	if !underWay && !slices.Contains(m.st.Recycling, w.ID) {
		m.st.Recycling = append(m.st.Recycling, w.ID)
	}
	m.nextJob()
}

// nextRecycling replaces the next worker that is due. No replacement is under way,
// and no reload waits for its turn.
func (m *Machine) nextRecycling() {
	for len(m.st.Recycling) > 0 {
		w := m.worker(m.st.Recycling[0])
		m.st.Recycling = m.st.Recycling[1:]
		if w == nil {
			continue
		}
		if s := w.slot(); s.Current == w.ID && s.Mode == slotLive && w.State < Draining {
			m.replace(s, s.Generation, ReasonRecycle, w.ID)
			return
		}
	}
}

// recycled takes the outcome of a replacement for recycling.
func (r *replacement) recycled(err error) {
	m, s := r.m, r.slot()
	if s == nil {
		return
	}
	if err == nil {
		s.Recycles = 0
		return
	}
	// The old worker serves on, and is due again later.
	s.Recycles++
	w := m.worker(r.Due)
	if w == nil {
		return
	}
	d := s.settings().Backoff.delay(s.Recycles+1, m.st.Dice.cast())
	m.host.Tell(RecyclingFailed{w.ID, s.Place, err, d})
	w.Limits.NotBefore = m.now.Add(d)
	w.Limits.DueAt = w.Limits.NotBefore
}
