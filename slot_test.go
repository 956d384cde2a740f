//go:build unix

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The state of a slot: each step of a reload, of scaling, recycling and the
// watchdog, and what becomes of them when something else happens meanwhile.

// filled makes a cluster of which all workers are ready.
func filled(t *testing.T, o Options) (*nursery, []*Process) {
	t.Helper()
	n := newNursery(t, o)
	require.NoError(t, n.m.autoFork())
	var all []*Process
	for range o.Workers {
		p, _ := n.fork()
		n.ready(p)
		all = append(all, p)
	}
	return n, all
}

// reload begins a Reload and returns its outcome.
func (n *nursery) reload() <-chan error {
	done := make(chan error, 1)
	go func() { done <- n.m.reloadWorkers(context.Background()) }()
	synctest.Wait()
	return done
}

// outcome waits for what comes over c.
func outcome[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Hour):
		t.Fatal("no outcome")
		panic("unreachable")
	}
}

// end lets p die and returns why it did.
func (n *nursery) end(p *Process, state *os.ProcessState) Exit {
	n.t.Helper()
	exits := make(chan Exit, 1)
	p.OnExit(func(_ *Process, e Exit) { exits <- e })
	n.die(p, state)
	synctest.Wait()
	return outcome(n.t, exits)
}

// in runs fn where the state may be looked at.
func (n *nursery) in(fn func(m *master)) { n.m.call(func() { fn(n.m) }) }

// slot is what the slot i looks like.
func (n *nursery) slot(i int) (s slot) {
	n.in(func(m *master) { s = *m.slots[i] })
	return s
}

// counts the workers that serve.
func (n *nursery) serving() (serving int) {
	for _, p := range n.m.list() {
		if p.State() == Ready {
			serving++
		}
	}
	return serving
}

// started checks that one worker is forked at once, and none beside it.
func (n *nursery) started() *Process {
	n.t.Helper()
	p, took := n.fork()
	require.Zero(n.t, took)
	require.Empty(n.t, n.forks)
	return p
}

// replaced lets a replacement come up and its predecessor go, of whom it
// returns the exit.
func (n *nursery) replaced(old *Process, state *os.ProcessState) (next *Process, e Exit) {
	n.t.Helper()
	next = n.started()
	require.Equal(n.t, old.Slot(), next.Slot())
	n.ready(next)
	require.Equal(n.t, Draining, old.State())
	return next, n.end(old, state)
}

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
				n := newNursery(t, Options{Workers: 1, ManualReady: c.manual})
				defer n.stop()
				require.NoError(t, n.m.autoFork())
				old, _ := n.fork()
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
		"killed":          {func(n *nursery, p *Process) { n.die(p, exit[-1]) }, "signal: killed", ReasonCrash},
		"never online":    {func(n *nursery, p *Process) { time.Sleep(defaultStartTimeout) }, "StartTimeout", ReasonReload},
		"never ready":     {func(n *nursery, p *Process) { n.online(p); time.Sleep(defaultStartTimeout) }, "not ready within 1m0s (StartTimeout)", ReasonReload},
		"somebody's Kill": {func(n *nursery, p *Process) { n.m.killWorker(p); n.die(p, exit[-1]) }, "signal: killed", ReasonKill},
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
		o.Exec = t.TempDir() + "/missing"
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

// emptySlot makes the only slot empty, in one of the ways in which it can be.
var emptySlot = map[string]func(n *nursery, p *Process, exit exits){
	"backing off": func(n *nursery, p *Process, exit exits) {
		for range 6 {
			n.die(p, exit[1])
			p, _ = n.fork()
			n.ready(p)
		}
		n.die(p, exit[1])
	},
	"fork fails": func(n *nursery, p *Process, exit exits) {
		n.failing(errors.New("no more processes"))
		n.die(p, exit[1])
		synctest.Wait()
		time.Sleep(time.Minute)
		n.failing(nil)
		synctest.Wait()
		require.Empty(n.t, n.forks)
	},
	"off": func(n *nursery, p *Process, exit exits) { n.m.killWorker(p); n.die(p, exit[-1]) },
	"out": func(n *nursery, p *Process, exit exits) { n.die(p, exit[ExitNoRestart]) },
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

// TestOneReplacementAtATime: a removed slot whose old worker drains still has
// the token.
func TestOneReplacementAtATime(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 3})
		defer n.stop()
		n.in(func(m *master) { m.slots[2].gen, m.slots[0].gen = m.slots[0].gen, m.slots[2].gen })
		time.Sleep(time.Minute)
		n.in(func(m *master) { m.wantRecycle(all[2]); m.wantRecycle(all[0]); m.wantRecycle(all[1]) })
		synctest.Wait()
		next := n.started()
		require.Equal(t, 2, next.Slot())
		n.ready(next)
		require.NoError(t, n.m.scale(2))
		n.none(time.Second)
		n.die(next, exit[0])
		n.none(time.Second)
		n.die(all[2], exit[0])
		synctest.Wait()
		n.replaced(all[0], exit[0])
		_, e := n.replaced(all[1], exit[0])
		require.Equal(t, ReasonRecycle, e.Reason)
		n.none(time.Hour)
	})
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
		n.none(time.Hour)
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

