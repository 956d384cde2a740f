package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A reload, and what else happens meanwhile, over the state of the slots.

// TestReloadGoesSlotBySlot: the new worker is ready before the old one drains,
// and the old one gone before the next slot's turn; as many serve as before all
// the time; Reload returns when the last old one is gone.
func TestReloadGoesSlotBySlot(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, old := filled(t, Options{Workers: 3})
		defer n.stop()
		results := make(chan ReloadResult, 10)
		defer OnReload(func(r ReloadResult) { results <- r })()
		done := n.reload()
		for i, p := range old {
			next := n.started()
			require.Equal(t, i, next.Slot())
			n.none(time.Second)
			n.online(next)
			n.none(time.Second)
			require.Equal(t, Ready, p.State(), "online is not ready")
			require.Equal(t, 3, n.serving())
			n.ready(next)
			require.Equal(t, Draining, p.State())
			require.Equal(t, 3, n.serving())
			n.none(10 * time.Second)
			require.Empty(t, done, "old code may answer yet")
			require.Same(t, next, n.slot(i).cur)
			e := n.end(p, exit[0])
			require.Equal(t, ReasonReload, e.Reason)
			require.True(t, e.Voluntary)
		}
		require.NoError(t, outcome(t, done))
		n.none(time.Hour)
		r := outcome(t, results)
		require.Equal(t, ReloadResult{Replaced: 3, Generation: 2, Took: r.Took}, r)
		require.Equal(t, 36*time.Second, r.Took)
		require.Empty(t, n.killed())
		s := n.m.stats()
		require.Equal(t, 2, s.Generation)
		require.Equal(t, ReloadStats{Replaced: 3, Took: Seconds(r.Took)}, s.Reload)
		for _, w := range s.Workers {
			require.Equal(t, 2, w.Generation)
			require.Zero(t, w.Restarts, "nothing crashed")
		}
	})
}

// TestReloadWaitsForWhatTheSlotWas: a replacement has to be ready where a worker
// of the slot ever was, or under ManualReady; elsewhere, as for a queue
// consumer, online is enough.
func TestReloadWaitsForWhatTheSlotWas(t *testing.T) {
	exit := realExits(t)
	for name, c := range map[string]struct {
		before State
		manual bool
		needed State
	}{
		"was ready":              {Ready, false, Ready},
		"never listens":          {Online, false, Online},
		"not yet online":         {Starting, false, Online},
		"ManualReady, was ready": {Ready, true, Ready},
		"ManualReady, was not":   {Online, true, Ready},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, all := born(t, Options{Workers: 1, ManualReady: c.manual})
				defer n.stop()
				old := all[0]
				switch c.before {
				case Online:
					n.online(old)
				case Ready:
					n.ready(old)
				}
				done := n.reload()
				next := n.started()
				require.NotEqual(t, Draining, old.State())
				n.online(next)
				require.Equal(t, c.needed == Online, old.State() == Draining)
				n.ready(next)
				require.Equal(t, Draining, old.State())
				n.die(old, exit[0])
				require.NoError(t, outcome(t, done))
			})
		})
	}
}

// TestReloadWithADeadPredecessor: an old worker that dies while its replacement
// starts is not replaced twice: the replacement inherits the slot.
func TestReloadWithADeadPredecessor(t *testing.T) {
	exit := realExits(t)
	for name, state := range exit {
		t.Run(fmt.Sprint(name), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, old := filled(t, Options{Workers: 1})
				defer n.stop()
				done := n.reload()
				next := n.started()
				n.die(old[0], state)
				n.none(time.Second)
				n.ready(next)
				require.NoError(t, outcome(t, done))
				require.Same(t, next, n.slot(0).cur)
				require.Equal(t, slotLive, n.slot(0).mode)
				n.die(next, exit[1])
				again, took := n.fork()
				require.Zero(t, took)
				require.Same(t, next.child.gen, again.child.gen)
			})
		})
	}
}

