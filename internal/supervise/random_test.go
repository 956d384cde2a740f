package supervise

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Everything at once, in any order.

// TestSupervisionAtRandom: reloads, scaling, crashes, kills, stalls, recycling,
// failed forks and slow workers in any order leave no slot behind: when it is
// quiet again each has one worker, every Reload has returned, and nothing is on
// its way.
func TestSupervisionAtRandom(t *testing.T) {
	seeds := 100
	if testing.Short() {
		seeds = 30
	}
	seeds /= thinned
	base := rand.Uint64()
	for i := range seeds {
		seed := base + uint64(i)
		randomLife(t, seed)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func randomLife(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	o := Settings{Workers: 1 + r.IntN(4), ReadyFor: time.Duration(r.IntN(2)) * 5 * time.Second, MaxBootFailures: -1, ManualReady: r.IntN(2) == 0, Recycle: Recycle{Age: time.Duration(r.IntN(2)) * time.Minute}}
	n := newFake(t, o)
	require.NoError(t, n.autoFork())
	var reloads []*call // and restarts
	pick := func() *proc {
		if all := n.list(); len(all) > 0 {
			return all[r.IntN(len(all))]
		}
		return nil
	}
	stopped := false
	for range 60 {
		p := pick()
		switch op := r.IntN(17); {
		case op == 0:
			reloads = append(reloads, n.reload())
		case op == 1:
			n.scale(r.IntN(5))
		case op == 2:
			n.failing(errors.New("no more processes"))
		case op == 3 || op == 4:
			n.failing(nil)
		case op == 5:
			n.sleep(time.Duration(r.Int64N(int64(time.Minute))))
		case op == 14:
			reloads = append(reloads, n.restart(r.IntN(5)))
		case op == 15:
			if id, _ := n.vacate(r.IntN(5)); id != 0 {
				n.die(n.proc(id), killed)
			}
		case op == 16:
			n.respawn(r.IntN(5))
		case p == nil:
		case op == 6:
			n.die(p, []int{0, 1, 2, killed}[r.IntN(4)])
		case op == 7:
			n.kill(p)
			n.die(p, killed)
		case op == 8:
			n.full(p)
		case op == 9:
			n.online(p)
		case op < 13:
			n.ready(p)
		case r.IntN(10) == 0:
			stopped = true
		default:
			n.mute = !n.mute
		}
		n.forget()
		n.checkSlots(seed)
		if stopped {
			break
		}
	}
	if stopped {
		n.stop()
		for _, c := range reloads {
			c.outcome()
		}
		n.forget()
		n.none(time.Hour)
		return
	}
	// From here on all goes well.
	n.failing(nil)
	n.mute = false
	want := len(n.m.st.Slots)
	if want == 0 {
		want = 1
	}
	require.NoError(t, n.scale(want), "seed %d", seed) // fills the slots that are off
	settled := func() (ok bool) {
		st := &n.m.st
		ok = st.Replacing == nil && st.Reload == nil && len(st.Workers) == len(st.Slots)
		for _, s := range st.Slots {
			ok = ok && s.Current != 0 && s.current().State == Ready
		}
		return ok
	}
	for begun := n.now; !settled(); {
		require.Less(t, n.now.Sub(begun), time.Hour, "seed %d: %+v", seed, n.stats())
		for _, p := range n.list() {
			switch {
			case p.State() == Draining || p.voluntary || p.worker().Reason != "":
				n.die(p, killed)
			default:
				n.ready(p)
			}
		}
		n.sleep(time.Second)
		n.forget()
	}
	n.checkSlots(seed)
	for _, c := range reloads {
		c.outcome()
	}
	require.Equal(t, want, len(n.list()))
	n.stop()
}

// forget drops the forks so far.
func (n *fakeCluster) forget() { n.forks = nil }

// checkSlots checks what holds at any time.
func (n *fakeCluster) checkSlots(seed uint64) {
	n.t.Helper()
	require.Empty(n.t, n.m.inconsistent(), "seed %d", seed)
}