// ---- scaling

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

// ---- backing off and giving up

// TestBackoffOptions: the waits are what Options.Backoff says; without jitter
// exactly.
func TestBackoffOptions(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 1, Backoff: Backoff{Min: time.Second, Max: 20 * time.Second, Factor: 3, Reset: time.Minute, Jitter: -1}})
		defer n.stop()
		p := all[0]
		for _, want := range []time.Duration{0, 1, 3, 9, 20, 20} {
			n.die(p, exit[1])
			next, took := n.fork()
			require.Equal(t, want*time.Second, took)
			n.ready(next)
			p = next
		}
		time.Sleep(time.Minute - 1)
		n.die(p, exit[1])
		p, took := n.fork()
		require.Equal(t, 20*time.Second, took)
		n.ready(p)
		time.Sleep(time.Minute)
		n.die(p, exit[1])
		_, took = n.fork()
		require.Zero(t, took)
	})
}

// TestMaxBootFailures: the bound is the option's, and negative means none. A
// slot that is ready once begins to count anew.
func TestMaxBootFailures(t *testing.T) {
	exit := realExits(t)
	for max, deaths := range map[int]int{1: 1, 3: 3, -1: 0} {
		synctest.Test(t, func(t *testing.T) {
			n := newNursery(t, Options{Workers: 1, MaxBootFailures: max})
			defer n.stop()
			require.NoError(t, n.m.autoFork())
			for i := 1; i <= 30; i++ {
				p, _ := n.fork()
				n.die(p, exit[1])
				if i == deaths {
					n.none(time.Hour)
					n.in(func(m *master) { require.ErrorIs(t, m.gaveUp, ErrBootLoop) })
					return
				}
			}
			require.Zero(t, deaths)
		})
	}
}

// TestProofOutlivesItsSlot: that the program works is known also when the slot
// that showed it is removed.
func TestProofOutlivesItsSlot(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNursery(t, Options{Workers: 2})
		defer n.stop()
		require.NoError(t, n.m.autoFork())
		p, _ := n.fork()
		other, _ := n.fork()
		n.ready(other)
		require.NoError(t, n.m.scale(1))
		n.die(other, exit[0])
		for range 3 * maxBootFailures {
			n.die(p, exit[1])
			p, _ = n.fork()
		}
	})
}

// TestExitNoRestart: such a worker is not replaced; when all slots are so, Run
// ends and tells the last exit. Others go on.
func TestExitNoRestart(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNursery(t, Options{Workers: 2, NoSignals: true})
		run := make(chan error, 1)
		go func() { run <- n.m.run(t.Context()) }()
		first, _ := n.fork()
		second, _ := n.fork()
		n.ready(first)
		n.die(first, exit[ExitNoRestart])
		n.none(time.Hour)
		require.Equal(t, slotOut, n.slot(0).mode)
		n.die(second, exit[1])
		third, took := n.fork()
		require.Zero(t, took)
		require.Empty(t, run)
		n.die(third, exit[ExitNoRestart])
		err := outcome(t, run)
		require.ErrorIs(t, err, ErrNoWorkers)
		require.ErrorContains(t, err, "exit status 78")
	})
}

