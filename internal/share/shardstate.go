package share

import (
	"maps"
	"slices"
)

// The state of the sockets that change hands, with which another program of this process goes
// on after an upgrade. The sockets are not opened anew: the kernel keeps the group, its order
// and its program for as long as a process has them.

// HandState is a worker that listens on an address whose sockets change hands.
type HandState struct {
	Worker               int
	Accepts, Leaving     bool
	Full, Hung, Stubborn bool
	Has                  []int // the sockets that it has
	Given                []int // the sockets that are on their way to it
}

// Repeated returns the numbers of messages that no worker has answered, and that the next
// program sends again: those with sockets that are on their way. A worker may get such a socket
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

// state returns s as data.
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

// restore begins with the sockets of e that workers have, and gives the sockets again that were
// on their way. If a worker is not to have such a socket any more, it is told so: the first
// message may reach it yet.
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
