package coordinate

import (
	"math"
	"slices"
	"time"
)

// lead is work that is done in one member at a time.
type lead struct {
	Candidates []Ref   // oldest first; the leader is among them, unless it has withdrawn
	Leader     *leader // until it says that its work has returned, or is dead
	Done       bool    // nobody leads the name again
	Failures   int     // in a row
	RetryAt    time.Time
	ForgetAt   time.Time // when the failures count no more, if nobody asks for the name
}

type leader struct {
	Ref
	Since time.Time
	Ended bool // it was asked to end, so its death is no failure
}

// Outcome is how the work of a leader returned.
type Outcome int

const (
	HandedOver Outcome = iota // it returned after its context had ended
	Finished                  // it returned by itself, with success: done for good
	Failed                    // it returned by itself, with an error
)

// Stand makes ref a candidate for the name.
func (st *State) Stand(now time.Time, ref Ref, name string) (notes []Note, err error) {
	m := st.Members[ref.Member]
	l := st.Leads[name]
	switch {
	case m == nil || m.Leaving:
		return nil, nil
	case ref.Member == 0 && st.Forked, l != nil && l.Done:
		return []Note{{ref, Over}}, nil
	case m.Stands >= Most:
		return nil, tooMany("a process leads %d names at most", Most)
	case st.Lasting[st.place(ref.Member)].Done >= Most && l == nil:
		return nil, tooMany("%d names are done for good", Most)
	}
	if l == nil {
		l = new(lead)
		st.Leads[name] = l
	}
	m.Stands++
	l.Candidates = append(l.Candidates, ref)
	return st.choose(now, name, l, nil), nil
}

// Withdraw ends a candidacy. A leader leads until it has returned.
func (st *State) Withdraw(now time.Time, ref Ref, name string) {
	l := st.Leads[name]
	if l == nil {
		return
	}
	if i := slices.Index(l.Candidates, ref); i >= 0 {
		l.Candidates = slices.Delete(l.Candidates, i, i+1)
		st.Members[ref.Member].Stands--
	}
	if l.Leader != nil && l.Leader.Ref == ref {
		l.Leader.Ended = true
	}
	st.dropLead(now, name, l)
}

// Returned says that the work of ref has ended, or will not begin. With HandedOver the
// candidacy has ended too.
func (st *State) Returned(now time.Time, ref Ref, name string, o Outcome) (notes []Note) {
	if o == HandedOver {
		st.Withdraw(now, ref, name)
	}
	l := st.Leads[name]
	if l == nil || l.Leader == nil || l.Leader.Ref != ref {
		return nil
	}
	if o == Failed {
		st.failed(now, l)
	}
	st.resign(l)
	if o == Finished {
		return st.finish(name, l, ref)
	}
	return st.choose(now, name, l, nil)
}

// finish ends all candidacies for the name, and all that will come.
func (st *State) finish(name string, l *lead, by Ref) (notes []Note) {
	l.Done = true
	st.countDone(by.Member)
	delete(st.Due, name)
	for _, r := range l.Candidates {
		st.Members[r.Member].Stands--
		notes = append(notes, Note{r, Over})
	}
	l.Candidates = nil
	return notes
}

// failed puts off the next try. l still has its leader.
func (st *State) failed(now time.Time, l *lead) {
	b := st.Settings.Backoff
	if now.Sub(l.Leader.Since) >= b.Reset {
		l.Failures = 0
	}
	l.Failures++
	l.RetryAt = now.Add(b.wait(l.Failures, st.cast()))
	l.ForgetAt = l.RetryAt.Add(b.Reset)
}

// wait returns the time until the next try after n failures in a row.
func (b Backoff) wait(n int, random float64) time.Duration {
	if n <= 1 {
		return 0
	}
	d := float64(b.Min) * math.Pow(b.Factor, float64(n-2))
	d = min(d, float64(b.Max))
	if b.Jitter > 0 {
		d *= 1 + b.Jitter*(2*random-1)
	}
	return time.Duration(d)
}

// resign notes that nobody leads l any more.
func (st *State) resign(l *lead) {
	st.Members[l.Leader.Member].Leads--
	l.Leader = nil
}

// choose makes one of the candidates the leader, if there is no leader and it is time. During
// a reload new workers come first: else the work would move again with each worker that is
// replaced. Then comes the member that leads the fewest names, then the lowest slot.
func (st *State) choose(now time.Time, name string, l *lead, notes []Note) []Note {
	if l.Done || l.Leader != nil {
		return notes
	}
	best := -1
	for i, r := range l.Candidates {
		if best < 0 || st.before(r.Member, l.Candidates[best].Member) {
			best = i
		}
	}
	switch {
	case best < 0:
		st.dropLead(now, name, l)
		return notes
	case l.RetryAt.After(now):
		st.Due[name] = l.RetryAt
		return notes
	}
	delete(st.Due, name)
	ref := l.Candidates[best]
	l.Leader = &leader{Ref: ref, Since: now}
	st.Members[ref.Member].Leads++
	return append(notes, Note{ref, Leads})
}

// before reports whether member a is to lead rather than b.
func (st *State) before(a, b int) bool {
	if a == b {
		return false
	}
	x, y := st.Members[a], st.Members[b]
	if st.Outdated >= 0 {
		if newX, newY := x.Generation > st.Outdated, y.Generation > st.Outdated; newX != newY {
			return newX
		}
	}
	if x.Leads != y.Leads {
		return x.Leads < y.Leads
	}
	if x.Slot != y.Slot {
		return uint(x.Slot) < uint(y.Slot) // a member without a slot (-1) comes last
	}
	return a < b
}

// standNoMore ends the candidacies of a member that gets nothing new.
func (st *State) standNoMore(now time.Time, id int) {
	m := st.Members[id]
	if m == nil || m.Leaving {
		return
	}
	m.Leaving = true
	for name, l := range st.Leads {
		l.Candidates = slices.DeleteFunc(l.Candidates, func(r Ref) bool {
			if r.Member == id {
				m.Stands--
			}
			return r.Member == id
		})
		st.dropLead(now, name, l)
	}
}

// dropLead forgets a name that nobody asks for, when its failures count no more.
func (st *State) dropLead(now time.Time, name string, l *lead) {
	if len(l.Candidates) > 0 || l.Leader != nil || l.Done {
		return
	}
	if l.ForgetAt.After(now) {
		st.Due[name] = l.ForgetAt
		return
	}
	delete(st.Leads, name)
	delete(st.Due, name)
}