// TestExitNoRestartDuringReload: while a replacement is on its way it is not the
// end of all; when that fails it is.
func TestExitNoRestartDuringReload(t *testing.T) {
	exit := realExits(t)
	for _, ok := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n, all := filled(t, Options{Workers: 2})
			defer n.stop()
			n.die(all[0], exit[ExitNoRestart])
			done := n.reload()
			next := n.started()
			n.die(all[1], exit[ExitNoRestart])
			n.none(time.Second)
			n.in(func(m *master) { require.NoError(t, m.gaveUp) })
			if ok {
				n.ready(next)
				n.ready(n.started())
				require.NoError(t, outcome(t, done))
				require.Equal(t, 2, n.serving())
				return
			}
			n.die(next, exit[ExitNoRestart])
			require.Error(t, outcome(t, done))
			n.in(func(m *master) { require.ErrorIs(t, m.gaveUp, ErrNoWorkers) })
			n.none(time.Hour)
		})
	}
}

// TestRunTellsOfABootLoop: Run drains what there is and returns why it ends.
func TestRunTellsOfABootLoop(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNursery(t, Options{Workers: 2, NoSignals: true})
		run := make(chan error, 1)
		go func() { run <- n.m.run(t.Context()) }()
		p, _ := n.fork()
		other, _ := n.fork()
		for i := 1; ; i++ {
			n.die(p, exit[1])
			if i == maxBootFailures {
				break
			}
			p, _ = n.fork()
		}
		synctest.Wait()
		require.Equal(t, Draining, other.State())
		require.Equal(t, ReasonStop, n.end(other, exit[0]).Reason)
		require.ErrorIs(t, outcome(t, run), ErrBootLoop)
	})
}

// TestReasons: an Exit tells why the worker ended, and Stats counts.
func TestReasons(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNursery(t, Options{Workers: 1})
		counted := make(map[Reason]int)
		for _, c := range []struct {
			end   func(p *Process)
			state *os.ProcessState
			want  Reason
		}{
			{func(*Process) {}, exit[1], ReasonCrash},
			{func(*Process) {}, exit[-1], ReasonCrash},
			{func(*Process) {}, exit[0], ReasonDrain},
			{func(p *Process) { n.m.killWorker(p) }, exit[-1], ReasonKill},
			{func(p *Process) { n.m.killWorker(p, syscall.SIGTERM) }, exit[0], ReasonKill},
			{func(p *Process) { n.m.killWorker(p, syscall.Signal(0)) }, exit[1], ReasonCrash},
			{func(p *Process) { go n.m.disconnectWorker(context.Background(), p) }, exit[0], ReasonDrain},
			{func(p *Process) { n.in(func(m *master) { m.drainingItself(p) }) }, exit[0], ReasonDrain},
			{func(p *Process) { n.in(func(m *master) { p.voluntary.Store(true) }) }, exit[0], ReasonDrain},
			{func(p *Process) { n.in(func(m *master) { m.stalled(p) }) }, exit[2], ReasonStall},
			{func(p *Process) { n.in(func(m *master) { m.beginStop() }) }, exit[0], ReasonStop},
			// The first reason holds.
			{func(p *Process) { n.in(func(m *master) { m.stalled(p) }); n.m.killWorker(p) }, exit[-1], ReasonStall},
		} {
			_, err := n.m.forkOne(nil)
			require.NoError(t, err)
			p, _ := n.fork()
			n.ready(p)
			c.end(p)
			synctest.Wait()
			require.Equal(t, c.want, n.end(p, c.state).Reason)
			counted[c.want]++
		}
		_, err := n.m.forkOne(nil)
		require.NoError(t, err)
		p, _ := n.fork()
		require.Equal(t, ReasonCrash, n.end(p, exit[0]).Reason, "never ready")
		counted[ReasonCrash]++
		require.Equal(t, counted, n.m.stats().Exits)
	})
}

// ---- recycling

// TestRecycleByAge: a worker is replaced when it is as old as its own limit,
// which differs from the others' by the jitter; the replacement is ready first.
func TestRecycleByAge(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 1, Recycle: Recycle{Age: time.Hour / 2}})
		defer n.stop()
		p := all[0]
		limits := make(map[time.Duration]bool)
		for range 20 {
			limit := p.child.recycle.age
			limits[limit] = true
			near(t, time.Hour/2, limit)
			next, took := n.fork()
			require.Equal(t, limit, took)
			require.Same(t, p.child.gen, next.child.gen)
			require.Equal(t, Ready, p.State(), "the replacement is ready first")
			n.ready(next)
			require.Equal(t, Draining, p.State())
			require.Equal(t, ReasonRecycle, n.end(p, exit[0]).Reason)
			p = next
		}
		require.Greater(t, len(limits), 10)
		require.Equal(t, 1, n.m.stats().Generation)
	})
}

