package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPairs: each thing that can happen to a cluster may begin while each other
// is under way, in the same slot or in another, and either may end first.
// Whatever comes of it, at every step what must hold at any time does; each
// Reload is answered as the contract says, each worker ends for the reason that
// came first, each slot is filled by what belongs there; and then all works as
// in a cluster to which nothing has happened.
//
// Each pair is tried in one of the four ways; with CLUSTER_LONG=1 in all.
func TestPairs(t *testing.T) {
	t.Parallel()
	exit := realExits(t)
	long := os.Getenv("CLUSTER_LONG") != ""
	for i, a := range scenarios {
		t.Run(a.name, func(t *testing.T) {
			for j, b := range scenarios {
				t.Run("and "+b.name, func(t *testing.T) {
					for way := range 4 {
						if !long && way != (i+j)%4 {
							continue
						}
						p := pair{a: a, b: b, same: way&1 == 0, firstEnds: way&2 == 0}
						synctest.Test(t, func(t *testing.T) { p.test(t, exit) })
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

func (p pair) test(t *testing.T, exit exits) {
	o := worldOptions()
	for _, s := range []scenario{p.a, p.b} {
		if s.set != nil {
			s.set(&o)
		}
	}
	w := newWorld(t, exit, o, !p.a.unproven && !p.b.unproven, p.a.run || p.b.run)
	defer w.abandon()
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

// calmUnlessHeld lets all happen that can while something is still held.
func (w *world) calmUnlessHeld() {
	for moved := true; moved; {
		moved = false
		for _, p := range w.forked() {
			moved = w.step(p) || moved
		}
	}
}

// check is what the contract says of the pair.
func (p pair) check(w *world, callsOfA int) {
	t := w.t
	for _, a := range w.reloads {
		require.True(t, a.over, "a Reload has not returned\n%s", w.story())
	}
	var gaveUp error
	var slots []slot
	w.in(func(m *master) {
		gaveUp = m.gaveUp
		for _, s := range m.slots {
			slots = append(slots, *s)
		}
	})
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
			require.Equal(t, why, w.deaths[q][0].Reason, "worker %d\n%s", q.id, w.story())
		}
	}
	if stopped || gaveUp != nil {
		require.Empty(t, slots)
		before := len(w.forked())
		w.after(time.Hour)
		require.Len(t, w.forked(), before, "a fork after the end")
		return
	}
	want := worldOptions().Workers
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
		require.True(t, left[s.mode], "slot %d is %v\n%s", s.n, s.mode, w.story())
		if s.mode != slotLive {
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
func (p pair) checkReload(w *world, a *reloadCall, of, other scenario, gaveUp error) {
	t := w.t
	text := fmt.Sprintf("%v\n%s", a.err, w.story())
	switch {
	case other.stops && !a.before:
		require.ErrorIs(t, a.err, ErrClosed, text)
	case gaveUp != nil && !a.before && a.err != nil && strings.Contains(a.err.Error(), gaveUp.Error()):
	case other.breaks != "" && a.err != nil && strings.Contains(a.err.Error(), other.breaks):
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
func (p pair) checkGenerations(w *world, slots []slot) {
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
			require.Equal(t, complete, s.gen.n, "slot %d\n%s", s.n, w.story())
		} else {
			require.Contains(t, []int{complete, len(w.reloads) + 1}, s.gen.n, "slot %d\n%s", s.n, w.story())
		}
	}
	require.Equal(t, complete, w.m.stats().Generation)
}

// broken reports whether err is of a reload that one made the other's fail, in
// the middle perhaps.
func (p pair) broken(err error) bool {
	for _, s := range []scenario{p.a, p.b} {
		if s.breaks != "" && strings.Contains(err.Error(), s.breaks) {
			return true
		}
	}
	return false
}

// worksOn: whatever has happened, what is asked for now is done as ever.
func (w *world) worksOn(recycles bool) {
	t := w.t
	if w.run != nil {
		select {
		case err := <-w.run:
			var gaveUp error
			w.in(func(m *master) { gaveUp = m.gaveUp })
			// One that a Disconnect killed did not drain, as Run tells.
			if !errors.Is(err, context.DeadlineExceeded) {
				require.ErrorIs(t, err, gaveUp)
			}
			w.run = nil
		default:
		}
	}
	w.listen = true // else the next crash may be one too many
	w.calm()
	slots := 0
	w.in(func(m *master) { slots = len(m.slots) })
	if slots == 0 {
		for _, p := range w.m.list() { // those that nobody supervises any more
			w.dies(p, 1)
		}
		o := w.m.settings()
		o.Workers = 2
		require.NoError(t, w.m.setup(o))
		require.NoError(t, w.m.autoFork())
	} else {
		require.NoError(t, w.m.scale(slots))
	}
	w.settle()
	w.calm()
	filled := func() (pids []int) {
		w.in(func(m *master) {
			slots = len(m.slots)
			for _, s := range m.slots {
				if s.cur != nil && w.isUp(s.cur) {
					pids = append(pids, s.cur.pid)
				}
			}
		})
		require.Len(t, pids, slots)
		return pids
	}
	before := filled()
	w.dies(w.cur(0), 1)
	w.calm()
	after := filled()
	require.NotEqual(t, before[0], after[0])
	if !recycles { // they may be due again
		require.Equal(t, before[1:], after[1:])
	}
	a := w.call()
	w.calm()
	require.True(t, a.over)
	require.NoError(t, a.err)
	newest := 0
	w.in(func(m *master) { newest = m.completed })
	for _, p := range w.m.list() {
		if p.slot >= 0 {
			require.Equal(t, newest, p.child.gen.n, "old code after a reload")
		}
	}
}

// abandon ends a world that has failed: what waits in its bubble would hide why.
func (w *world) abandon() {
	if !w.t.Failed() {
		return
	}
	if w.stopRun != nil {
		w.stopRun()
	}
	w.m.call(func() { w.m.beginStop() })
	for len(w.m.list()) > 0 {
		for _, p := range w.m.list() {
			w.die(p, w.exit[0])
		}
		time.Sleep(time.Second)
	}
	synctest.Wait()
}

// finish ends the world, in which nothing may be left.
func (w *world) finish() {
	t := w.t
	if w.stopRun != nil {
		w.stopRun()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.m.call(func() { w.m.beginStop() })
	}()
	<-done
	w.settle()
	w.calm()
	for _, p := range w.forked() {
		require.True(t, p.IsDead())
		require.Len(t, w.deaths[p], 1, "worker %d", p.id)
	}
	if w.run != nil {
		require.NoError(t, outcome(t, w.run))
	}
	before := len(w.forked())
	w.after(time.Hour)
	require.Len(t, w.forked(), before)
}