// TestReloadAbortsAtTheFirstFailure: whatever keeps a new worker from being
// ready, the reload ends with an error that tells, the old worker of the slot
// stays, those replaced before stay new, and the next reload does what is left.
func TestReloadAbortsAtTheFirstFailure(t *testing.T) {
	exit := realExits(t)
	for name, c := range map[string]struct {
		fail func(n *nursery, p *Process)
		text string
		why  Reason
	}{
		"exits":           {func(n *nursery, p *Process) { n.die(p, exit[1]) }, "exit status 1", ReasonCrash},
		"exits with 0":    {func(n *nursery, p *Process) { n.online(p); n.die(p, exit[0]) }, "exit status 0", ReasonCrash},
		"ExitNoRestart":   {func(n *nursery, p *Process) { n.die(p, exit[ExitNoRestart]) }, "exit status 78", ReasonCrash},
		"killed":          {func(n *nursery, p *Process) { n.die(p, exit[-1]) }, killedText, ReasonCrash},
		"never online":    {func(n *nursery, p *Process) { time.Sleep(defaultStartTimeout) }, "StartTimeout", ReasonReload},
		"never ready":     {func(n *nursery, p *Process) { n.online(p); time.Sleep(defaultStartTimeout) }, "not ready within 1m0s (StartTimeout)", ReasonReload},
		"somebody's Kill": {func(n *nursery, p *Process) { n.m.killWorker(p); n.die(p, exit[-1]) }, killedText, ReasonKill},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, old := filled(t, Options{Workers: 3})
				defer n.stop()
				done := n.reload()
				first, _ := n.replaced(old[0], exit[0])
				p := n.started()
				why := make(chan Exit, 1)
				p.OnExit(func(_ *Process, e Exit) { why <- e })
				c.fail(n, p)
				synctest.Wait()
				err := outcome(t, done)
				require.ErrorContains(t, err, "cluster: Reload: the new worker of slot 1")
				require.ErrorContains(t, err, c.text)
				if !p.IsDead() {
					require.Contains(t, n.killed(), os.Kill, "the late one")
					n.die(p, exit[-1])
				}
				require.Equal(t, c.why, outcome(t, why).Reason)
				n.none(time.Hour)
				require.Same(t, first, n.slot(0).cur)
				require.Equal(t, 2, n.slot(0).gen.n)
				for i := 1; i < 3; i++ {
					require.Same(t, old[i], n.slot(i).cur)
					require.Equal(t, Ready, old[i].State())
					require.Equal(t, 1, n.slot(i).gen.n)
				}
				s := n.m.stats()
				require.Equal(t, 1, s.Generation, "the last complete one")
				require.Equal(t, 1, s.Reload.Replaced)
				require.Equal(t, err.Error(), s.Reload.Error)

				// A crash goes back to what the slot ran.
				n.die(old[1], exit[1])
				respawn := n.started()
				require.Same(t, old[1].child.gen, respawn.child.gen)
				n.ready(respawn)
				n.die(first, exit[1])
				newer := n.started()
				require.Same(t, first.child.gen, newer.child.gen)
				n.ready(newer)

				done = n.reload()
				for _, p := range []*Process{newer, respawn, old[2]} {
					n.replaced(p, exit[0])
				}
				require.NoError(t, outcome(t, done))
				require.Equal(t, 3, n.m.stats().Generation)
			})
		})
	}
}

// TestReloadThatCannotFork: it fails as any other, also when the program is not
// there any more.
func TestReloadThatCannotFork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, old := filled(t, Options{Workers: 2})
		defer n.stop()
		broken := errors.New("out of processes")
		n.failing(broken)
		require.ErrorIs(t, outcome(t, n.reload()), broken)
		n.failing(nil)
		n.none(time.Hour)
		require.Same(t, old[0], n.slot(0).cur)

		o := n.m.settings()
		o.Exec = tempDirIn(t) + "/missing"
		require.NoError(t, n.m.setup(o))
		require.ErrorIs(t, outcome(t, n.reload()), os.ErrNotExist)
		n.none(time.Hour)
		require.Equal(t, 2, n.serving())
	})
}

// TestReloadFailsWithADeadPredecessor: when both are dead the slot goes back to
// its old generation, after the backoff.
func TestReloadFailsWithADeadPredecessor(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, old := filled(t, Options{Workers: 1})
		defer n.stop()
		for i, want := range []time.Duration{0, 100, 200} {
			done := n.reload()
			next := n.started()
			n.die(old[0], exit[1])
			n.none(time.Second)
			n.die(next, exit[1])
			require.Error(t, outcome(t, done))
			p, took := n.fork()
			near(t, want*time.Millisecond, took)
			require.Equal(t, 1, p.child.gen.n, "round %d", i)
			require.Equal(t, i, n.slot(0).failures-1)
			n.ready(p)
			old[0] = p
		}
	})
}