// recycled is replaced for whichever slot comes next, once each.
func (n *nursery) recycled(all []*Process, state *os.ProcessState, seen map[int]bool) (next *Process, e Exit) {
	n.t.Helper()
	next = n.started()
	require.False(n.t, seen[next.Slot()])
	seen[next.Slot()] = true
	n.ready(next)
	return next, n.end(all[next.Slot()], state)
}

// TestRecycleOneAtATime: workers that are due together are replaced one after
// another, and one that is gone meanwhile is not.
func TestRecycleOneAtATime(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 4, Recycle: Recycle{Age: time.Minute, Jitter: -1}})
		defer n.stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		next := n.started()
		n.none(time.Second)
		crashed := (next.Slot() + 1) % 4
		n.die(all[crashed], exit[1])
		respawn := n.started()
		require.Equal(t, crashed, respawn.Slot())
		n.ready(respawn)
		n.ready(next)
		n.die(all[next.Slot()], exit[0])
		synctest.Wait()
		seen := map[int]bool{crashed: true, next.Slot(): true}
		for range 2 {
			_, e := n.recycled(all, exit[0], seen)
			require.Equal(t, ReasonRecycle, e.Reason)
		}
		n.none(30 * time.Second)
	})
}

// TestRecycleMinAge: whatever is full, no worker is replaced before MinAge.
func TestRecycleMinAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 1, Recycle: Recycle{Age: time.Second, Connections: 1, MinAge: time.Minute}})
		defer n.stop()
		require.Equal(t, 1, all[0].child.recycle.connections, "not 0, which is none")
		time.Sleep(10 * time.Second)
		n.in(func(m *master) { m.wantRecycle(all[0]) })
		_, took := n.fork()
		require.Equal(t, 50*time.Second, took)
	})
}

// TestRecycleByMemory: the worker's size is looked at at every interval of the
// watchdog, which may be off.
func TestRecycleByMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 2, Watchdog: Watchdog{Timeout: -1}, Recycle: Recycle{Memory: 1 << 30, Jitter: -1}})
		defer n.stop()
		n.set(func() { n.mute = true })
		for i, size := range []int64{1 << 30, 1<<30 + 1} {
			report, _ := json.Marshal(pulse{Memory: size})
			n.in(func(m *master) { m.beaten(all[i], report) })
		}
		next, took := n.fork()
		require.Equal(t, 1, next.Slot())
		require.Equal(t, 10*time.Second, took, "MinAge")
		n.none(30 * time.Second)
	})
}

// TestRecycleIsRetried: a replacement that fails leaves the old worker, and is
// tried again ever later, though the cause, as memory, shows at every interval.
func TestRecycleIsRetried(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		o := Options{Workers: 1, Backoff: Backoff{Min: 10 * time.Second, Max: time.Minute, Jitter: -1}, Recycle: Recycle{Memory: 1, Jitter: -1}}
		n, all := filled(t, o)
		defer n.stop()
		n.set(func() { n.pulse.Memory = 2 })
		for _, want := range []time.Duration{10, 10, 20, 40, 60, 60} {
			next, took := n.fork()
			require.Equal(t, want*time.Second, took)
			n.die(next, exit[1])
			require.Equal(t, Ready, all[0].State())
		}
		next, _ := n.fork()
		n.ready(next)
		n.set(func() { n.pulse.Memory = 1 })
		require.Equal(t, ReasonRecycle, n.end(all[0], exit[0]).Reason)
		n.none(time.Minute)
	})
}

// TestRecycleGivesWayToReload: a replacement that is not ready is cancelled for
// a reload; one that is, is finished first.
func TestRecycleGivesWayToReload(t *testing.T) {
	exit := realExits(t)
	for _, up := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n, all := filled(t, Options{Workers: 2, Recycle: Recycle{Age: time.Minute, Jitter: -1}})
			defer n.stop()
			time.Sleep(time.Minute)
			synctest.Wait()
			next := n.started()
			if up {
				n.ready(next)
				done := n.reload()
				n.none(time.Second)
				n.die(all[next.Slot()], exit[0])
				synctest.Wait()
				all[next.Slot()] = next
				for _, p := range all {
					p, _ = n.replaced(p, exit[0])
					require.Equal(t, 2, p.child.gen.n)
				}
				require.NoError(t, outcome(t, done))
				n.none(30 * time.Second)
				return
			}
			done := n.reload()
			require.Equal(t, []os.Signal{os.Kill}, n.killed())
			fresh := n.started()
			require.Equal(t, 2, fresh.child.gen.n)
			require.Equal(t, ReasonRecycle, n.end(next, exit[-1]).Reason)
			n.ready(fresh)
			require.Equal(t, ReasonReload, n.end(all[0], exit[0]).Reason)
			n.replaced(all[1], exit[0])
			require.NoError(t, outcome(t, done))
			n.none(30 * time.Second) // what was due is gone
		})
	}
}

