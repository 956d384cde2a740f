package supervise

import (
	"fmt"
	"slices"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
)

// ExitNoRestart is the exit status of a worker that is not to be replaced.
const ExitNoRestart = 78

// cleanAfter is how long a worker must have been ready for its exit with 0 to be no
// crash: another process has told it to stop, or it has done its work.
const cleanAfter = time.Second

// slot is one of the places that AutoFork keeps filled.
type slot struct {
	m *Machine

	ID         int // never reused
	Place      int
	Generation int // what its workers are forked from
	Mode       slotMode

	Current int // its worker; 0: none
	Next    int // the worker that is to replace the current one, and is not up yet

	Failures  int  // crashes in a row, for the backoff
	Boots     int  // deaths before ready in a row
	EverReady bool // some worker of this slot was ready
	EverUp    bool // some worker of this slot was online for Backoff.Reset
	Restarts  int
	LastExit  string

	RetryAt  time.Time // when it is filled again
	Pending  int       // counts the decisions about it: a fork of an older one is superseded
	Recycles int       // replacements for recycling that failed, in a row
}

type slotMode int

const (
	slotLive     slotMode = iota // it is filled again
	slotStopped                  // its worker's end was asked for: empty until AutoFork, Scale, Reload or Restart
	slotResigned                 // its worker said ExitNoRestart
	slotRemoved                  // nothing is forked here any more
)

// String is how a slot without a worker is shown.
func (mode slotMode) String() string {
	switch mode {
	case slotStopped:
		return "off"
	case slotResigned:
		return "out"
	}
	return "empty"
}

func (s *slot) settings() *Settings { return &s.m.st.Generations[s.Generation].Settings }

// current is the slot's worker, or nil.
func (s *slot) current() *Worker { return s.m.worker(s.Current) }

// ---- AutoFork

// autoFork does an AutoFork whose program is open.
func (o opening) autoFork(m *Machine, g *generation, err error) {
	if err == nil {
		err = m.st.closed()
	}
	if err != nil {
		m.release(g.ID)
		m.answer(o.Call, callError("AutoFork", err))
		return
	}
	if len(m.st.running()) > 0 || m.st.forking() > 0 || m.st.filling() || m.st.Idle != 0 && g.Settings.Workers == 0 {
		m.release(g.ID)
		m.answer(o.Call, nil)
		return
	}
	m.dropSlots(errs.Closed)
	m.st.GaveUp, m.st.ProvenBefore = Failure{}, false
	var fill []vacancy
	for range g.Settings.Workers {
		fill = append(fill, vacancy{Slot: newSlot(m, g).ID})
	}
	m.st.enter(g)
	m.st.Completed = g.Number
	m.release(g.ID) // unless there are slots
	newFill(m, o.Call, true, fill)
}

// newSlot adds a slot at the end of the row.
func newSlot(m *Machine, g *generation) *slot {
	m.st.Last.Slot++
	s := &slot{m: m, ID: m.st.Last.Slot, Place: len(m.st.Slots), Generation: g.ID}
	m.st.Slots = append(m.st.Slots, s)
	return s
}

// dropSlots ends all supervision: a worker that dies from now on is not replaced.
func (m *Machine) dropSlots(why error) {
	m.cancelJobs(why)
	dropped, idle := m.st.Slots, m.st.Idle
	m.st.Slots, m.st.Idle = nil, 0
	for _, s := range dropped {
		s.leave()
		m.release(s.Generation)
	}
	m.release(idle)
}

// leave removes the slot, which its caller has taken out of the row.
func (s *slot) leave() {
	s.Mode = slotRemoved
	s.cancelRetry()
	s.m.st.Removed = append(s.m.st.Removed, s)
}

// ---- filling a slot again

// cancelRetry supersedes the fork under way, or the one to come, that would fill
// the slot.
func (s *slot) cancelRetry() {
	s.Pending++
	s.RetryAt = time.Time{}
}

// refork fills the slot after d, from its own generation.
func (s *slot) refork(d time.Duration) {
	s.cancelRetry()
	s.RetryAt = s.m.now.Add(d)
}

// retry fills the slot now.
func (s *slot) retry() {
	s.RetryAt = time.Time{}
	if err := (&Worker{m: s.m, Slot: s.ID, Generation: s.Generation, Pending: s.Pending}).start(nil); err != nil {
		s.forkFailed(s.Pending, callError("Fork", err))
	}
}

// forkFailed counts a fork that failed as a crash.
func (s *slot) forkFailed(pending int, err error) {
	if s.Mode != slotLive || s.Pending != pending || s.m.st.Stop != nil {
		return
	}
	d := max(s.nextDelay(), s.settings().Backoff.Min)
	s.m.host.Tell(ForkFailed{s.Generation, s.Place, err, d})
	s.refork(d)
}