// TestReloadFillsEmptySlots: an empty slot is forked at once, whatever it waits
// for. When that fails it is what it was before.
func TestReloadFillsEmptySlots(t *testing.T) {
	exit := realExits(t)
	for name, empty := range emptySlot {
		for _, ok := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ok), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n, all := filled(t, Options{Workers: 2})
					defer n.stop()
					empty(n, all[0], exit)
					mode := n.slot(0).mode
					done := n.reload()
					next := n.started()
					require.Equal(t, 0, next.Slot())
					if ok {
						n.ready(next)
						n.replaced(all[1], exit[0])
						require.NoError(t, outcome(t, done))
						require.Equal(t, slotLive, n.slot(0).mode)
						n.none(time.Hour)
						return
					}
					n.die(next, exit[1])
					require.Error(t, outcome(t, done))
					require.Equal(t, mode, n.slot(0).mode)
					if mode != slotLive {
						n.none(time.Hour)
						return
					}
					p, took := n.fork()
					require.Positive(t, took, "backoff")
					require.Same(t, all[0].child.gen, p.child.gen)
				})
			})
		}
	}
}

// TestReloadIsShared: calls during a reload wait for one more, and share it: a
// deployment made meanwhile is not missed. A call's context ends the call alone.
func TestReloadIsShared(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 1})
		defer n.stop()
		var results []ReloadResult
		defer OnReload(func(r ReloadResult) { results = append(results, r) })()
		first := n.reload()
		second, third := n.reload(), n.reload()
		ctx, cancel := context.WithCancel(context.Background())
		given := make(chan error, 1)
		go func() { given <- n.m.reloadWorkers(ctx) }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, outcome(t, given), context.Canceled)
		p, _ := n.replaced(all[0], exit[0])
		require.NoError(t, outcome(t, first))
		require.Empty(t, second)
		n.replaced(p, exit[0])
		require.NoError(t, outcome(t, second))
		require.NoError(t, outcome(t, third))
		n.none(time.Hour)
		require.Len(t, results, 2)
		require.Equal(t, 3, n.m.stats().Generation)
	})
	// The reload of a call that was given up goes on.
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 1})
		defer n.stop()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.ErrorIs(t, n.m.reloadWorkers(ctx), context.DeadlineExceeded)
		n.replaced(all[0], exit[0])
		require.Equal(t, 2, n.m.stats().Generation)
	})
	// A failure is told to those who waited for that reload, and to no other.
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 1})
		defer n.stop()
		first := n.reload()
		second := n.reload()
		n.die(n.started(), exit[1])
		require.Error(t, outcome(t, first))
		n.replaced(all[0], exit[0])
		require.NoError(t, outcome(t, second))
	})
}

// TestReloadWithoutWorkers: there must be something to reload.
func TestReloadWithoutWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNursery(t, Options{Workers: 1})
		defer n.stop()
		require.ErrorIs(t, outcome(t, n.reload()), ErrNoWorkers)
		_, err := n.m.forkOne(nil)
		require.NoError(t, err)
		n.fork()
		require.ErrorIs(t, outcome(t, n.reload()), ErrNoWorkers, "a plain Fork is not kept")
	})
}

// TestReloadLeavesPlainForksAlone: it neither replaces them nor waits for them.
func TestReloadLeavesPlainForksAlone(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 1})
		defer n.stop()
		_, err := n.m.forkOne(nil)
		require.NoError(t, err)
		plain, _ := n.fork()
		n.ready(plain)
		done := n.reload()
		n.replaced(all[0], exit[0])
		require.NoError(t, outcome(t, done))
		require.Equal(t, Ready, plain.State())
		require.Equal(t, ReasonCrash, n.end(plain, exit[1]).Reason)
		n.none(time.Hour)
	})
}