// TestRecycleAfterReload: what was due during a reload that failed has its turn
// after it.
func TestRecycleAfterReload(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 2, Recycle: Recycle{Age: time.Minute, Jitter: -1}})
		defer n.stop()
		time.Sleep(50 * time.Second)
		done := n.reload()
		next := n.started()
		n.none(20 * time.Second) // both are due now
		n.die(next, exit[1])
		require.Error(t, outcome(t, done))
		seen := make(map[int]bool)
		for range 2 {
			_, e := n.recycled(all, exit[0], seen)
			require.Equal(t, ReasonRecycle, e.Reason)
		}
	})
	// Also when the reload could not even begin.
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 1, Recycle: Recycle{Age: time.Minute, Jitter: -1}})
		defer n.stop()
		o := n.m.settings()
		o.Exec = t.TempDir() + "/missing"
		require.NoError(t, n.m.setup(o))
		time.Sleep(time.Minute - 1)
		go func() {
			time.Sleep(time.Nanosecond)
			n.m.reloadWorkers(context.Background())
		}()
		time.Sleep(time.Second)
		synctest.Wait()
		_, e := n.replaced(all[0], exit[0])
		require.Equal(t, ReasonRecycle, e.Reason)
	})
}

// ---- the watchdog

// set changes how the workers answer.
func (n *nursery) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

func (n *nursery) pinged(p *Process) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pings[p]
}

// TestWatchdog: a worker that does not answer within the timeout is reported,
// asked for its goroutines, killed, and replaced as one that crashed. One ping
// at most is on its way to it.
func TestWatchdog(t *testing.T) {
	exit := realExits(t)
	for _, dumps := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			errs := make(chan error, 100)
			defer OnError(func(_ *Process, err error) { errs <- err })()
			n, all := filled(t, Options{Workers: 2})
			defer n.stop()
			time.Sleep(500 * time.Second)
			synctest.Wait()
			require.Equal(t, 100, n.pinged(all[0]))
			n.set(func() { n.mute = true })
			stop := make(chan bool)
			go func() { // the other one answers on
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Second):
						n.in(func(m *master) { m.beaten(all[1], json.RawMessage("{}")) })
					}
				}
			}()
			defer close(stop)
			time.Sleep(65*time.Second - 1)
			synctest.Wait()
			require.Empty(t, n.killed())
			require.Equal(t, 101, n.pinged(all[0]), "nothing queues")
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			require.Equal(t, []os.Signal{syscall.SIGQUIT}, n.killed())
			require.ErrorIs(t, outcome(t, errs), ErrStalled)
			require.Empty(t, errs)
			if !dumps {
				time.Sleep(5 * time.Second)
				synctest.Wait()
				require.Equal(t, []os.Signal{syscall.SIGQUIT, os.Kill}, n.killed())
			}
			e := n.end(all[0], exit[2])
			require.Equal(t, ReasonStall, e.Reason)
			require.False(t, e.Voluntary)
			require.Equal(t, 0, n.started().Slot())
			time.Sleep(time.Minute)
			require.Equal(t, Ready, all[1].State())
		})
	}
}

// TestWatchdogCountsTicks: a master that was stopped for long finds one tick
// missed, whatever the clock says, and kills nobody.
func TestWatchdogCountsTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _ := filled(t, Options{Workers: 3})
		defer n.stop()
		for range 20 {
			time.Sleep(5 * time.Second)
			n.m.post(func() { time.Sleep(10 * time.Minute) }) // as SIGSTOP does
			synctest.Wait()
			time.Sleep(10*time.Minute + time.Second)
			synctest.Wait()
			require.Empty(t, n.killed())
		}
	})
}

