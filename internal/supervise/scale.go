package supervise

// scale does a Scale whose program is open.
func (o opening) scale(m *Machine, g *generation, err error) {
	if err == nil {
		err = m.st.closed()
	}
	if err != nil {
		m.release(g.ID)
		m.answer(o.Call, callError("Scale", err))
		return
	}
	n := o.Workers
	if o.Step != 0 {
		n = stepped(len(m.st.Slots), o.Step)
	}
	m.host.Tell(Retargeted{n})
	if newest := m.st.newest(); newest != nil {
		m.release(g.ID)
		g = newest // the program that the others run, not the one that is there now
	} else {
		m.st.enter(g)
		m.st.Completed = g.Number
		m.st.GaveUp, m.st.ProvenBefore = Failure{}, false
	}
	if n == 0 {
		m.st.Idle = g.ID
	}
	for len(m.st.Slots) > n {
		s := m.st.Slots[len(m.st.Slots)-1]
		m.st.Slots = m.st.Slots[:len(m.st.Slots)-1]
		s.remove()
	}
	if n > 0 {
		m.st.Idle = 0 // from here on a slot has the generation
	}
	newFill(m, o.Call, false, vacancies(m, n, g))
	m.nextJob()
}

// stepped returns the number of slots after a step. A step down ends at one slot, and from
// none it leaves none.
func stepped(n, step int) int {
	if step < 0 {
		return max(min(n, 1), n+step)
	}
	return n + step
}

// vacancies adds slots until there are n. It returns the slots to be filled: the new ones,
// and those that were emptied on purpose.
func vacancies(m *Machine, n int, g *generation) (fill []vacancy) {
	for _, s := range m.st.Slots {
		if s.Mode == slotStopped || s.Mode == slotResigned {
			s.Mode = slotLive
			s.Failures, s.Boots = 0, 0
			if s.Current == 0 && !s.beingReplaced() {
				s.cancelRetry()
				fill = append(fill, vacancy{s.ID, s.Pending})
			}
		}
	}
	for len(m.st.Slots) < n {
		fill = append(fill, vacancy{Slot: newSlot(m, g).ID})
	}
	return fill
}

// remove drains the slot's worker, which nothing replaces. The caller has taken the slot out
// of the row.
func (s *slot) remove() {
	m := s.m
	m.st.ProvenBefore = m.st.ProvenBefore || s.proven()
	s.leave()
	if s.beingReplaced() {
		m.st.Replacing.drop()
	}
	if w := s.current(); w != nil {
		w.drainFor(ReasonScale)
	}
	m.release(s.Generation)
}
