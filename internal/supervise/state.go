package supervise

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/go-cluster/cluster/internal/errs"
)

// state is all that a Machine knows. Workers, slots and the rest refer to each other by
// number; 0 is none.
type state struct {
	Last struct { // numbers given so far
		Worker, Slot, Generation, Number, Replacement, Fill int
	}
	Dice dice

	Generations map[int]*generation
	Openings    []opening       // programs that are being opened
	Workers     map[int]*Worker // being started, or running
	Exits       map[Reason]int

	Slots        []*slot // by place
	Removed      []*slot // slots that are removed and still have a worker
	Fills        []*fill // AutoFork and Scale under way
	ProvenBefore bool    // a worker of a slot that is removed proved the program
	GaveUp       Failure // why the supervision has ended by itself
	LastOut      Failure // why the last slot that resigned has done so
	Idle         int     // the generation that the next slots get, while Scale has left none
	Completed    int     // the number of the last generation that reached every slot

	Replacing   *replacement // there is one at a time
	Restarts    []restart    // wait until nothing is Replacing; they go before Recycling
	Recycling   []int        // workers that wait until nothing is Replacing
	Reload      *reload
	ReloadAsked []int // calls that wait for the reload after this one
	LastReload  *Result

	Stop   *stop
	Ending bool // a Run is about to return
}

// generation is a program and settings from which workers are forked. After a crash the new
// worker must be of the same version as the old one, and after a reload of the new version.
// So a slot keeps its generation until a reload succeeds in it.
type generation struct {
	ID       int
	Number   int // as it is shown; 0 for a plain Fork's
	Settings Settings
	Open     bool // the host keeps its program open
}

// opening is a program that is being opened for a call.
type opening struct {
	Generation int
	For        purpose
	Call       int
	Workers    int      // for Scale: how many
	Step       int      // for ScaleBy: how many more; 0 for Scale
	Env        []string // for Fork
}

type purpose int

const (
	forFork purpose = iota
	forAutoFork
	forScale
	forReload
)

// slot returns the slot with this number, removed or not, or nil.
func (st *state) slot(id int) *slot {
	for _, all := range [][]*slot{st.Slots, st.Removed} {
		for _, s := range all {
			if s.ID == id {
				return s
			}
		}
	}
	return nil
}

// running returns the workers whose processes exist, by number.
func (st *state) running() []*Worker {
	all := make([]*Worker, 0, len(st.Workers))
	for _, id := range slices.Sorted(maps.Keys(st.Workers)) {
		if w := st.Workers[id]; !w.Forking {
			all = append(all, w)
		}
	}
	return all
}

// forking counts the workers that are being started. A worker that waits for Options.Output
// does not count: Output may itself wait for the Disconnect that waits for this count.
func (st *state) forking() (n int) {
	for _, w := range st.Workers {
		if w.Forking && !w.InOutput {
			n++
		}
	}
	return n
}

// closed returns why nothing is forked now, or nil.
func (st *state) closed() error {
	switch {
	case st.Stop != nil:
		return fmt.Errorf("a Disconnect is under way: %w", errs.Closed)
	case st.Ending:
		//lint:ignore ST1005 Run is the name of a function
		return fmt.Errorf("Run is about to return: %w", errs.Closed)
	}
	return nil
}

// filling reports whether there is a slot that is filled again when its worker dies.
func (st *state) filling() bool {
	return slices.ContainsFunc(st.Slots, func(s *slot) bool { return s.Mode == slotLive })
}

// keeps reports whether AutoFork keeps workers. Scale may have made them none.
func (st *state) keeps() bool { return len(st.Slots) > 0 || st.Idle != 0 }

// newest returns the generation that new slots get: the last one of which a worker was up.
// The generation of a reload under way may never be up. If it is, the reload comes to the
// new slots too. newest returns nil before the first AutoFork.
func (st *state) newest() *generation {
	newest := st.Generations[st.Idle]
	for _, s := range st.Slots {
		if g := st.Generations[s.Generation]; newest == nil || g.Number > newest.Number {
			newest = g
		}
	}
	return newest
}

// needed reports whether something is still to be forked from g.
func (st *state) needed(g *generation) bool {
	return st.Idle == g.ID || st.Reload != nil && st.Reload.Generation == g.ID ||
		slices.ContainsFunc(st.Slots, func(s *slot) bool { return s.Generation == g.ID })
}

// enter gives g its number, since slots are going to use it.
func (st *state) enter(g *generation) {
	st.Last.Number++
	g.Number = st.Last.Number
}

// proven reports whether the program is known to work. Then a crash loop is no reason to
// give up.
func (st *state) proven() bool {
	return st.ProvenBefore || slices.ContainsFunc(st.Slots, (*slot).proven)
}

// forget drops what nothing refers to any more.
func (st *state) forget() {
	slots, gens := make(map[int]bool), make(map[int]bool)
	for _, w := range st.Workers {
		slots[w.Slot], gens[w.Generation] = true, true
	}
	st.Removed = slices.DeleteFunc(st.Removed, func(s *slot) bool { return !slots[s.ID] })
	for _, s := range st.Removed {
		gens[s.Generation] = true
	}
	maps.DeleteFunc(st.Generations, func(id int, g *generation) bool { return !g.Open && !gens[id] && !st.needed(g) })
}

// MarshalJSON encodes the whole state. It may be called between any two turns, whatever is
// under way.
func (m *Machine) MarshalJSON() ([]byte, error) { return json.Marshal(&m.st) }

// Restore returns a Machine with the state that MarshalJSON has written. Programs that were
// being opened and workers that were being started stay so until the host tells their
// outcome.
func Restore(host Host, dump os.Signal, written []byte) (*Machine, error) {
	m := New(host, dump, 0)
	if err := json.Unmarshal(written, &m.st); err != nil {
		return nil, fmt.Errorf("supervise: restore: %w", err)
	}
	for _, w := range m.st.Workers {
		w.m = m
	}
	for _, s := range append(slices.Clone(m.st.Slots), m.st.Removed...) {
		s.m = m
	}
	for _, f := range m.st.Fills {
		f.m = m
	}
	if r := m.st.Replacing; r != nil {
		r.m = m
	}
	if j := m.st.Reload; j != nil {
		j.m = m
	}
	return m, nil
}