// TestWatchdogLeavesAlone: those that start, those that drain, those that cannot
// be asked, and all when it is off.
func TestWatchdogLeavesAlone(t *testing.T) {
	exit := realExits(t)
	for name, c := range map[string]struct {
		o     Options
		state func(n *nursery, p *Process)
	}{
		"starting": {Options{StartTimeout: time.Hour}, func(*nursery, *Process) {}},
		"draining": {Options{ShutdownTimeout: time.Hour}, func(n *nursery, p *Process) {
			n.ready(p)
			time.Sleep(30 * time.Second)
			n.set(func() { n.mute = true })
			time.Sleep(30 * time.Second)
			go n.m.disconnectWorker(n.t.Context(), p)
		}},
		"node": {Options{}, func(n *nursery, p *Process) { n.set(func() { n.deaf = true }); n.ready(p) }},
		"off":  {Options{Watchdog: Watchdog{Timeout: -1}}, func(n *nursery, p *Process) { n.ready(p) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNursery(t, c.o)
				p, err := n.m.forkOne(nil)
				require.NoError(t, err)
				n.set(func() { n.mute = name != "draining" })
				c.state(n, p)
				time.Sleep(30 * time.Minute)
				synctest.Wait()
				require.Empty(t, n.killed())
				n.die(p, exit[0])
				n.stop()
			})
		})
	}
}

// TestFailedCheckIsReported: once for each error, and kills nobody.
func TestFailedCheckIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error, 100)
		defer OnError(func(_ *Process, err error) { errs <- err })()
		n, _ := filled(t, Options{Workers: 1})
		defer n.stop()
		for _, text := range []string{"no database", "no database", "", "no database", "no disk"} {
			n.set(func() { n.pulse = pulse{Accepted: 7, Active: 3, Error: text} })
			time.Sleep(5 * time.Second)
			synctest.Wait()
			w := n.m.stats().Workers[0]
			require.Equal(t, text, w.Check)
			require.Equal(t, []int64{7, 3}, []int64{w.Accepted, w.Active})
			require.Zero(t, w.HeartbeatAge)
		}
		n.none(time.Hour)
		require.Empty(t, n.killed())
		for _, text := range []string{"no database", "no database", "no disk"} {
			require.ErrorContains(t, outcome(t, errs), text)
		}
		require.Empty(t, errs)
	})
}

// TestStallDuringReload: an old worker that stalls while its replacement starts
// does not hold up the reload; a new one that stalls before it is ready fails it.
func TestStallDuringReload(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 1, StartTimeout: time.Hour})
		defer n.stop()
		n.set(func() { n.mute = true })
		done := n.reload()
		next := n.started()
		time.Sleep(70 * time.Second)
		require.Equal(t, ReasonStall, n.end(all[0], exit[2]).Reason)
		n.none(time.Second)
		n.ready(next)
		require.NoError(t, outcome(t, done))
	})
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 1, StartTimeout: time.Hour, Watchdog: Watchdog{Timeout: 10 * time.Second}})
		defer n.stop()
		n.set(func() { n.mute = true })
		done := n.reload()
		next := n.started()
		n.online(next)
		for range 5 {
			time.Sleep(5 * time.Second)
			n.in(func(m *master) { m.beaten(all[0], json.RawMessage("{}")) })
		}
		require.Equal(t, ReasonStall, n.end(next, exit[2]).Reason)
		require.Error(t, outcome(t, done))
		require.Equal(t, Ready, all[0].State())
	})
}

// ---- all of it at once

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
		if p.child.slot != nil && !owners[p] && !p.voluntary.Load() {
			return fmt.Sprintf("worker %d is nobody's", p.id)
		}
	}
	return ""
}

// BenchmarkStats is the cost of Stats for 64 workers, without what it reads in
// /proc: at most 50 µs.
func BenchmarkStats(b *testing.B) {
	m := newMaster()
	started := make(chan *Process, 64)
	m.start = func(p *Process, env []string) error { p.child.started = time.Now(); started <- p; return nil }
	m.kill = func(*Process, os.Signal) error { return nil }
	m.ping = func(*Process) bool { return false }
	require.NoError(b, m.setup(Options{Workers: 64}))
	require.NoError(b, m.autoFork())
	for range 64 {
		p := <-started
		m.call(func() { m.online(p); m.ready(p) })
	}
	b.ReportAllocs()
	for b.Loop() {
		m.stats()
	}
	m.call(func() { m.beginStop() })
	for _, p := range m.list() {
		m.call(func() { m.exited(p, nil) })
	}
}
