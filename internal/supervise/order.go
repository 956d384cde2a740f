package supervise

import (
	"fmt"
	"slices"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
)

// Orders for one slot: its worker is to be replaced, to be drained, or to be killed.

// Orders has the methods of a Machine that take orders for one slot. They belong to the
// Machine's goroutine too.
type Orders struct{ *Machine }

// restart is an order to replace the worker of a slot, which waits for its turn.
type restart struct{ Call, Slot int }

// Restart replaces the worker of the slot in a place, or fills the slot if it is empty. The
// new worker is of the same program, and is up before the old one drains. A replacement
// under way and a reload go first. The outcome is Answered, when the old worker is gone.
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

// Vacate drains the worker of the slot in a place. The slot stays empty until AutoFork,
// Scale, a reload or Restart fills it. Vacate returns the worker, or 0 if there is none.
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
		r.drop() // one for a reload goes on, and fills the slot
	}
	if w == nil && s.Mode == slotLive && !s.beingReplaced() {
		s.cancelRetry() // supersedes a fork under way as well
		s.Mode = slotStopped
	}
	m.nextJob()
	return worker, nil
}

// Respawn kills the worker of the slot in a place, and the slot is filled again at once. It
// returns the worker.
func (m Orders) Respawn(now time.Time, place int) (worker int, err error) {
	m.now = now
	defer m.settle()
	s, err := m.slotAt(place)
	if err != nil {
		return 0, callError("Respawn", err)
	}
	w := s.current()
	if w == nil {
		return 0, fmt.Errorf("cluster: Respawn: slot %d is empty, a restart fills it: %w", place, errs.NoWorkers)
	}
	w.Respawn = true
	w.killFor(ReasonKill)
	return w.ID, nil
}

// slotAt returns the slot in a place, or why it can take no order.
func (m Orders) slotAt(place int) (*slot, error) {
	switch {
	case m.st.Stop != nil:
		return nil, errs.Closed
	case place < 0 || place >= len(m.st.Slots):
		return nil, fmt.Errorf("no slot %d, of %d: %w", place, len(m.st.Slots), errs.NoWorkers)
	}
	return m.st.Slots[place], nil
}

// next begins the next restart, if one waits. It is called when no replacement and no
// reload is under way.
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

// restarted takes the outcome of a replacement for a restart.
func (r *replacement) restarted(err error) {
	if err != nil {
		err = callError("Restart", err)
	}
	r.m.answer(r.Call, err)
}

// waitAgain puts a restart back to the front of the queue, since it gives way to a reload.
func (r *replacement) waitAgain() {
	r.m.st.Restarts = slices.Insert(r.m.st.Restarts, 0, restart{r.Call, r.Slot})
}

// refuseRestarts gives up the restarts of the slot, unless the new worker is up already.
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

// cancel gives up all restarts, because the supervision ends.
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
