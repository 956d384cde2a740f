package share

import (
	"maps"
	"slices"
)

// What another program of this process goes on with of the sockets that change hands. They
// are not opened anew: the kernel keeps the group, its order and its program for as long as
// somebody has them.

// HandState is a worker that listens on an address whose sockets change hands.
type HandState struct {
	Worker               int
	Accepts, Leaving     bool
	Full, Hung, Stubborn bool
	Has                  []int // the sockets that it has
	Given                []int // those that are on their way to it
}

// Repeated are the numbers of the messages that another program sends again, of those that
// workers have not answered: sockets that are on their way to them, which a worker may get
// twice. It is called in the mailbox.
func Repeated(r *Registry) map[int64]bool {
	all := make(map[int64]bool)
	for _, e := range r.entries {
		if e.shards == nil {
			continue
		}
		for _, h := range e.shards.hands {
			for _, c := range h.has {
				if !c.given {
					all[c.seq] = true
				}
			}
		}
	}
	return all
}

// state is s as data.
func (s *shards) state(number func(Member) int) (all []HandState) {
	for m, h := range s.hands {
		hs := HandState{Worker: number(m), Accepts: h.accepts, Leaving: h.leaving, Full: h.full, Hung: h.hung, Stubborn: h.stubborn}
		for _, i := range slices.Sorted(maps.Keys(h.has)) {
			if h.has[i].given {
				hs.Has = append(hs.Has, i)
			} else {
				hs.Given = append(hs.Given, i)
			}
		}
		all = append(all, hs)
	}
	return all
}

// restore begins with what workers have of e's sockets, and gives again what was on its
// way. A worker to which that is not given any more is told so: it may get it yet.
func (s *Shards) restore(e *entry, all []HandState, member func(int) Member) error {
	if err := s.begin(e); err != nil {
		return err
	}
	for _, hs := range all {
		m := member(hs.Worker)
		if m == nil {
			continue
		}
		h := &hand{watched: watched{member: m, hung: hs.Hung, stubborn: hs.Stubborn, has: make(map[int]*holding)},
			accepts: hs.Accepts, leaving: hs.Leaving || m.Leaving(), full: hs.Full}
		for _, i := range hs.Has {
			if i < len(e.sockets) {
				h.has[i] = &holding{given: true}
			}
		}
		e.shards.hands[m] = h
	}
	s.settle(e)
	for _, hs := range all {
		h := e.shards.hands[member(hs.Worker)]
		for _, i := range hs.Given {
			if h != nil && h.has[i] == nil && i < len(e.sockets) {
				s.take(e, h, i)
			}
		}
	}
	return nil
}
