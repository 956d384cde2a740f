package coordinate

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

var usual = Settings{MaxStore: 2000, MaxKeys: 5000, Backoff: Backoff{Min: 100 * time.Millisecond, Max: time.Second, Factor: 2, Reset: 10 * time.Second, Jitter: 0.2}}

// world is what the members of a State believe from what they were told: which member leads
// what, and which holds what.
type world struct {
	t    *testing.T
	st   *State
	now  time.Time
	rand *rand.Rand
	log  []string

	next    uint64
	alive   []int
	lost    map[int]bool
	running map[string]Ref   // the leader, until it returns or its process is dead
	stands  map[Ref]string   // candidacies
	holds   map[string]Ref   // of locks
	waits   map[string][]Ref // for locks, in order
	done    map[string]bool
}

func newWorld(t *testing.T, seed uint64) *world {
	return &world{
		t: t, st: New(usual, seed), now: start, rand: rand.New(rand.NewPCG(seed, 0)), alive: []int{0}, lost: map[int]bool{},
		running: map[string]Ref{}, stands: map[Ref]string{}, holds: map[string]Ref{}, waits: map[string][]Ref{}, done: map[string]bool{},
	}
}

func (w *world) did(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *world) require(ok bool, format string, args ...any) {
	w.t.Helper()
	if !ok {
		w.t.Fatalf(format+"\n%s", append(args, w.log[max(0, len(w.log)-30):])...)
	}
}

// told lets the members believe the notes, which must be about nothing that
// somebody else has.
func (w *world) told(notes []Note) {
	w.t.Helper()
	for _, n := range notes {
		w.did("  note %+v", n)
		switch n.What {
		case Leads:
			name := w.stands[n.To]
			w.require(name != "", "%v leads what it does not stand for", n.To)
			_, taken := w.running[name]
			w.require(!taken && !w.done[name], "two lead %s", name)
			w.running[name] = n.To
		case Over:
			delete(w.stands, n.To)
		case Granted:
			for name, all := range w.waits {
				if len(all) > 0 && all[0] == n.To {
					_, taken := w.holds[name]
					w.require(!taken, "two hold %s", name)
					w.holds[name], w.waits[name] = n.To, all[1:]
				}
			}
		}
	}
}

// step does something at random.
func (w *world) step() {
	name := string(rune('a' + w.rand.IntN(4)))
	member := w.alive[w.rand.IntN(len(w.alive))]
	w.next++
	ref := Ref{member, w.next}
	switch w.rand.IntN(13) {
	case 0, 1:
		if w.lost[member] {
			return
		}
		w.stands[ref] = name
		w.did("stand %v %s", ref, name)
		notes, err := w.st.Stand(w.now, ref, name)
		w.require(err == nil, "%v", err)
		w.told(notes)
	case 2, 3:
		r, leads := w.running[name]
		if !leads || w.lost[r.Member] {
			return
		}
		o := Outcome(w.rand.IntN(3))
		if o == Finished && w.rand.IntN(10) > 0 {
			o = HandedOver
		}
		delete(w.running, name)
		w.done[name] = o == Finished
		w.did("returned %v %s %v", r, name, o)
		w.told(w.st.Returned(w.now, r, name, o))
	case 4:
		for r, name := range w.stands {
			if w.running[name] == r {
				w.did("withdraw %v %s", r, name)
				w.st.Withdraw(w.now, r, name)
			} else if !w.lost[r.Member] {
				delete(w.stands, r)
				w.did("stands no more %v %s", r, name)
				w.told(w.st.Returned(w.now, r, name, HandedOver))
			}
			return
		}
	case 5, 6:
		w.lock(ref, name)
	case 7, 8:
		if r, held := w.holds[name]; held && !w.lost[r.Member] {
			delete(w.holds, name)
			w.did("unlock %v %s", r, name)
			w.told(w.st.Unlock(r, name))
		}
	case 9:
		w.join()
	case 10:
		if member != 0 && w.rand.IntN(3) == 0 {
			w.lose(member)
		}
	case 11:
		if member != 0 && w.rand.IntN(3) == 0 {
			w.kill(member)
		}
	case 12:
		w.now = w.now.Add(time.Duration(w.rand.IntN(500)) * time.Millisecond)
		w.told(w.st.Advance(w.now))
	}
}

