package supervise

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/stretchr/testify/require"
)

// A reload, and what else happens meanwhile, over the state of the slots.

// TestReloadGoesSlotBySlot: the new worker is ready before the old one drains,
// and the old one gone before the next slot's turn; as many serve as before all
// the time; Reload returns when the last old one is gone.
func TestReloadGoesSlotBySlot(t *testing.T) {
	n, old := filled(t, Settings{Workers: 3})
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
		require.False(t, done.over, "old code may answer yet")
		require.Equal(t, next.id, n.slot(i).Current)
		e := n.end(p, 0)
		require.Equal(t, ReasonReload, e.Reason)
		require.True(t, e.Voluntary)
	}
	require.NoError(t, done.outcome())
	n.none(time.Hour)
	require.Len(t, n.results, 1)
	r := n.results[0]
	require.Equal(t, Result{Replaced: 3, Generation: 2, Took: r.Took}, r)
	require.Equal(t, 36*time.Second, r.Took)
	require.Empty(t, n.signals)
	s := n.stats()
	require.Equal(t, 2, s.Generation)
	require.Equal(t, r, s.Reload)
	require.False(t, s.Reloading)
	for _, w := range s.Workers {
		require.Equal(t, 2, w.Slot.Number)
		require.Zero(t, w.Slot.Restarts, "nothing crashed")
	}
}

// TestReloadWaitsForWhatTheSlotWas: a replacement has to be ready where a worker
// of the slot ever was, or under ManualReady; elsewhere, as for a queue
// consumer, online is enough.
func TestReloadWaitsForWhatTheSlotWas(t *testing.T) {
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
			n, all := born(t, Settings{Workers: 1, ManualReady: c.manual})
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
			n.die(old, 0)
			require.NoError(t, done.outcome())
		})
	}
}

// TestReloadWithADeadPredecessor: an old worker that dies while its replacement
// starts is not replaced twice: the replacement inherits the slot.
func TestReloadWithADeadPredecessor(t *testing.T) {
	for _, status := range []int{0, 1, 2, ExitNoRestart, killed} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			n, old := filled(t, Settings{Workers: 1})
			done := n.reload()
			next := n.started()
			n.die(old[0], status)
			n.none(time.Second)
			n.ready(next)
			require.NoError(t, done.outcome())
			require.Equal(t, next.id, n.slot(0).Current)
			require.Equal(t, slotLive, n.slot(0).Mode)
			n.die(next, 1)
			again, took := n.fork()
			require.Zero(t, took)
			require.Equal(t, next.generation, again.generation)
		})
	}
}

// TestReloadAbortsAtTheFirstFailure: whatever keeps a new worker from being
// ready, the reload ends with an error that tells, the old worker of the slot
// stays, those replaced before stay new, and the next reload does what is left.
func TestReloadAbortsAtTheFirstFailure(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(n *fakeCluster, p *proc)
		text string
		why  Reason
	}{
		"exits":           {func(n *fakeCluster, p *proc) { n.die(p, 1) }, "exit status 1", ReasonCrash},
		"exits with 0":    {func(n *fakeCluster, p *proc) { n.online(p); n.die(p, 0) }, "exit status 0", ReasonCrash},
		"ExitNoRestart":   {func(n *fakeCluster, p *proc) { n.die(p, ExitNoRestart) }, "exit status 78", ReasonCrash},
		"killed":          {func(n *fakeCluster, p *proc) { n.die(p, killed) }, killedText, ReasonCrash},
		"never online":    {func(n *fakeCluster, p *proc) { n.sleep(startTimeout) }, "StartTimeout", ReasonReload},
		"never ready":     {func(n *fakeCluster, p *proc) { n.online(p); n.sleep(startTimeout) }, "not ready within 1m0s (StartTimeout)", ReasonReload},
		"somebody's Kill": {func(n *fakeCluster, p *proc) { n.kill(p); n.die(p, killed) }, killedText, ReasonKill},
	} {
		t.Run(name, func(t *testing.T) {
			n, old := filled(t, Settings{Workers: 3})
			done := n.reload()
			first, _ := n.replaced(old[0], 0)
			p := n.started()
			c.fail(n, p)
			err := done.outcome()
			require.ErrorContains(t, err, "cluster: Reload: the new worker of slot 1")
			require.ErrorContains(t, err, c.text)
			if !p.IsDead() {
				require.Contains(t, n.signals, os.Kill, "the late one")
				n.die(p, killed)
			}
			require.Equal(t, c.why, p.exit().Reason)
			n.none(time.Hour)
			require.Equal(t, first.id, n.slot(0).Current)
			require.Equal(t, 2, n.m.st.Generations[n.slot(0).Generation].Number)
			for i := 1; i < 3; i++ {
				require.Equal(t, old[i].id, n.slot(i).Current)
				require.Equal(t, Ready, old[i].State())
				require.Equal(t, 1, n.m.st.Generations[n.slot(i).Generation].Number)
			}
			require.Empty(t, n.slot(1).LastExit, "its worker serves on")
			require.NotEmpty(t, n.slot(0).LastExit)
			s := n.stats()
			require.Equal(t, 1, s.Generation, "the last complete one")
			require.Equal(t, 1, s.Reload.Replaced)
			require.Equal(t, err.Error(), s.Reload.Err.Err.Error())

			// A crash goes back to what the slot ran.
			n.die(old[1], 1)
			respawn := n.started()
			require.Equal(t, old[1].generation, respawn.generation)
			n.ready(respawn)
			n.die(first, 1)
			newer := n.started()
			require.Equal(t, first.generation, newer.generation)
			n.ready(newer)

			done = n.reload()
			for _, p := range []*proc{newer, respawn, old[2]} {
				n.replaced(p, 0)
			}
			require.NoError(t, done.outcome())
			require.Equal(t, 3, n.stats().Generation)
		})
	}
}