// nextDelay counts one more crash and returns how long to wait.
func (s *slot) nextDelay() time.Duration {
	s.Failures++
	return s.settings().Backoff.delay(s.Failures, s.m.st.Dice.cast())
}

// ---- death

// lost decides what follows the death of a worker of this slot.
func (s *slot) lost(w *Worker, e Exit) {
	m := s.m
	// The slot of a replacement that has failed goes on with its worker. The outcome of the
	// reload or restart tells of it.
	if failed := w.Replacement != 0 && !w.Promoted && w.ID != s.Current && s.Current != 0; !failed {
		s.LastExit = e.String()
	}
	s.EverUp = s.EverUp || w.longUp()
	switch w.ID {
	case s.Next:
		s.Next = 0
		if r := m.st.Replacing; r != nil && r.Next == w.ID {
			r.failed(fmt.Errorf("the new worker of slot %d ended before it was up%s: %v%s", s.Place, w.heldFor(), e, said(e.LastWords)))
		}
	case s.Current:
		s.Current = 0
		s.emptied(w, e)
		m.checkReload(s, w, e)
	}
	// A reload goes on when the predecessor is gone, so that no old worker answers any
	// more when it is reported done.
	if r := m.st.Replacing; r != nil && r.Old == w.ID {
		if job := m.st.Reload; e.Undead && job != nil && r.Why == ReasonReload && job.Failed.Err == nil {
			job.Failed = Failure{fmt.Errorf("the old worker of slot %d: %w", s.Place, undead(w))}
		}
		r.end(nil)
	} else if m.st.Reload != nil {
		m.nextJob()
	}
}

// isClean reports whether the worker's exit is no crash: see cleanAfter.
func (w *Worker) isClean(e Exit) bool {
	return e.asked() && w.wasReady() && w.m.now.Sub(w.ReadyAt) >= cleanAfter
}

// heldFor is the part of an error text about a worker that came up and died within
// ReadyFor. It is "" for one that was not up.
func (w *Worker) heldFor() string {
	if w.HoldBy.IsZero() {
		return ""
	}
	return fmt.Sprintf(" for %v (ReadyFor)", w.settings().ReadyFor)
}

// emptied decides how the slot is filled again after w's death.
func (s *slot) emptied(w *Worker, e Exit) {
	m := s.m
	if m.st.Stop != nil || s.Mode == slotRemoved || s.beingReplaced() {
		return // nothing follows, or the replacement inherits the slot
	}
	o := s.settings()
	ready := time.Duration(0)
	if w.wasReady() {
		ready = m.now.Sub(w.ReadyAt)
	}
	if ready >= o.Backoff.Reset || !w.wasReady() && w.longUp() {
		s.Failures = 0
	}
	switch {
	case e.Voluntary:
		s.Mode = slotStopped
		return
	case e.Code == ExitNoRestart:
		s.Mode = slotResigned
		m.host.Tell(Resigned{w.ID, s.Place, e})
		m.st.LastOut = Failure{fmt.Errorf("the last with %v%s", e, said(e.LastWords))}
		m.checkAllResigned()
		return
	case w.isClean(e) || w.Respawn:
		s.Restarts++
		s.refork(0)
		return
	}
	if !w.wasReady() {
		s.Boots++
	}
	m.host.Tell(Crashed{w.ID, s.Place, e, !w.wasReady()})
	if o.MaxBootFailures > 0 && s.Boots >= o.MaxBootFailures && !m.st.proven() {
		m.giveUp(fmt.Errorf("cluster: %w: %d in a row in slot %d, the last with %v%s", errs.BootLoop, s.Boots, s.Place, e, said(e.LastWords)), s.Generation)
		return
	}
	s.Restarts++
	s.refork(s.nextDelay())
}

// checkAllResigned gives up when no slot is to be filled again, and no replacement
// is on its way to one.
func (m *Machine) checkAllResigned() {
	if len(m.st.Slots) == 0 || m.st.Replacing != nil || m.st.Reload != nil {
		return
	}
	if slices.ContainsFunc(m.st.Slots, func(s *slot) bool { return s.Mode != slotResigned }) {
		return
	}
	m.giveUp(fmt.Errorf("cluster: %w: all exited with status %d (ExitNoRestart), %w", errs.NoWorkers, ExitNoRestart, m.st.LastOut.Err), m.st.Slots[0].Generation)
}

// proven reports whether a worker of this slot proved that the program works.
func (s *slot) proven() bool {
	w := s.current()
	return s.EverReady || s.EverUp || w != nil && w.longUp()
}

// giveUp ends the supervision, and with it a Run.
func (m *Machine) giveUp(err error, generation int) {
	m.st.GaveUp = Failure{err}
	m.host.Tell(GaveUp{generation, err})
	m.dropSlots(err)
}

// GaveUp returns why the supervision has ended by itself, or nil.
func (m *Machine) GaveUp() error { return m.st.GaveUp.Err }