func (w *world) lock(ref Ref, name string) {
	if w.lost[ref.Member] {
		return
	}
	s, err := w.st.Lock(ref, name, w.rand.IntN(4) > 0)
	w.did("lock %v %s: %v", ref, name, s)
	_, taken := w.holds[name]
	w.require(err == nil && (s == Has) == !taken, "%v %v", s, err)
	switch s {
	case Has:
		w.holds[name] = ref
	case Waits:
		w.waits[name] = append(w.waits[name], ref)
	}
}

func (w *world) join() {
	if len(w.alive) > 6 {
		return
	}
	w.next++
	id := int(w.next)
	w.alive = append(w.alive, id)
	w.did("join %d", id)
	w.st.Join(id, len(w.alive)-2, 1)
	w.told(w.st.Fork())
}

// lose ends the channel of a member. What it leads and holds it keeps.
func (w *world) lose(id int) {
	w.lost[id] = true
	w.did("lost %d", id)
	w.st.Lost(w.now, id)
	w.forget(id)
}

// forget drops what a member waits for.
func (w *world) forget(id int) {
	for name, all := range w.waits {
		w.waits[name] = slices.DeleteFunc(all, func(r Ref) bool { return r.Member == id })
	}
	for r, name := range w.stands {
		if r.Member == id && w.running[name] != r {
			delete(w.stands, r)
		}
	}
}

func (w *world) kill(id int) {
	w.forget(id)
	for name, r := range w.running {
		if r.Member == id {
			delete(w.running, name)
		}
	}
	for name, r := range w.holds {
		if r.Member == id {
			delete(w.holds, name)
		}
	}
	w.alive = slices.DeleteFunc(w.alive, func(x int) bool { return x == id })
	w.did("dead %d", id)
	w.told(w.st.Dead(w.now, id))
}

// check compares the state with what the members believe.
func (w *world) check() {
	w.t.Helper()
	for name, q := range w.st.Locks {
		w.require(q.Holder != nil && *q.Holder == w.holds[name], "lock %s: %v, and %v holds it", name, q.Holder, w.holds[name])
		w.require(slices.Equal(q.Waiting, w.waits[name]), "lock %s: %v wait, and not %v", name, q.Waiting, w.waits[name])
	}
	w.require(len(w.holds) == len(w.st.Locks), "%d locks are held", len(w.holds))
	for name, l := range w.st.Leads {
		r, leads := w.running[name]
		w.require((l.Leader != nil) == leads && (!leads || l.Leader.Ref == r), "%s: %+v leads, and not %v", name, l.Leader, r)
		due := w.st.Due[name]
		w.require(leads || l.Done || len(l.Candidates) == 0 || !due.IsZero(), "nobody leads %s", name)
	}
	for id, m := range w.st.Members {
		n := member{Slot: m.Slot, Generation: m.Generation, Leaving: m.Leaving}
		for _, l := range w.st.Leads {
			if l.Leader != nil && l.Leader.Member == id {
				n.Leads++
			}
			for _, r := range l.Candidates {
				if r.Member == id {
					n.Stands++
				}
			}
		}
		for _, q := range w.st.Locks {
			if q.Holder.Member == id {
				n.Held++
			}
			for _, r := range q.Waiting {
				if r.Member == id {
					n.Waits++
				}
			}
		}
		w.require(n == *m, "member %d counts %+v, and has %+v", id, *m, n)
	}
}

// TestOneAtATime does what members do in a random order. What one has nobody else
// is ever given, locks go by turns, and the counts are right, also when the state is
// written and read in between.
func TestOneAtATime(t *testing.T) {
	for seed := range uint64(60) {
		w := newWorld(t, seed)
		for range 300 {
			w.step()
			w.check()
			if w.rand.IntN(50) == 0 {
				b, err := json.Marshal(w.st)
				require.NoError(t, err)
				w.st, err = Restore(b)
				require.NoError(t, err)
			}
		}
	}
}

