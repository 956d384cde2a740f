package supervise

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/stretchr/testify/require"
)

// TestPairs: each thing that can happen to a cluster may begin while each other
// is under way, in the same slot or in another, and either may end first.
// Whatever comes of it, at every step what must hold at any time does; each
// Reload is answered as the contract says, each worker ends for the reason that
// came first, each slot is filled by what belongs there; and then all works as
// in a cluster to which nothing has happened.
//
// Each pair is tried in one of the four ways; with CLUSTER_LONG=1 in all. Under the
// race detector only some pairs are.
func TestPairs(t *testing.T) {
	t.Parallel()
	long := os.Getenv("CLUSTER_LONG") != ""
	for i, a := range scenarios {
		t.Run(a.name, func(t *testing.T) {
			for j, b := range scenarios {
				if !long && (3*i+j)%thinned != 0 {
					continue
				}
				t.Run("and "+b.name, func(t *testing.T) {
					for way := range 4 {
						if !long && way != (i+j)%4 {
							continue
						}
						p := pair{a: a, b: b, same: way&1 == 0, firstEnds: way&2 == 0}
						p.test(t)
						if t.Failed() {
							t.Fatalf("in the same slot: %v, the first ends first: %v", p.same, p.firstEnds)
						}
					}
				})
			}
		})
	}
}

// pair is b, which begins while a is under way.
type pair struct {
	a, b            scenario
	same, firstEnds bool
}

func (p pair) test(t *testing.T) {
	o := simulatedSettings()
	for _, s := range []scenario{p.a, p.b} {
		if s.set != nil {
			s.set(&o)
		}
	}
	w := simulate(t, o, !p.a.unproven && !p.b.unproven, p.a.run || p.b.run)
	at := 0
	endA := p.a.begin(w, at)
	w.settle()
	callsOfA := len(w.reloads)
	for _, a := range w.reloads {
		a.before = a.over
	}
	if !p.same {
		at = 2
	}
	endB := p.b.begin(w, at)
	w.settle()
	ends := []func(){endA, endB}
	if !p.firstEnds {
		ends[0], ends[1] = endB, endA
	}
	for _, end := range ends {
		end()
		w.settle()
		w.calmUnlessHeld()
	}
	clear(w.held)
	w.calm()
	p.check(w, callsOfA)
	w.deploy("")
	w.worksOn(p.recycles())
	w.finish()
}

// check is what the contract says of the pair.
func (p pair) check(w *simulation, callsOfA int) {
	t := w.t
	for _, a := range w.reloads {
		require.True(t, a.over, "a Reload has not returned\n%s", w.story())
	}
	gaveUp := w.m.GaveUp()
	var slots []slot
	for _, s := range w.m.st.Slots {
		slots = append(slots, *s)
	}
	stopped := p.a.stops || p.b.stops
	for i, a := range w.reloads {
		of, other := p.a, p.b
		if i >= callsOfA {
			of, other = p.b, p.a
		}
		p.checkReload(w, a, of, other, gaveUp)
	}
	for q, why := range w.expect {
		if q.IsDead() {
			require.Equal(t, why, q.exit().Reason, "worker %d\n%s", q.id, w.story())
		}
	}
	if stopped || gaveUp != nil {
		require.Empty(t, slots)
		before := len(w.forked())
		w.after(time.Hour)
		require.Len(t, w.forked(), before, "a fork after the end")
		return
	}
	want := simulatedSettings().Workers
	for _, s := range []scenario{p.a, p.b} {
		if s.target != nil {
			want = s.target(want)
		}
	}
	require.Len(t, slots, want)
	// A slot that a scenario leaves empty may be filled again by the other.
	left := map[slotMode]bool{slotLive: true, p.a.mode: true, p.b.mode: true}
	refills := p.a.reload != "" || p.b.reload != "" || p.a.target != nil || p.b.target != nil
	empty := 0
	for _, s := range slots {
		require.True(t, left[s.Mode], "slot %d is %v\n%s", s.Place, s.Mode, w.story())
		if s.Mode != slotLive {
			empty++
		}
	}
	if !refills && !p.recycles() {
		should := 0
		for _, s := range []scenario{p.a, p.b} {
			if s.mode != slotLive {
				should++
			}
		}
		if p.same && !p.newest() {
			should = min(should, 1)
		}
		require.LessOrEqual(t, empty, should, w.story())
	}
	p.checkGenerations(w, slots)
}

// newest reports whether one chooses its worker itself.
func (p pair) newest() bool {
	return strings.HasSuffix(p.a.name, "newest worker") || strings.HasSuffix(p.b.name, "newest worker")
}

// recycles reports whether workers are recycled.
func (p pair) recycles() bool {
	return strings.HasPrefix(p.a.name, "recycling") || strings.HasPrefix(p.b.name, "recycling")
}

