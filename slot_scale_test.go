package cluster

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Scaling, over the state of the slots.

// TestScaleUpDuringReload: new slots begin with what has proven itself, and the
// reload comes to them; when it fails they are as the other old ones.
func TestScaleUpDuringReload(t *testing.T) {
	exit := realExits(t)
	for _, ok := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n, all := filled(t, Options{Workers: 1})
			defer n.stop()
			done := n.reload()
			next := n.started()
			require.NoError(t, n.m.scale(2))
			added := n.started()
			require.Equal(t, []int{0, 1}, []int{next.Slot(), added.Slot()})
			require.Same(t, all[0].child.gen, added.child.gen)
			n.ready(added)
			if !ok {
				n.die(next, exit[1])
				require.Error(t, outcome(t, done))
				n.none(time.Hour)
				require.Equal(t, 2, n.serving())
				return
			}
			n.ready(next)
			n.die(all[0], exit[0])
			n.replaced(added, exit[0])
			require.NoError(t, outcome(t, done))
			n.none(time.Hour)
		})
	}
}

// TestScaleDownDuringReload: a slot that is removed is skipped, at every step of
// its replacement; but the reload is not done while an old worker of it drains.
func TestScaleDownDuringReload(t *testing.T) {
	exit := realExits(t)
	t.Run("not begun", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, all := filled(t, Options{Workers: 2})
			defer n.stop()
			done := n.reload()
			require.NoError(t, n.m.scale(1))
			require.Equal(t, Draining, all[1].State())
			n.replaced(all[0], exit[0])
			n.none(time.Second)
			require.Empty(t, done, "old code may answer yet")
			require.Equal(t, ReasonScale, n.end(all[1], exit[0]).Reason)
			require.NoError(t, outcome(t, done))
			n.none(time.Hour)
		})
	})
	t.Run("starting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, all := filled(t, Options{Workers: 2})
			defer n.stop()
			done := n.reload()
			n.replaced(all[0], exit[0])
			next := n.started()
			require.NoError(t, n.m.scale(1))
			require.Equal(t, []os.Signal{os.Kill}, n.killed(), "the replacement")
			require.Equal(t, Draining, all[1].State())
			require.Equal(t, ReasonReload, n.end(next, exit[-1]).Reason)
			require.Empty(t, done)
			require.Equal(t, ReasonScale, n.end(all[1], exit[0]).Reason)
			require.NoError(t, outcome(t, done))
			n.none(time.Hour)
		})
	})
	t.Run("draining", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, all := filled(t, Options{Workers: 1})
			defer n.stop()
			done := n.reload()
			next := n.started()
			n.ready(next)
			require.NoError(t, n.m.scale(0))
			require.NoError(t, n.m.scale(1))
			added := n.started()
			n.ready(added)
			require.Same(t, next.child.gen, added.child.gen, "it has proven itself")
			require.Equal(t, ReasonScale, n.end(next, exit[0]).Reason)
			require.Empty(t, done, "old code may answer yet")
			require.Equal(t, ReasonReload, n.end(all[0], exit[0]).Reason)
			require.NoError(t, outcome(t, done))
			n.none(time.Hour)
		})
	})
}

// TestAutoForkMeetsScaleAndReload: an AutoFork that forks while the slots are
// scaled away, or reloaded, takes what was decided for no failure.
func TestAutoForkMeetsScaleAndReload(t *testing.T) {
	for name, meet := range map[string]func(n *nursery) error{
		"scale":  func(n *nursery) error { return n.m.scale(1) },
		"reload": func(n *nursery) error { n.reload(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNursery(t, Options{Workers: 3})
				defer n.stop()
				start, slow, first := n.m.start, make(chan bool), true
				n.m.start = func(p *Process, env []string) error {
					if first {
						first = false
						<-slow
					}
					return start(p, env)
				}
				forked := make(chan error, 1)
				go func() { forked <- n.m.autoFork() }()
				synctest.Wait()
				require.NoError(t, meet(n))
				synctest.Wait()
				close(slow)
				require.NoError(t, outcome(t, forked))
				synctest.Wait()
				live := slices.DeleteFunc(n.m.list(), (*Process).ExitedAfterDisconnect)
				want := 3
				if name == "scale" {
					want = 1
				}
				require.Len(t, live, want)
			})
		})
	}
}