// TestReloadThatCannotFork: it fails as any other, also when the program is not
// there any more.
func TestReloadThatCannotFork(t *testing.T) {
	n, old := filled(t, Settings{Workers: 2})
	broken := errors.New("out of processes")
	n.failing(broken)
	require.ErrorIs(t, n.reload().outcome(), broken)
	n.failing(nil)
	n.none(time.Hour)
	require.Equal(t, old[0].id, n.slot(0).Current)

	n.missing = os.ErrNotExist
	require.ErrorIs(t, n.reload().outcome(), os.ErrNotExist)
	n.none(time.Hour)
	require.Equal(t, 2, n.serving())
}

// TestReloadFailsWithADeadPredecessor: when both are dead the slot goes back to
// its old generation, after the backoff.
func TestReloadFailsWithADeadPredecessor(t *testing.T) {
	n, old := filled(t, Settings{Workers: 1})
	for i, want := range []time.Duration{0, 100, 200} {
		done := n.reload()
		next := n.started()
		n.die(old[0], 1)
		n.none(time.Second)
		n.die(next, 1)
		require.Error(t, done.outcome())
		p, took := n.fork()
		near(t, want*time.Millisecond, took)
		require.Equal(t, 1, p.number(), "round %d", i)
		require.Equal(t, i, n.slot(0).Failures-1)
		n.ready(p)
		old[0] = p
	}
}

// TestReloadFillsEmptySlots: an empty slot is forked at once, whatever it waits
// for. When that fails it is what it was before.
func TestReloadFillsEmptySlots(t *testing.T) {
	for name, empty := range emptySlot {
		for _, ok := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ok), func(t *testing.T) {
				n, all := filled(t, Settings{Workers: 2})
				empty(n, all[0])
				mode := n.slot(0).Mode
				done := n.reload()
				next := n.started()
				require.Equal(t, 0, next.Slot())
				if ok {
					n.ready(next)
					n.replaced(all[1], 0)
					require.NoError(t, done.outcome())
					require.Equal(t, slotLive, n.slot(0).Mode)
					n.none(time.Hour)
					return
				}
				n.die(next, 1)
				require.Error(t, done.outcome())
				require.Equal(t, mode, n.slot(0).Mode)
				if mode != slotLive {
					n.none(time.Hour)
					return
				}
				p, took := n.fork()
				require.Positive(t, took, "backoff")
				require.Equal(t, all[0].generation, p.generation)
			})
		}
	}
}

// TestReloadIsShared: calls during a reload wait for one more, and share it: a
// deployment made meanwhile is not missed. A call's context ends the call alone.
func TestReloadIsShared(t *testing.T) {
	t.Run("one more", func(t *testing.T) {
		n, all := filled(t, Settings{Workers: 1})
		first := n.reload()
		second, third := n.reload(), n.reload()
		p, _ := n.replaced(all[0], 0)
		require.NoError(t, first.outcome())
		require.False(t, second.over)
		n.replaced(p, 0)
		require.NoError(t, second.outcome())
		require.NoError(t, third.outcome())
		n.none(time.Hour)
		require.Len(t, n.results, 2)
		require.Equal(t, 3, n.stats().Generation)
	})
	t.Run("a failure is told to those who waited for it", func(t *testing.T) {
		n, all := filled(t, Settings{Workers: 1})
		first := n.reload()
		second := n.reload()
		n.die(n.started(), 1)
		require.Error(t, first.outcome())
		n.replaced(all[0], 0)
		require.NoError(t, second.outcome())
	})
}

// TestReloadWithoutWorkers: there must be something to reload.
func TestReloadWithoutWorkers(t *testing.T) {
	n := newFake(t, Settings{Workers: 1})
	require.ErrorIs(t, n.reload().outcome(), errs.NoWorkers)
	_, err := n.forkOne()
	require.NoError(t, err)
	n.fork()
	require.ErrorIs(t, n.reload().outcome(), errs.NoWorkers, "a plain Fork is not kept")
}

