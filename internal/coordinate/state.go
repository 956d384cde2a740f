package coordinate

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
)

// Most bounds what one member may have of each kind: names that it wants to lead, topics that
// it hears, locks that it waits for. Some names stay when the member is gone: those that are
// done for good, and limiters. They are counted for the member's place, which its successors
// have as well.
const Most = 4096

// mostHeld bounds the locks that one member may hold.
const mostHeld = 16 * Most

var (
	// ErrNoNumber is returned by Incr when the value is not a decimal number.
	ErrNoNumber = errors.New("the value is no decimal number")
	// ErrOverflow is returned by Incr when the sum is not an int64.
	ErrOverflow = errors.New("the count overflows")
)

// Ref names something that a member has asked for.
type Ref struct {
	Member int
	Ticket uint64
}

// Note is something that a member is to be told.
type Note struct {
	To   Ref
	What What
}

// What is said in a Note.
type What int

const (
	Leads   What = 1 + iota // begin to lead
	Ends                    // lead no more: the master has forked
	Over                    // the candidacy has ended: the work is done for good
	Granted                 // the lock is yours, or the once is yours to run
	Done                    // the once has been done by somebody else
)

// Settings are what the options say.
type Settings struct {
	MaxStore int // bytes
	MaxKeys  int // keys of all limiters whose buckets are not full
	Backoff  Backoff
}

// Backoff says when work that failed is tried again: the first time at once, then after Min,
// and after each further failure Factor times as long, up to Max. If the work went well for
// Reset, the next failure counts as the first.
type Backoff struct {
	Min, Max time.Duration
	Factor   float64
	Reset    time.Duration
	Jitter   float64
}

// State is all that the members of a cluster share.
type State struct {
	Settings Settings
	Members  map[int]*member
	Forked   bool // member 0 leads nothing: it is the master of workers
	Outdated int  // during a reload, the generation after which the new ones begin; else -1
	Dice     struct{ Seed, Casts uint64 }

	Leads     map[string]*lead
	Due       map[string]time.Time // when to look at one of the Leads again
	Locks     map[string]*line
	Onces     map[string]*line
	Topics    map[string]*topic
	Numbers   map[uint64]string // the topics, by number
	LastTopic uint64
	Missed    int64 // missed messages of topics that are gone
	Store     Store
	Limiters  limiters
	Lasting   map[int]lasting // by place
}

// member is one process.
type member struct {
	Slot       int
	Generation int
	Leaving    bool // it is drained, or cannot be reached, so it gets nothing new
	Leads      int  // how many names it leads
	Stands     int  // how many candidacies it has
	Waits      int  // how many locks and onces it waits for
	Held       int  // how many locks and onces it has
	Topics     int
}

// lasting counts the names that stay when their member is gone.
type lasting struct{ Done, Limiters int }

// New returns an empty State, with the master as its one member.
func New(s Settings, seed uint64) *State {
	st := &State{
		Outdated: -1,
		Members:  map[int]*member{0: {Slot: -1}},
		Leads:    make(map[string]*lead), Due: make(map[string]time.Time),
		Locks: make(map[string]*line), Onces: make(map[string]*line),
		Topics: make(map[string]*topic), Numbers: make(map[uint64]string),
		Lasting: make(map[int]lasting),
	}
	st.Dice.Seed = seed
	st.Store.init()
	st.Configure(s)
	st.Limiters.init()
	return st
}

// Configure changes the settings.
func (st *State) Configure(s Settings) {
	st.Settings = s
	st.Store.max = s.MaxStore
}

// Join makes a worker a member.
func (st *State) Join(id, slot, generation int) {
	st.Members[id] = &member{Slot: slot, Generation: generation}
}

// Fork says that the master has workers now. It ends what the master itself leads, and keeps
// the master from leading.
func (st *State) Fork() (notes []Note) {
	if st.Forked {
		return nil
	}
	st.Forked = true
	for _, l := range st.Leads {
		l.Candidates = slices.DeleteFunc(l.Candidates, func(r Ref) bool {
			if r.Member != 0 {
				return false
			}
			st.Members[0].Stands--
			if l.Leader == nil || l.Leader.Ref != r {
				notes = append(notes, Note{r, Over})
			}
			return true
		})
		if l.Leader != nil && l.Leader.Member == 0 && !l.Leader.Ended {
			l.Leader.Ended = true
			notes = append(notes, Note{l.Leader.Ref, Ends})
		}
	}
	return notes
}

