package supervise

import (
	"fmt"
	"time"
)

// Result is how a reload ended.
type Result struct {
	Err        Failure `json:",omitzero"` // nil, or why it was given up
	Replaced   int     // slots that have a new worker
	Generation int     // the reload's own number, if it is complete; else the last complete one
	Took       time.Duration
}

// reload is a reload under way.
type reload struct {
	m *Machine

	Generation int
	Opened     bool    // its program is open
	Failed     Failure `json:",omitzero"` // why it ends when the replacement under way is over
	Replaced   int
	Began      time.Time
	Calls      []int
}

// prepareReload has the next reload's program opened, if none is under way.
func (m *Machine) prepareReload() {
	if m.st.Reload != nil || len(m.st.ReloadAsked) == 0 {
		return
	}
	m.st.Reload = &reload{m: m, Began: m.now, Calls: m.st.ReloadAsked}
	m.st.ReloadAsked = nil
	m.host.Tell(Reloading{})
	m.st.Reload.Generation = m.open(opening{For: forReload})
}

// reload does a reload whose program is open, or has failed to open.
func (o opening) reload(m *Machine, g *generation, err error) {
	job := m.st.Reload
	if job == nil || job.Generation != g.ID { // cancelled meanwhile
		m.release(g.ID)
		return
	}
	if err != nil {
		job.end(err)
		m.nextJob()
		return
	}
	m.st.enter(g)
	job.Opened = true
	// A replacement whose new worker is not up yet gives way.
	if r := m.st.Replacing; r != nil && r.Old == 0 {
		r.drop()
	}
	m.nextJob()
}

// next replaces the next slot, or ends the reload when all is new.
func (j *reload) next() {
	m := j.m
	if err := j.Failed.Err; err != nil {
		j.end(err)
		m.nextJob()
		return
	}
	for _, s := range m.st.Slots {
		if s.Generation != j.Generation {
			m.replace(s, j.Generation, ReasonReload, 0)
			return
		}
	}
	old := false
	for _, w := range m.st.running() {
		if w.Slot == 0 || w.Generation == j.Generation {
			continue
		}
		old = true
		// Where no Run ends the cluster, workers are left from before the supervision gave up.
		if s := w.slot(); s.Mode == slotRemoved && w.Reason == "" {
			w.drainFor(ReasonReload)
		}
	}
	if old {
		return // the death of the last old worker calls next again
	}
	j.end(nil)
	m.nextJob()
}

// checkReload fails the reload under way if w, which has died, was one of its new workers
// and had taken over: the next ones would die of the same cause.
func (m *Machine) checkReload(s *slot, w *Worker, e Exit) {
	job := m.st.Reload
	asked := e.Voluntary || w.Respawn || e.Code == 0 && w.Reason == ReasonDrain || w.isClean(e)
	if job == nil || w.Generation != job.Generation || s.Mode == slotRemoved || asked {
		return
	}
	err := fmt.Errorf("the new worker of slot %d ended during the reload: %v%s", s.Place, e, said(e.LastWords))
	if r := m.st.Replacing; r != nil && r.Why == ReasonReload && r.Old == 0 {
		r.failed(err)
	} else if job.Failed.Err == nil {
		job.Failed = Failure{err} // it ends when the predecessor that drains is gone
	}
}

// reloaded takes the outcome of a replacement for a reload.
func (r *replacement) reloaded(err error) {
	switch job := r.m.st.Reload; {
	case job == nil:
	case err != nil:
		job.end(err)
	default:
		job.Replaced++
	}
}

// end ends the reload, which has failed if there is an error.
func (j *reload) end(err error) {
	m := j.m
	m.st.Reload = nil
	if err == nil {
		m.st.Completed = m.st.Generations[j.Generation].Number
		if idle := m.st.Idle; idle != 0 {
			m.st.Idle = j.Generation
			m.release(idle)
		}
	}
	m.release(j.Generation)
	j.report(err)
	m.prepareReload()
}

// report tells how the reload ended.
func (j *reload) report(err error) {
	m := j.m
	if err != nil {
		err = callError("Reload", err)
	}
	m.st.LastReload = &Result{Err: Failure{err}, Replaced: j.Replaced, Generation: m.st.Completed, Took: m.now.Sub(j.Began)}
	for _, call := range j.Calls {
		m.answer(call, err)
	}
	m.host.Tell(Reloaded{Result: *m.st.LastReload, Stopping: m.st.Stop != nil})
}

// cancelJobs ends the reload and every replacement, because the supervision ends.
func (m *Machine) cancelJobs(why error) {
	Orders{m}.cancel(why)
	if r := m.st.Replacing; r != nil {
		m.st.Replacing = nil
		if m.st.Stop == nil {
			r.dropNext()
		} // else the new worker is drained like the others: it may serve already
	}
	m.st.Recycling = nil
	if job := m.st.Reload; job != nil {
		m.st.Reload = nil
		m.release(job.Generation)
		job.report(why)
	}
	for _, call := range m.st.ReloadAsked {
		m.answer(call, callError("Reload", why))
	}
	m.st.ReloadAsked = nil
}
