package coordinate

import "slices"

// line is the line of members that want something which one of them has at a time: first
// come, first served. Each lock has a line, and so has each once.
type line struct {
	Holder  *Ref
	Waiting []Ref
	Done    bool // the once has been done; not for a lock
}

// Standing is the place of an asker in the line.
type Standing int

const (
	Has     Standing = iota // it holds the lock, or is to run the once
	Waits                   // a Note tells it when it has its turn
	Busy                    // somebody else has it
	Already                 // the once is done
)

// Lock gives ref the lock if it is free. Otherwise ref waits for it, if wait is true.
func (st *State) Lock(ref Ref, name string, wait bool) (Standing, error) {
	return st.enter(st.Locks, ref, name, wait)
}

// Unlock frees the lock of ref, or ends its wait.
func (st *State) Unlock(ref Ref, name string) (notes []Note) {
	return st.exit(st.Locks, ref, name)
}

// Once lets ref run the once, or makes it wait for the one that runs it.
func (st *State) Once(ref Ref, name string) (Standing, error) {
	if q := st.Onces[name]; q != nil && q.Done {
		return Already, nil
	}
	if st.Onces[name] == nil && st.Lasting[st.place(ref.Member)].Done >= Most {
		return Busy, tooMany("%d names are done for good", Most)
	}
	return st.enter(st.Onces, ref, name, true)
}

// OnceDone says that ref has run the once with success.
func (st *State) OnceDone(ref Ref, name string) (notes []Note) {
	q := st.Onces[name]
	if q == nil || q.Holder == nil || *q.Holder != ref {
		return nil
	}
	st.Members[ref.Member].Held--
	st.countDone(ref.Member)
	for _, r := range q.Waiting {
		st.Members[r.Member].Waits--
		notes = append(notes, Note{r, Done})
	}
	*q = line{Done: true}
	return notes
}

// OnceFailed says that ref has run the once without success, or waits no more.
func (st *State) OnceFailed(ref Ref, name string) (notes []Note) {
	return st.exit(st.Onces, ref, name)
}

func (st *State) enter(lines map[string]*line, ref Ref, name string, wait bool) (Standing, error) {
	m := st.Members[ref.Member]
	if m == nil {
		return Busy, nil
	}
	q := lines[name]
	switch {
	case q == nil || q.Holder == nil:
		if m.Held >= mostHeld {
			return Busy, tooMany("a process holds %d locks at most", mostHeld)
		}
		m.Held++
		lines[name] = &line{Holder: &ref}
		return Has, nil
	case !wait:
		return Busy, nil
	case m.Waits >= Most:
		return Busy, tooMany("a process waits for %d locks at most", Most)
	}
	m.Waits++
	q.Waiting = append(q.Waiting, ref)
	return Waits, nil
}

func (st *State) exit(lines map[string]*line, ref Ref, name string) (notes []Note) {
	q := lines[name]
	if q == nil {
		return nil
	}
	if q.Holder != nil && *q.Holder == ref {
		notes = q.next(st, nil)
	} else if i := slices.Index(q.Waiting, ref); i >= 0 {
		q.Waiting = slices.Delete(q.Waiting, i, i+1)
		st.Members[ref.Member].Waits--
	}
	q.dropIfEmpty(lines, name)
	return notes
}

// next makes the first that waits the holder.
func (q *line) next(st *State, notes []Note) []Note {
	st.Members[q.Holder.Member].Held--
	q.Holder = nil
	if len(q.Waiting) == 0 {
		return notes
	}
	ref := q.Waiting[0]
	q.Waiting = slices.Delete(q.Waiting, 0, 1)
	q.Holder = &ref
	st.Members[ref.Member].Waits--
	st.Members[ref.Member].Held++
	return append(notes, Note{ref, Granted})
}

// forget ends the waiting of a member.
func (q *line) forget(st *State, id int) {
	q.Waiting = slices.DeleteFunc(q.Waiting, func(r Ref) bool {
		if r.Member == id {
			st.Members[id].Waits--
		}
		return r.Member == id
	})
}

func (q *line) dropIfEmpty(lines map[string]*line, name string) {
	if q.Holder == nil && len(q.Waiting) == 0 && !q.Done {
		delete(lines, name)
	}
}
