package supervise

import (
	"errors"
	"slices"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
)

// start gives the worker its number and has its process started, unless something
// else was decided for its slot meanwhile.
func (w *Worker) start(env []string) error {
	m := w.m
	if err := m.st.closed(); err != nil {
		return err
	}
	if w.superseded() {
		return ErrSuperseded
	}
	m.st.Last.Worker++
	w.ID, w.Forking, w.Place = m.st.Last.Worker, true, -1
	settings := w.settings()
	o := Order{Worker: w.ID, Generation: w.Generation, Place: -1, Workers: settings.Workers, Env: env}
	if s := w.slot(); s != nil {
		// The generation's options, with the number of slots as it is now: new
		// workers share the cores with those that there are.
		w.Place, o.Place, o.Workers = s.Place, s.Place, len(m.st.Slots)
	}
	w.Limits = newLimits(settings.Recycle, &m.st.Dice)
	o.Connections = w.Limits.Connections
	m.st.Workers[w.ID] = w
	m.host.Start(o)
	return nil
}

// fork does a Fork whose program is open.
func (o opening) fork(m *Machine, g *generation, err error) {
	if err == nil {
		err = (&Worker{m: m, Generation: g.ID, Call: o.Call}).start(o.Env)
	}
	if err != nil {
		m.answer(o.Call, callError("Fork", err))
		m.release(g.ID)
	}
}

// superseded reports whether something else was decided for the worker's slot
// since the worker was.
func (w *Worker) superseded() bool {
	if w.Slot == 0 {
		return false
	}
	s, r := w.slot(), w.m.st.Replacing
	return s == nil || s.Mode == slotRemoved || s.Pending != w.Pending || w.Replacement != 0 && (r == nil || r.ID != w.Replacement)
}

// supersededBy returns why a worker ends that was superseded while it was being forked.
func (w *Worker) supersededBy() Reason {
	switch s := w.slot(); {
	case w.Replacement != 0:
		return w.For
	case s == nil || s.Mode == slotRemoved:
		return ReasonScale
	case s.Mode == slotStopped:
		return ReasonDrain
	}
	return ReasonReload // its replacement was faster
}

// OutputAsked says that the worker's fork waits for Options.Output. A stop does not wait
// for such a fork, since Output itself may have called for the stop.
func (m *Machine) OutputAsked(now time.Time, worker int) {
	m.now = now
	defer m.settle()
	if w := m.st.Workers[worker]; w != nil {
		w.InOutput = true
	}
}

// OutputGiven says that Options.Output has returned. The fork goes on, unless OutputGiven
// returns an error.
func (m *Machine) OutputGiven(now time.Time, worker int) error {
	m.now = now
	defer m.settle()
	w := m.st.Workers[worker]
	if w == nil {
		return errs.Closed
	}
	w.InOutput = false
	if err := m.st.closed(); err != nil {
		return err
	}
	if s := w.slot(); w.Slot != 0 && (s == nil || s.Mode == slotRemoved) {
		return errs.Closed
	}
	return nil
}

// Started says that the worker's process exists. From here on the host reports
// what happens to it.
func (m *Machine) Started(now time.Time, worker, pid int, at time.Time) {
	m.now = now
	defer m.settle()
	w := m.st.Workers[worker]
	if w == nil || !w.Forking {
		return
	}
	w.Forking, w.InOutput, w.PID, w.Started = false, false, pid, at
	m.host.Tell(Forked{worker})
	w.StartBy = now.Add(w.settings().StartTimeout)
	superseded := w.superseded()
	if s := w.slot(); s != nil && !superseded {
		if w.Replacement != 0 {
			m.st.Replacing.Next, s.Next = w.ID, w.ID
		} else {
			s.Current = w.ID
		}
	}
	w.beginWatch()
	w.beginAge()
	switch stop := m.st.Stop; {
	case stop != nil && stop.Now:
		w.killForStop()
	case stop != nil:
		w.drainFor(ReasonStop)
	case superseded:
		w.setVoluntary(true)
		w.killFor(w.supersededBy())
	}
	if f := w.fill(); f != nil {
		f.Forking = vacancy{}
	}
	if w.Slot == 0 {
		m.host.Tell(Answered{Call: w.Call, Worker: worker})
		m.release(w.Generation)
	}
}