// TestBackoff: work that fails is tried again at once, and then later and later; a
// death counts as a failure, and work that went well begins anew.
func TestBackoff(t *testing.T) {
	s := usual
	s.Backoff.Jitter = 0
	st, now := New(s, 1), start
	st.Join(1, 0, 1)
	notes, err := st.Stand(now, Ref{1, 1}, "x")
	require.NoError(t, err)
	require.Len(t, notes, 1)
	require.Len(t, st.Returned(now, Ref{1, 1}, "x", Failed), 1, "at once")
	for _, wait := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		require.Empty(t, st.Returned(now, Ref{1, 1}, "x", Failed))
		require.Equal(t, now.Add(wait*time.Millisecond), st.Next())
		require.Empty(t, st.Advance(st.Next().Add(-1)))
		now = st.Next()
		require.Len(t, st.Advance(now), 1)
	}
	now = now.Add(s.Backoff.Reset)
	require.Len(t, st.Returned(now, Ref{1, 1}, "x", Failed), 1, "the first failure after a long time")
	require.Empty(t, st.Dead(now, 1))
	st.Join(2, 0, 1)
	notes, err = st.Stand(now, Ref{2, 1}, "x")
	require.NoError(t, err)
	require.Empty(t, notes, "its death was the second failure")
	require.Equal(t, now.Add(100*time.Millisecond), st.Next())
}

// TestWhoLeads: the fewest names, the lowest slot; during a reload a new worker.
func TestWhoLeads(t *testing.T) {
	st := New(usual, 1)
	for id, slot := range map[int]int{11: 1, 12: 0, 13: 2} {
		st.Join(id, slot, 1)
	}
	leads := func(name string, members ...int) int {
		for _, id := range members {
			st.Stand(start, Ref{id, 1}, name)
		}
		return st.Leads[name].Leader.Member
	}
	require.Equal(t, 11, leads("a", 11, 12, 13))
	st.Returned(start, Ref{11, 1}, "a", HandedOver)
	require.Equal(t, 12, leads("a"))
	require.Equal(t, 13, leads("b", 13, 11, 12))
	st.Returned(start, Ref{13, 1}, "b", HandedOver)
	require.Equal(t, 11, leads("b"), "12 leads one already")
	st.Join(21, 5, 2)
	st.Reload(1)
	leads("b", 21, 13)
	st.Returned(start, Ref{11, 1}, "b", HandedOver)
	require.Equal(t, 21, leads("b"))
}

// TestBounds: one member cannot have more than so many, and that is its own limit.
func TestBounds(t *testing.T) {
	st := New(usual, 1)
	st.Join(1, 0, 1)
	st.Join(2, 1, 1)
	st.Lock(Ref{2, 0}, "held", false)
	for i := range Most {
		n := fmt.Sprint(i)
		_, err := st.Stand(start, Ref{1, uint64(i)}, n)
		require.NoError(t, err)
		_, err = st.Subscribe(1, n)
		require.NoError(t, err)
		_, err = st.Lock(Ref{1, uint64(i)}, "held", true)
		require.NoError(t, err)
		require.NoError(t, st.SetRate(1, n, Rate{1, 1}))
	}
	for _, id := range []int{1, 2} { // the second makes what the first may not
		few := id == 2
		_, err := st.Stand(start, Ref{id, Most}, "more")
		require.Equal(t, few, err == nil)
		_, err = st.Subscribe(id, "more")
		require.Equal(t, few, err == nil)
		_, err = st.Lock(Ref{id, Most}, "held", true)
		require.Equal(t, few, err == nil)
		require.Equal(t, few, st.SetRate(id, "more", Rate{1, 1}) == nil)
	}
	st.Dead(start, 1)
	st.Dead(start, 2)
	st.Advance(start.Add(time.Hour)) // its failures count no more
	require.Empty(t, st.Leads)
	require.Empty(t, st.Topics)
	require.Empty(t, st.Locks)
}
