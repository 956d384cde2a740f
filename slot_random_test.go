package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Everything at once, in any order.

// TestSupervisionAtRandom: reloads, scaling, crashes, kills, stalls, recycling,
// failed forks and slow workers in any order leave no slot behind: when it is
// quiet again each has one worker, every Reload has returned, and nothing is on
// its way.
func TestSupervisionAtRandom(t *testing.T) {
	exit := realExits(t)
	seeds := 100
	if testing.Short() {
		seeds = 30
	}
	base := rand.Uint64()
	for i := range seeds {
		seed := base + uint64(i)
		synctest.Test(t, func(t *testing.T) { randomLife(t, seed, exit) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func randomLife(t *testing.T, seed uint64, exit exits) {
	r := rand.New(rand.NewPCG(seed, 0))
	o := Options{Workers: 1 + r.IntN(4), MaxBootFailures: -1, ManualReady: r.IntN(2) == 0, Recycle: Recycle{Age: time.Duration(r.IntN(2)) * time.Minute}}
	n := newNursery(t, o)
	require.NoError(t, n.m.autoFork())
	var reloads []<-chan error
	pick := func() *Process {
		if all := n.m.list(); len(all) > 0 {
			slices.SortFunc(all, func(a, b *Process) int { return a.id - b.id })
			return all[r.IntN(len(all))]
		}
		return nil
	}
	stopped := false
	for range 60 {
		p := pick()
		switch op := r.IntN(14); {
		case op == 0:
			reloads = append(reloads, n.reload())
		case op == 1:
			n.m.scale(r.IntN(5))
		case op == 2:
			n.failing(errors.New("no more processes"))
		case op == 3 || op == 4:
			n.failing(nil)
		case op == 5:
			time.Sleep(time.Duration(r.Int64N(int64(time.Minute))))
		case p == nil:
		case op == 6:
			n.die(p, exit[[]int{0, 1, 2, -1}[r.IntN(4)]])
		case op == 7:
			n.m.killWorker(p)
			n.die(p, exit[-1])
		case op == 8:
			n.in(func(m *master) { m.wantRecycle(p) })
		case op == 9:
			n.online(p)
		case op < 13:
			n.ready(p)
		case r.IntN(10) == 0:
			stopped = true
		default:
			n.set(func() { n.mute = !n.mute })
		}
		synctest.Wait()
		n.forget()
		n.checkSlots(seed)
		if stopped {
			break
		}
	}
	if stopped {
		n.stop()
		for _, c := range reloads {
			outcome(t, c)
		}
		n.forget()
		n.none(time.Hour)
		return
	}
	// From here on all goes well.
	n.failing(nil)
	n.set(func() { n.mute = false })
	var want int
	n.in(func(m *master) { want = len(m.slots) })
	if want == 0 {
		want = 1
	}
	require.NoError(t, n.m.scale(want), "seed %d", seed) // fills the slots that are off
	settled := func() (ok bool) {
		n.in(func(m *master) {
			ok = m.token == nil && m.reload == nil && len(m.workers) == len(m.slots)
			for _, s := range m.slots {
				ok = ok && s.cur != nil && s.cur.State() == Ready
			}
		})
		return ok
	}
	for begun := time.Now(); !settled(); {
		require.Less(t, time.Since(begun), time.Hour, "seed %d: %+v", seed, n.m.stats())
		for _, p := range n.m.list() {
			switch {
			case p.State() == Draining || p.voluntary.Load() || p.child.reason != "":
				n.die(p, exit[-1])
			default:
				n.ready(p)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		n.forget()
	}
	n.checkSlots(seed)
	for _, c := range reloads {
		outcome(t, c)
	}
	require.Equal(t, want, len(n.m.list()))
	n.stop()
}

// forget drops the forks so far.
func (n *nursery) forget() {
	for len(n.forks) > 0 {
		<-n.forks
	}
}

// checkSlots checks what holds at any time.
func (n *nursery) checkSlots(seed uint64) {
	n.t.Helper()
	wrong := ""
	n.in(func(m *master) { wrong = m.inconsistent() })
	require.Empty(n.t, wrong, "seed %d", seed)
}

// inconsistent tells what is wrong with the state, if anything is.
func (m *master) inconsistent() string {
	owners := make(map[*Process]bool)
	for i, s := range m.slots {
		for _, p := range []*Process{s.cur, s.next} {
			if p == nil {
				continue
			}
			if owners[p] || p.IsDead() || s.n != i || p.slot != i {
				return fmt.Sprintf("worker %d is not in its place in slot %d", p.id, i)
			}
			owners[p] = true
		}
		switch {
		case s.next != nil && (m.token == nil || m.token.s != s || m.token.next != s.next):
			return fmt.Sprintf("slot %d has a replacement without the token", i)
		case s.cur == nil && s.mode == slotLive && s.retry == nil && m.forking == 0 && !m.replacing(s):
			return fmt.Sprintf("slot %d is left empty", i)
		}
		_, done, err := s.gen.bin.forExec(workerChannelFD)
		if err != nil {
			return fmt.Sprintf("slot %d has no program: %v", i, err)
		}
		done()
	}
	for _, p := range m.workers {
		// Without Run those live on that were there when the supervision gave up.
		if s := p.child.slot; s != nil && !owners[p] && !p.voluntary.Load() && (m.gaveUp == nil || s.mode != slotGone) {
			return fmt.Sprintf("worker %d is nobody's", p.id)
		}
	}
	return ""
}