// StartFailed says that there is no process for the worker.
func (m *Machine) StartFailed(now time.Time, worker int, err error) {
	m.now = now
	defer m.settle()
	w := m.st.Workers[worker]
	if w == nil || !w.Forking {
		return
	}
	delete(m.st.Workers, worker)
	m.host.Tell(NotForked{worker})
	err = callError("Fork", err)
	switch {
	case w.Slot == 0:
		m.answer(w.Call, err)
		m.release(w.Generation)
	case w.Replacement != 0:
		if r := m.st.Replacing; r != nil && r.ID == w.Replacement {
			r.failed(err)
		}
	case w.fill() != nil:
		w.fill().failed(err)
	default:
		if s := w.slot(); s != nil {
			s.forkFailed(w.Pending, err)
		}
	}
}

// fill is an AutoFork or a Scale that has slots to fill, one after the other.
type fill struct {
	m *Machine

	ID, Call int
	All      bool // of AutoFork: if one slot cannot be filled, none stays filled
	Slots    []int
	Left     []vacancy // to be filled
	Forking  vacancy   // being filled
	Failed   []Failure
	Killed   []int // workers of an AutoFork that failed; the next AutoFork has to wait for their end
}

// vacancy is a slot to be filled. A later decision about the slot supersedes it.
type vacancy struct{ Slot, Pending int }

// newFill begins a fill.
func newFill(m *Machine, call int, all bool, slots []vacancy) {
	m.st.Last.Fill++
	f := &fill{m: m, ID: m.st.Last.Fill, Call: call, All: all, Left: slots}
	for _, v := range slots {
		f.Slots = append(f.Slots, v.Slot)
	}
	m.st.Fills = append(m.st.Fills, f)
}

// fill returns the fill that the worker was forked for, or nil if that is over.
func (w *Worker) fill() *fill {
	i := slices.IndexFunc(w.m.st.Fills, func(f *fill) bool { return f.ID == w.Fill })
	if i < 0 {
		return nil
	}
	return w.m.st.Fills[i]
}

// next fills the next slot, or ends the fill when none is left. It reports whether
// there was anything to do.
func (f *fill) next() bool {
	m := f.m
	switch {
	case f.Forking != vacancy{} || len(f.Killed) > 0:
		return false
	case len(f.Left) == 0:
		m.st.Fills = slices.DeleteFunc(m.st.Fills, func(other *fill) bool { return other == f })
		var failed []error
		for _, err := range f.Failed {
			failed = append(failed, err.Err)
		}
		if f.All && len(failed) > 0 {
			m.answer(f.Call, failed[0])
		} else {
			m.answer(f.Call, errors.Join(failed...))
		}
		return true
	}
	f.Forking, f.Left = f.Left[0], f.Left[1:]
	w := &Worker{m: m, Slot: f.Forking.Slot, Pending: f.Forking.Pending, Fill: f.ID}
	if s := m.st.slot(w.Slot); s != nil {
		w.Generation = s.Generation
	}
	if err := w.start(nil); err != nil {
		f.failed(callError("Fork", err))
	}
	return true
}

// failed is called when the slot under way could not be filled.
func (f *fill) failed(err error) {
	v := f.Forking
	f.Forking = vacancy{}
	if errors.Is(err, ErrSuperseded) {
		return
	}
	f.Failed = append(f.Failed, Failure{err})
	if f.All {
		f.Left = nil
		f.abandon()
	} else if s := f.m.st.slot(v.Slot); s != nil {
		s.forkFailed(v.Pending, err)
	}
}

// abandon undoes an AutoFork that could not fill all slots.
func (f *fill) abandon() {
	m := f.m
	if len(m.st.Slots) > 0 && m.st.Slots[0].ID == f.Slots[0] { // no Disconnect came between
		m.dropSlots(errs.Closed)
	}
	for _, w := range m.st.running() {
		if w.Slot != 0 && slices.Contains(f.Slots, w.Slot) {
			w.setVoluntary(true)
			w.killFor(ReasonStop)
			f.Killed = append(f.Killed, w.ID)
		}
	}
}
