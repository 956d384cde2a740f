package supervise

import (
	"fmt"
	"slices"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
)

// What is ordered for one slot: its worker is to be replaced, to end, or to be
// killed.

// Orders is a Machine as it is given orders for one slot. As its methods they belong
// to one goroutine.
type Orders struct{ *Machine }

// restart is an order to replace the worker of a slot, until its turn comes.
type restart struct{ Call, Slot int }

// Restart replaces the worker of a slot by one of the same program, which is up
// before the old one drains; or it fills the slot, if that is empty. It waits for
// the replacement under way, and for a reload. The outcome is Answered, when the
// old worker is gone.
func (m Orders) Restart(now time.Time, call, place int) {
	m.now = now
	defer m.settle()
	s, err := m.slotAt(place)
	if err != nil {
		m.answer(call, callError("Restart", err))
		return
	}
	m.st.Restarts = append(m.st.Restarts, restart{call, s.ID})
	m.nextJob()
}

// Vacate ends the worker of a slot, which stays empty until AutoFork, Scale, a
// reload or Restart fills it. It returns the worker, or 0 if there is none.
func (m Orders) Vacate(now time.Time, place int) (worker int, err error) {
	m.now = now
	defer m.settle()
	s, err := m.slotAt(place)
	if err != nil {
		return 0, callError("Vacate", err)
	}
	s.refuseRestarts(fmt.Errorf("slot %d was emptied meanwhile: %w", place, errs.Closed))
	w := s.current()
	if w != nil {
		w.drainFor(ReasonDrain)
		worker = w.ID
	}
	if r := m.st.Replacing; s.beingReplaced() && r.Why == ReasonRecycle {
		r.drop() // a reload's goes on: it fills the slot
	}
	if w == nil && s.Mode == slotLive && !s.beingReplaced() {
		s.cancelRetry() // and a fork under way is superseded
		s.Mode = slotStopped
	}
	m.nextJob()
	return worker, nil
}

// Respawn kills the worker of a slot, which is filled again at once. It returns the
// worker.
func (m Orders) Respawn(now time.Time, place int) (worker int, err error) {
	m.now = now
	defer m.settle()
	s, err := m.slotAt(place)
	if err != nil {
		return 0, callError("Respawn", err)
	}
	w := s.current()
	if w == nil {
		return 0, fmt.Errorf("cluster: Respawn: slot %d is empty: %w", place, errs.NoWorkers)
	}
	w.Respawn = true
	w.killFor(ReasonKill)
	return w.ID, nil
}

// slotAt returns the slot that an order is for.
func (m Orders) slotAt(place int) (*slot, error) {
	switch {
	case m.st.Stop != nil:
		return nil, errs.Closed
	case place < 0 || place >= len(m.st.Slots):
		return nil, fmt.Errorf("no slot %d, of %d: %w", place, len(m.st.Slots), errs.NoWorkers)
	}
	return m.st.Slots[place], nil
}

// next begins the next restart, if one waits. No replacement is under way,
// and no reload.
func (m Orders) next() (begun bool) {
	for len(m.st.Restarts) > 0 && !begun {
		o := m.st.Restarts[0]
		m.st.Restarts = m.st.Restarts[1:]
		s := m.st.slot(o.Slot)
		if s == nil || s.Mode == slotRemoved {
			m.answer(o.Call, callError("Restart", fmt.Errorf("the slot was removed meanwhile: %w", errs.Closed)))
			continue
		}
		m.replace(s, s.Generation, ReasonRestart, 0)
		m.st.Replacing.Call = o.Call
		begun = true
	}
	return begun
}

// restarted is the outcome of a replacement for a restart.
func (r *replacement) restarted(err error) {
	if err != nil {
		err = callError("Restart", err)
	}
	r.m.answer(r.Call, err)
}

// waitAgain puts a restart that gives way back to the front.
func (r *replacement) waitAgain() {
	r.m.st.Restarts = slices.Insert(r.m.st.Restarts, 0, restart{r.Call, r.Slot})
}

// refuseRestarts gives up those of the slot, unless the new worker is up.
func (s *slot) refuseRestarts(why error) {
	m := s.m
	m.st.Restarts = slices.DeleteFunc(m.st.Restarts, func(o restart) bool {
		if o.Slot == s.ID {
			m.answer(o.Call, callError("Restart", why))
		}
		return o.Slot == s.ID
	})
	if r := m.st.Replacing; s.beingReplaced() && r.Why == ReasonRestart {
		r.failed(why)
	}
}

// cancel gives up all, because the supervision ends.
func (m Orders) cancel(why error) {
	waiting := m.st.Restarts
	m.st.Restarts = nil
	if r := m.st.Replacing; r != nil && r.Why == ReasonRestart {
		m.answer(r.Call, callError("Restart", why))
	}
	for _, o := range waiting {
		m.answer(o.Call, callError("Restart", why))
	}
}