// TestReloadLeavesPlainForksAlone: it neither replaces them nor waits for them.
func TestReloadLeavesPlainForksAlone(t *testing.T) {
	n, all := filled(t, Settings{Workers: 1})
	_, err := n.forkOne()
	require.NoError(t, err)
	plain, _ := n.fork()
	n.ready(plain)
	done := n.reload()
	n.replaced(all[0], 0)
	require.NoError(t, done.outcome())
	require.Equal(t, Ready, plain.State())
	require.Equal(t, ReasonCrash, n.end(plain, 1).Reason)
	n.none(time.Hour)
}

// TestStopDuringReload: at whatever step the reload is, its calls and those for the next reload
// get errs.Closed. Nothing more is forked. The replacement is drained as all other workers are,
// since it may serve already.
func TestStopDuringReload(t *testing.T) {
	for name, step := range map[string]func(n *fakeCluster, next, old *proc){
		"starting":     func(*fakeCluster, *proc, *proc) {},
		"online":       func(n *fakeCluster, next, _ *proc) { n.online(next) },
		"old is dead":  func(n *fakeCluster, _, old *proc) { n.die(old, 1) },
		"old draining": func(n *fakeCluster, next, _ *proc) { n.ready(next) },
	} {
		t.Run(name, func(t *testing.T) {
			n, all := filled(t, Settings{Workers: 2})
			done := n.reload()
			later := n.reload()
			next := n.started()
			step(n, next, all[0])
			stopped := n.disconnect()
			require.ErrorIs(t, done.outcome(), errs.Closed)
			require.ErrorIs(t, later.outcome(), errs.Closed)
			require.ErrorIs(t, n.reload().outcome(), errs.Closed)
			require.Equal(t, Draining, next.State())
			require.Empty(t, n.signals)
			for _, p := range n.list() {
				want := ReasonStop
				if p == all[0] && name == "old draining" {
					want = ReasonReload
				}
				require.Equal(t, want, n.end(p, 0).Reason)
			}
			require.NoError(t, stopped.outcome())
			require.Empty(t, stopped.killed)
			n.none(time.Hour)
			require.ErrorIs(t, n.reload().outcome(), errs.NoWorkers)

			// All begins anew.
			require.NoError(t, n.autoFork())
			for range 2 {
				p, _ := n.fork()
				n.ready(p)
				all = append(all[1:], p)
			}
			done = n.reload()
			for _, p := range all {
				n.replaced(p, 0)
			}
			require.NoError(t, done.outcome())
			n.stop()
		})
	}
}

// TestReloadDuringACrashLoop: a slot that crashes goes on doing so in its own
// time while another is replaced, and the new worker ends the loop.
func TestReloadDuringACrashLoop(t *testing.T) {
	n, all := filled(t, Settings{Workers: 2})
	done := n.reload()
	next := n.started()
	for _, want := range []time.Duration{0, 100, 200, 400} {
		n.die(all[1], 1)
		p, took := n.fork()
		near(t, want*time.Millisecond, took)
		require.Equal(t, 1, p.Slot())
		require.Equal(t, all[0].generation, p.generation)
		all[1] = p
	}
	n.die(all[1], 1) // 800 ms
	n.ready(next)
	n.die(all[0], 0)
	fixed := n.started()
	require.Equal(t, 1, fixed.Slot())
	n.ready(fixed)
	require.NoError(t, done.outcome())
	n.none(time.Second) // less than would make it a first crash anyway
	n.die(fixed, 1)
	_, took := n.fork()
	require.Zero(t, took, "a first crash")
}

// TestReloadUsesWhatIsInForce: the new workers have the program and the settings of
// the time of the call. Respawned workers have those of their slot.
func TestReloadUsesWhatIsInForce(t *testing.T) {
	n, all := filled(t, Settings{Workers: 1})
	n.mark = "two"
	n.settings.ShutdownTimeout = time.Hour
	mark := func(p *proc) string { return n.programs[p.generation].mark }
	n.die(all[0], 1)
	p := n.started()
	require.Empty(t, mark(p))
	require.Equal(t, shutdownTimeout, p.worker().settings().ShutdownTimeout)
	n.ready(p)
	done := n.reload()
	p, _ = n.replaced(p, 0)
	require.NoError(t, done.outcome())
	require.Equal(t, "two", mark(p))
	require.Equal(t, time.Hour, p.worker().settings().ShutdownTimeout)
}

// TestReloadAfterGivingUp: without Run, workers of other slots outlive the end
// of the supervision. When it has begun again a reload drains them, or it would
// wait for them for ever: old code must not answer after it.
func TestReloadAfterGivingUp(t *testing.T) {
	n, all := born(t, Settings{Workers: 2, MaxBootFailures: 1})
	p, left := all[0], all[1]
	n.die(p, 1)
	n.ready(left)
	n.none(time.Hour)
	require.NoError(t, n.scale(1))
	p = n.started()
	n.ready(p)
	require.Equal(t, Ready, left.State())
	done := n.reload()
	n.replaced(p, 0)
	require.False(t, done.over, "old code may answer yet")
	require.Equal(t, Draining, left.State())
	require.Equal(t, ReasonReload, n.end(left, 0).Reason)
	require.NoError(t, done.outcome())
	require.Equal(t, 1, n.serving())
}