// checkReload is what the Reload of one is told, beside the other.
func (p pair) checkReload(w *simulation, a *reloadCall, of, other scenario, gaveUp error) {
	t := w.t
	text := fmt.Sprintf("%v\n%s", a.err, w.story())
	switch {
	case other.stops && !a.before:
		require.ErrorIs(t, a.err, errs.Closed, text)
	case gaveUp != nil && !a.before && a.err != nil && strings.Contains(a.err.Error(), gaveUp.Error()):
	case other.breaks != "" && a.err != nil && strings.Contains(a.err.Error(), other.breaks):
	case a.err != nil && strings.Contains(a.err.Error(), diedAnew):
		require.True(t, w.diedAnew(), text)
	case of.reload == "ok":
		require.NoError(t, a.err, text)
	case other.name == "scale to nothing" && a.err == nil:
		// No slot is left in which it can fail.
	default:
		require.ErrorContains(t, a.err, of.reload, text)
	}
}

// checkGenerations: after a reload that succeeded all is new; after one that
// failed at its first slot all is as it was.
func (p pair) checkGenerations(w *simulation, slots []slot) {
	t := w.t
	var last *reloadCall
	complete := 1
	for i, a := range w.reloads {
		last = a
		if a.err == nil {
			complete = i + 2
		}
	}
	if last == nil {
		complete = 1
	}
	for _, s := range slots {
		if last == nil || last.err == nil || !p.broken(last.err) {
			require.Equal(t, complete, w.m.st.Generations[s.Generation].Number, "slot %d\n%s", s.Place, w.story())
		} else {
			require.Contains(t, []int{complete, len(w.reloads) + 1}, w.m.st.Generations[s.Generation].Number, "slot %d\n%s", s.Place, w.story())
		}
	}
	require.Equal(t, complete, w.stats().Generation)
}

// broken reports whether err is of a reload that one made the other's fail, in
// the middle perhaps.
func (p pair) broken(err error) bool {
	for _, s := range []scenario{p.a, p.b} {
		if s.breaks != "" && strings.Contains(err.Error(), s.breaks) {
			return true
		}
	}
	return strings.Contains(err.Error(), diedAnew)
}

// diedAnew is the reason of a reload that fails because one of its new workers has died after it
// had taken over.
const diedAnew = "ended during the reload"

// diedAnew reports whether a worker has died, unasked, that a reload has forked:
// with status 0 too, if that comes before it was ready for a second.
func (w *simulation) diedAnew() bool {
	for _, p := range w.all {
		if p.generation > 1 && p.IsDead() && !p.exit().Voluntary {
			return true
		}
	}
	return false
}

// worksOn: whatever has happened, what is asked for now is done as ever.
func (w *simulation) worksOn(recycles bool) {
	t := w.t
	if r := w.run; r != nil && r.over {
		// One that a Disconnect killed did not drain, as Run tells.
		if !errors.Is(r.err, errKilled) {
			require.Equal(t, fmt.Sprint(w.m.GaveUp()), fmt.Sprint(r.err))
		}
		w.run = nil
	}
	w.listen = true // else the next crash may be one too many
	w.calm()
	if slots := len(w.m.st.Slots); slots == 0 {
		for _, p := range w.list() { // those that nobody supervises any more
			w.dies(p, 1)
		}
		w.settings.Workers = 2
		require.NoError(t, w.autoFork())
	} else {
		require.NoError(t, w.scale(slots))
	}
	w.settle()
	w.calm()
	filled := func() (ids []int) {
		for _, s := range w.m.st.Slots {
			if p := w.of(s.Current); p != nil && w.isUp(p) {
				ids = append(ids, p.id)
			}
		}
		require.Len(t, ids, len(w.m.st.Slots))
		return ids
	}
	before := filled()
	w.dies(w.cur(0), 1)
	w.calm()
	after := filled()
	require.NotEqual(t, before[0], after[0])
	if !recycles { // they may be due again
		require.Equal(t, before[1:], after[1:])
	}
	a := w.callReload()
	w.calm()
	require.True(t, a.over)
	require.NoError(t, a.err)
	for _, p := range w.list() {
		if p.place >= 0 {
			require.Equal(t, w.m.st.Completed, p.number(), "old code after a reload")
		}
	}
}

// finish ends the simulation, in which nothing may be left.
func (w *simulation) finish() {
	t := w.t
	if w.run != nil {
		w.run.stop()
	}
	w.disconnect()
	w.settle()
	w.calm()
	for _, p := range w.forked() {
		require.True(t, p.IsDead())
	}
	if w.run != nil {
		require.True(t, w.run.over)
		require.NoError(t, w.run.err)
	}
	before := len(w.forked())
	w.after(time.Hour)
	require.Len(t, w.forked(), before)
	require.True(t, w.m.Next().IsZero(), "a deadline is left")
	for _, c := range w.calls {
		require.True(t, c.over, "call %d is not answered", c.id)
	}
}