// TestScale: up forks into new slots, down drains the highest, whatever the
// slots are at; Settings, and the share of GOMAXPROCS of later workers, follow.
func TestScale(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 2})
		defer n.stop()
		require.Equal(t, 4, all[0].child.opts.procs())
		require.ErrorContains(t, n.m.scale(-1), "negative")
		require.NoError(t, n.m.scale(4))
		for i := 2; i < 4; i++ {
			p, _ := n.fork()
			require.Equal(t, i, p.Slot())
			require.Equal(t, 2, p.child.opts.procs())
			n.ready(p)
			all = append(all, p)
		}
		require.Equal(t, 4, n.m.settings().Workers)
		require.Equal(t, 2, n.m.settings().MaxProcs)
		require.NoError(t, n.m.setup(n.m.settings())) // freezes nothing
		require.NoError(t, n.m.scale(1))
		require.Equal(t, 8, n.m.settings().MaxProcs)
		require.Equal(t, Ready, all[0].State())
		for _, p := range all[1:] {
			require.Equal(t, Draining, p.State())
			e := n.end(p, exit[0])
			require.Equal(t, ReasonScale, e.Reason)
			require.True(t, e.Voluntary)
		}
		n.none(time.Hour)
		n.die(all[0], exit[1])
		p := n.started()
		require.Equal(t, 8, p.child.opts.procs())
		require.Equal(t, 1, n.m.stats().Target)
		require.NoError(t, n.m.scale(1))
		n.none(time.Hour)
	})
}

// TestScaleToNothing: the addresses stay; what is forked when there are workers
// again is what ran last, after a reload meanwhile what is there now.
func TestScaleToNothing(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 1})
		defer n.stop()
		done := n.reload()
		p, _ := n.replaced(all[0], exit[0])
		require.NoError(t, outcome(t, done))
		require.NoError(t, n.m.scale(0))
		n.die(p, exit[0])
		n.none(time.Hour)
		require.NoError(t, n.m.autoFork()) // none are wanted
		n.none(time.Hour)
		require.Zero(t, n.m.settings().Workers)
		require.NoError(t, n.m.scale(1))
		again := n.started()
		require.Same(t, p.child.gen, again.child.gen)
		require.NoError(t, n.m.scale(0))
		n.die(again, exit[0])
		require.NoError(t, outcome(t, n.reload()))
		require.NoError(t, n.m.scale(2))
		for range 2 {
			p, _ = n.fork()
			require.Equal(t, 3, p.child.gen.n)
		}
		require.Equal(t, 3, n.m.stats().Generation)
	})
}

// TestScaleFillsEmptySlots: those that Kill, Disconnect or ExitNoRestart emptied
// are filled again; those that wait for their backoff go on waiting.
func TestScaleFillsEmptySlots(t *testing.T) {
	exit := realExits(t)
	for name, empty := range emptySlot {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, all := filled(t, Options{Workers: 2})
				defer n.stop()
				empty(n, all[0], exit)
				live := n.slot(0).mode == slotLive
				require.NoError(t, n.m.scale(2))
				p, took := n.fork()
				require.Equal(t, 0, p.Slot())
				require.Equal(t, live, took > 0)
				n.none(time.Hour)
			})
		})
	}
}

// TestScaleLeavesToReload: an empty slot that a reload is filling is not filled
// by Scale as well.
func TestScaleLeavesToReload(t *testing.T) {
	exit := realExits(t)
	for name, empty := range emptySlot {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, all := filled(t, Options{Workers: 2})
				defer n.stop()
				empty(n, all[0], exit)
				done := n.reload()
				next := n.started()
				require.NoError(t, n.m.scale(2))
				n.none(30 * time.Second)
				n.ready(next)
				n.replaced(all[1], exit[0])
				require.NoError(t, outcome(t, done))
				require.Same(t, next, n.slot(0).cur)
			})
		})
	}
}

// TestScaleRetriesForks: a worker that cannot be started is an error of Scale,
// and is tried again.
func TestScaleRetriesForks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _ := filled(t, Options{Workers: 1})
		defer n.stop()
		broken := errors.New("no more processes")
		n.failing(broken)
		require.ErrorIs(t, n.m.scale(2), broken)
		n.failing(nil)
		p, _ := n.fork()
		require.Equal(t, 1, p.Slot())
	})
}

// TestScaleIsCounted: two signals in a row count twice, and none goes below one,
// or from nothing to one.
func TestScaleIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _ := filled(t, Options{Workers: 1})
		defer n.stop()
		target := func() (k int) {
			synctest.Wait()
			n.in(func(m *master) { k = len(m.slots) })
			return k
		}
		for range 3 {
			n.m.control(upSignal)
		}
		require.Equal(t, 4, target())
		for range 10 {
			n.m.control(downSignal)
		}
		require.Equal(t, 1, target())
		require.NoError(t, n.m.scale(0))
		n.m.control(downSignal)
		require.Equal(t, 0, target())
		n.m.control(upSignal)
		require.Equal(t, 1, target())
	})
}