// Alone says that the last worker is gone and none will come. The master is an ordinary
// process again, and may lead.
func (st *State) Alone() { st.Forked = false }

// Reload says that workers of a generation after the given one are to be preferred,
// until a negative one says that the reload is over.
func (st *State) Reload(outdated int) { st.Outdated = outdated }

// Leave says that a member is drained: it gets nothing new, and what it leads ends. The
// member gives back by itself what it has.
func (st *State) Leave(now time.Time, id int) {
	st.standNoMore(now, id)
	for _, l := range st.Leads {
		if l.Leader != nil && l.Leader.Member == id {
			l.Leader.Ended = true
		}
	}
}

// Lost says that a member cannot be reached any more. Its process may live, so it keeps what
// it leads and holds. Its death may still count as a failure of what it leads: the channel of
// a process that crashes is lost before the death is known.
func (st *State) Lost(now time.Time, id int) {
	if st.Members[id] == nil {
		return
	}
	st.standNoMore(now, id)
	for _, lines := range []map[string]*line{st.Locks, st.Onces} {
		for name, q := range lines {
			q.forget(st, id)
			q.dropIfEmpty(lines, name)
		}
	}
	st.silence(id)
}

// Dead says that a member's process has ended: whatever it had is free.
func (st *State) Dead(now time.Time, id int) (notes []Note) {
	if st.Members[id] == nil {
		return nil
	}
	st.Lost(now, id)
	for name, l := range st.Leads {
		if l.Leader != nil && l.Leader.Member == id {
			if !l.Leader.Ended {
				st.failed(now, l)
			}
			st.resign(l)
			notes = st.choose(now, name, l, notes)
		}
	}
	for _, lines := range []map[string]*line{st.Locks, st.Onces} {
		for name, q := range lines {
			if q.Holder != nil && q.Holder.Member == id {
				notes = q.next(st, notes)
				q.dropIfEmpty(lines, name)
			}
		}
	}
	delete(st.Members, id)
	return notes
}

// Next returns the time at which Advance is to be called, or zero if nothing is due.
func (st *State) Next() (next time.Time) {
	for _, at := range st.Due {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// Advance does what is due.
func (st *State) Advance(now time.Time) (notes []Note) {
	for name, at := range st.Due {
		if !at.After(now) {
			delete(st.Due, name)
			notes = st.choose(now, name, st.Leads[name], notes)
		}
	}
	return notes
}

// Awaited names what the member waits for: the first by name, or "" if it waits for nothing.
func (st *State) Awaited(id int) string {
	for _, kind := range []struct {
		name  string
		lines map[string]*line
	}{{"lock", st.Locks}, {"once", st.Onces}} {
		for _, name := range slices.Sorted(maps.Keys(kind.lines)) {
			q := kind.lines[name]
			if q.Holder != nil && slices.ContainsFunc(q.Waiting, func(r Ref) bool { return r.Member == id }) {
				return fmt.Sprintf("the %s %.64q, which worker %d has", kind.name, name, q.Holder.Member)
			}
		}
	}
	return ""
}

// cast returns the next random number in [0, 1).
func (st *State) cast() float64 {
	st.Dice.Casts++
	return rand.New(rand.NewPCG(st.Dice.Seed, st.Dice.Casts)).Float64()
}

// place returns where the lasting names of a member are counted: its slot, which its
// successors have as well, or the member itself if it has no slot.
func (st *State) place(id int) int {
	if m := st.Members[id]; m != nil && m.Slot >= 0 {
		return m.Slot
	}
	return -1 - id
}

func (st *State) countDone(id int) {
	p := st.place(id)
	n := st.Lasting[p]
	n.Done++
	st.Lasting[p] = n
}

func tooMany(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errs.TooMany}, args...)...)
}

// Restore returns the State that was written as JSON.
func Restore(written []byte) (*State, error) {
	st := New(Settings{}, 0)
	if err := json.Unmarshal(written, st); err != nil {
		return nil, fmt.Errorf("coordinate: restore: %w", err)
	}
	st.Configure(st.Settings)
	return st, nil
}
