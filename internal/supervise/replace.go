package supervise

import "time"

// replacement is one slot's change of worker. There is one in the cluster at a time. The
// replacements of a reload go first: any other one whose new worker is not up yet is
// dropped, and comes again after the reload.
type replacement struct {
	m *Machine

	ID         int
	Slot       int
	Generation int
	Why        Reason // reload, restart or recycle
	Call       int    // of a restart
	Pending    int    // the slot's Pending when this was decided
	Begun      bool   // the new worker is ordered
	Next       int    // the new worker, once it is forked
	Old        int    // the worker that drains, once Next is up
	Due        int    // for a recycling, the worker that is to be replaced
}

// replace decides on a replacement.
func (m *Machine) replace(s *slot, generation int, why Reason, due int) {
	m.st.Last.Replacement++
	s.cancelRetry()
	m.st.Replacing = &replacement{m: m, ID: m.st.Last.Replacement, Slot: s.ID, Generation: generation, Why: why, Pending: s.Pending, Due: due}
}

// begin orders the new worker.
func (r *replacement) begin() {
	r.Begun = true
	w := &Worker{m: r.m, Slot: r.Slot, Generation: r.Generation, Pending: r.Pending, Replacement: r.ID, For: r.Why}
	if err := w.start(nil); err != nil {
		r.failed(callError("Fork", err))
	}
}

func (r *replacement) slot() *slot { return r.m.st.slot(r.Slot) }

// beingReplaced reports whether a new worker for the slot is on its way and not up yet.
func (s *slot) beingReplaced() bool {
	r := s.m.st.Replacing
	return r != nil && r.Slot == s.ID && r.Old == 0
}

// isNext reports whether w is a replacement that has not taken over.
func (w *Worker) isNext() bool {
	r := w.m.st.Replacing
	return r != nil && r.Next == w.ID && r.Old == 0 && w.State <= Ready
}

// checkPromotion lets w take its slot's place if it is a replacement that is up. It does
// so after ReadyFor, since a worker that listens may still fail, as when its certificate
// does not load.
func (w *Worker) checkPromotion() {
	if !w.isNext() || w.State < w.upAt() {
		return
	}
	hold := w.settings().ReadyFor
	if hold <= 0 {
		w.promote()
	} else if w.HoldBy.IsZero() || w.upAt() == Ready {
		w.HoldBy = w.m.now.Add(hold)
	}
}

// heldLong is called when w has been up for ReadyFor.
func (w *Worker) heldLong() {
	switch {
	case !w.isNext():
	case w.State < w.upAt(): // its predecessor has got ready meanwhile, so w has to as well
		w.StartBy = w.Started.Add(w.settings().StartTimeout)
	default:
		w.promote()
	}
}

// promote lets w take its slot's place.
func (w *Worker) promote() {
	r := w.m.st.Replacing
	s := r.slot()
	old, generation := s.current(), s.Generation
	s.Current, s.Next, s.Generation, s.Mode = w.ID, 0, r.Generation, slotLive
	s.Failures, s.Boots = 0, 0
	w.StartBy, w.Promoted = time.Time{}, true
	w.m.release(generation)
	if old == nil {
		r.end(nil)
	} else {
		s.EverUp = s.EverUp || old.longUp()
		r.Old = old.ID
		old.drainFor(r.Why)
	}
	if w.Limits.Due {
		w.wantRecycling()
	}
}

// failed gives the replacement up, and the old worker stays. If the old worker has died
// meanwhile, the slot is filled again from its old generation.
func (r *replacement) failed(err error) {
	m := r.m
	if m.st.Replacing != r {
		return
	}
	r.dropNext()
	s := r.slot()
	if s.Current == 0 && s.Mode == slotLive && m.st.Stop == nil {
		m.st.Replacing = nil
		s.refork(s.nextDelay())
	}
	if s.Mode == slotResigned {
		m.st.LastOut = Failure{err}
	}
	r.end(err)
}

// drop cancels a replacement that is not up yet, without an outcome.
func (r *replacement) drop() {
	m := r.m
	m.st.Replacing = nil
	r.dropNext()
	s := r.slot()
	if s.Current == 0 && s.Mode == slotLive && m.st.Stop == nil {
		s.refork(0)
	}
	switch w := s.current(); {
	case r.Why == ReasonRestart:
		r.waitAgain()
	case w != nil && r.Why == ReasonRecycle:
		w.wantRecycling()
	}
}

// dropNext kills the worker that was to take over, unless it has taken over.
func (r *replacement) dropNext() {
	if r.Old != 0 {
		return
	}
	s := r.slot()
	s.Pending++ // a fork that is still under way is superseded
	s.Next = 0
	if w := r.m.worker(r.Next); w != nil {
		w.setVoluntary(true)
		w.killFor(r.Why)
	}
}

// end is called when the replacement is over; it has failed if there is an error.
func (r *replacement) end(err error) {
	m := r.m
	if m.st.Replacing == r {
		m.st.Replacing = nil
	}
	switch r.Why {
	case ReasonReload:
		r.reloaded(err)
	case ReasonRecycle:
		r.recycled(err)
	case ReasonRestart:
		r.restarted(err)
	}
	m.nextJob()
}

// nextJob decides on the next replacement, if none is under way: the reload's, or
// one that was ordered, or one that recycling waits for.
func (m *Machine) nextJob() {
	if m.st.Replacing != nil || m.st.Stop != nil {
		return
	}
	switch job := m.st.Reload; {
	case job == nil:
		if !(Orders{m}).next() {
			m.nextRecycling()
		}
		m.checkAllResigned() // the last may have resigned while a replacement was under way
	case job.Opened:
		job.next()
	} // else the reload's program is being opened, and nothing goes before the reload
}
