package cluster

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Crashes, giving up and the reasons of exits, over the state of the slots.

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
		n, all := born(t, Options{Workers: 2})
		defer n.stop()
		p, other := all[0], all[1]
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
			{func(p *Process) { n.m.killWorker(p, sendable) }, exit[0], ReasonKill},
			{func(p *Process) { n.m.killWorker(p, unsent) }, exit[1], ReasonCrash},
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

// TestProofOutlivesItsWorker: a program whose worker was online for long is known
// to work, also when that worker has been replaced, or dies while it is: what
// crashes after it is tried on and on.
func TestProofOutlivesItsWorker(t *testing.T) {
	exit := realExits(t)
	for name, goes := range map[string]func(n *nursery, old, next *Process){
		"replaced": func(n *nursery, old, next *Process) {
			n.online(next)
			n.die(old, exit[0])
		},
		"drains":                    func(n *nursery, old, next *Process) { n.online(next) },
		"dies during its replacing": func(n *nursery, old, next *Process) { n.die(old, exit[1]); n.online(next) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, all := born(t, Options{Workers: 1})
				defer n.stop()
				old := all[0]
				n.online(old)
				time.Sleep(backoffReset)
				n.reload()
				p := n.started()
				goes(n, old, p)
				for range 3 * maxBootFailures {
					n.die(p, exit[1])
					p, _ = n.fork()
				}
			})
		})
	}
}

// TestLastOneOutDuringAJob: when the last slot goes out while a replacement or a
// reload is under way, its end is the end of all, however it ends.
func TestLastOneOutDuringAJob(t *testing.T) {
	exit := realExits(t)
	gaveUp := func(n *nursery) (err error) {
		n.in(func(m *master) { err = m.gaveUp })
		return err
	}
	t.Run("the old worker drains", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, all := filled(t, Options{Workers: 1})
			defer n.stop()
			done := n.reload()
			next := n.started()
			n.ready(next)
			n.die(next, exit[ExitNoRestart])
			synctest.Wait()
			require.NoError(t, gaveUp(n), "old code may answer yet")
			n.die(all[0], exit[0])
			require.NoError(t, outcome(t, done), "it came as far as it had to")
			require.ErrorIs(t, gaveUp(n), ErrNoWorkers)
			require.ErrorContains(t, gaveUp(n), "exit status 78")
		})
	})
	t.Run("the program is looked up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, all := filled(t, Options{Workers: 1})
			defer n.stop()
			o := n.m.settings()
			o.Exec = tempDirIn(t) + "/missing"
			require.NoError(t, n.m.setup(o))
			done := make(chan error, 1)
			n.in(func(m *master) { // the look-up ends after this step
				m.askReload(done)
				m.exited(all[0], exit[ExitNoRestart])
			})
			require.ErrorIs(t, outcome(t, done), os.ErrNotExist)
			require.ErrorIs(t, gaveUp(n), ErrNoWorkers)
		})
	})
	// Scale fills the slots that are out: it must not find that all are.
	t.Run("scaled down", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, all := filled(t, Options{Workers: 2, Recycle: Recycle{Age: time.Minute, Jitter: -1}})
			defer n.stop()
			time.Sleep(time.Minute)
			synctest.Wait()
			n.in(func(m *master) { m.recycling = nil })
			for n.started().Slot() != 1 {
				n.in(func(m *master) {
					r := m.token
					m.recycling = []*Process{all[1]}
					m.replacementFailed(r, context.Canceled)
				})
				synctest.Wait()
			}
			n.die(all[0], exit[ExitNoRestart])
			require.NoError(t, n.m.scale(1))
			require.NoError(t, gaveUp(n))
			require.Equal(t, 0, n.started().Slot())
		})
	})
}