// TestStopDuringReload: whatever the reload is at, it and those who wait for the
// next one get ErrClosed, nothing more is forked, and the replacement is drained
// as all others: it may serve already.
func TestStopDuringReload(t *testing.T) {
	exit := realExits(t)
	for name, step := range map[string]func(n *nursery, next, old *Process){
		"starting":     func(*nursery, *Process, *Process) {},
		"online":       func(n *nursery, next, _ *Process) { n.online(next) },
		"old is dead":  func(n *nursery, _, old *Process) { n.die(old, exit[1]) },
		"old draining": func(n *nursery, next, _ *Process) { n.ready(next) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, all := filled(t, Options{Workers: 2})
				done := n.reload()
				later := n.reload()
				next := n.started()
				step(n, next, all[0])
				stopped := make(chan error, 1)
				go func() { stopped <- n.m.disconnect(t.Context()) }()
				synctest.Wait()
				require.ErrorIs(t, outcome(t, done), ErrClosed)
				require.ErrorIs(t, outcome(t, later), ErrClosed)
				require.ErrorIs(t, outcome(t, n.reload()), ErrClosed)
				require.Equal(t, Draining, next.State())
				require.Empty(t, n.killed())
				for _, p := range n.m.list() {
					want := ReasonStop
					if p == all[0] && name == "old draining" {
						want = ReasonReload
					}
					require.Equal(t, want, n.end(p, exit[0]).Reason)
				}
				require.NoError(t, outcome(t, stopped))
				n.none(time.Hour)
				require.ErrorIs(t, outcome(t, n.reload()), ErrNoWorkers)

				// All begins anew.
				require.NoError(t, n.m.autoFork())
				for range 2 {
					p, _ := n.fork()
					n.ready(p)
					all = append(all[1:], p)
				}
				done = n.reload()
				for _, p := range all {
					n.replaced(p, exit[0])
				}
				require.NoError(t, outcome(t, done))
				n.stop()
			})
		})
	}
}

// TestReloadDuringACrashLoop: a slot that crashes goes on doing so in its own
// time while another is replaced, and the new worker ends the loop.
func TestReloadDuringACrashLoop(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 2})
		defer n.stop()
		done := n.reload()
		next := n.started()
		for _, want := range []time.Duration{0, 100, 200, 400} {
			n.die(all[1], exit[1])
			p, took := n.fork()
			near(t, want*time.Millisecond, took)
			require.Equal(t, 1, p.Slot())
			require.Same(t, all[0].child.gen, p.child.gen)
			all[1] = p
		}
		n.die(all[1], exit[1]) // 800 ms
		synctest.Wait()
		n.ready(next)
		n.die(all[0], exit[0])
		synctest.Wait()
		fixed := n.started()
		require.Equal(t, 1, fixed.Slot())
		n.ready(fixed)
		require.NoError(t, outcome(t, done))
		n.none(time.Second) // less than would make it a first crash anyway
		n.die(fixed, exit[1])
		_, took := n.fork()
		require.Zero(t, took, "a first crash")
	})
}

// TestReloadUsesWhatIsInForce: the new workers have the options and the
// environment of the time of the call, the respawned ones those of their slot.
func TestReloadUsesWhatIsInForce(t *testing.T) {
	exit := realExits(t)
	t.Setenv("CLUSTER_TEST_GENERATION", "1")
	env := func(p *Process) (s string) {
		for _, kv := range p.child.gen.env {
			if len(kv) > 24 && kv[:24] == "CLUSTER_TEST_GENERATION=" {
				s = kv[24:]
			}
		}
		return s
	}
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 1, Args: []string{"one"}})
		defer n.stop()
		os.Setenv("CLUSTER_TEST_GENERATION", "2")
		o := n.m.settings()
		o.Args = []string{"two"}
		require.NoError(t, n.m.setup(o))
		n.die(all[0], exit[1])
		p := n.started()
		require.Equal(t, "1", env(p))
		require.Equal(t, []string{"one"}, p.child.opts.Args)
		n.ready(p)
		done := n.reload()
		p, _ = n.replaced(p, exit[0])
		require.NoError(t, outcome(t, done))
		require.Equal(t, "2", env(p))
		require.Equal(t, []string{"two"}, p.child.opts.Args)
	})
}

// TestReloadAfterGivingUp: without Run, workers of other slots outlive the end
// of the supervision. When it has begun again a reload drains them, or it would
// wait for them for ever: old code must not answer after it.
func TestReloadAfterGivingUp(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := born(t, Options{Workers: 2, MaxBootFailures: 1})
		defer n.stop()
		p, left := all[0], all[1]
		n.die(p, exit[1])
		n.ready(left)
		n.none(time.Hour)
		require.NoError(t, n.m.scale(1))
		p = n.started()
		n.ready(p)
		require.Equal(t, Ready, left.State())
		done := n.reload()
		n.replaced(p, exit[0])
		require.Empty(t, done, "old code may answer yet")
		require.Equal(t, Draining, left.State())
		require.Equal(t, ReasonReload, n.end(left, exit[0]).Reason)
		require.NoError(t, outcome(t, done))
		require.Equal(t, 1, n.serving())
	})
}
