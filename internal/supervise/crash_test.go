package supervise

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/stretchr/testify/require"
)

// Crashes, giving up and the reasons of exits, over the state of the slots.

// TestBackoffOptions: the waits are what Options.Backoff says; without jitter
// exactly.
func TestBackoffOptions(t *testing.T) {
	n, all := filled(t, Settings{Workers: 1, Backoff: Backoff{Min: time.Second, Max: 20 * time.Second, Factor: 3, Reset: time.Minute, Jitter: -1}})
	p := all[0]
	for _, want := range []time.Duration{0, 1, 3, 9, 20, 20} {
		n.die(p, 1)
		next, took := n.fork()
		require.Equal(t, want*time.Second, took)
		n.ready(next)
		p = next
	}
	n.sleep(time.Minute - 1)
	n.die(p, 1)
	p, took := n.fork()
	require.Equal(t, 20*time.Second, took)
	n.ready(p)
	n.sleep(time.Minute)
	n.die(p, 1)
	_, took = n.fork()
	require.Zero(t, took)
}

// TestMaxBootFailures: the bound is the option's, and negative means none. A
// slot that is ready once begins to count anew.
func TestMaxBootFailures(t *testing.T) {
	for max, deaths := range map[int]int{1: 1, 3: 3, -1: 0} {
		t.Run(fmt.Sprint(max), func(t *testing.T) {
			n := newFake(t, Settings{Workers: 1, MaxBootFailures: max})
			require.NoError(t, n.autoFork())
			for i := 1; i <= 30; i++ {
				p, _ := n.fork()
				n.die(p, 1)
				if i == deaths {
					n.none(time.Hour)
					require.ErrorIs(t, n.m.GaveUp(), errs.BootLoop)
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
	n, all := born(t, Settings{Workers: 2})
	p, other := all[0], all[1]
	n.ready(other)
	require.NoError(t, n.scale(1))
	n.die(other, 0)
	for range 3 * maxBootFailures {
		n.die(p, 1)
		p, _ = n.fork()
	}
}

// TestExitNoRestart: such a worker is not replaced; when all slots are so, Run
// ends and tells the last exit. Others go on.
func TestExitNoRestart(t *testing.T) {
	n := newFake(t, Settings{Workers: 2})
	run := n.beginRun()
	first, _ := n.fork()
	second, _ := n.fork()
	n.ready(first)
	n.die(first, ExitNoRestart)
	n.none(time.Hour)
	require.Equal(t, slotResigned, n.slot(0).Mode)
	n.die(second, 1)
	third, took := n.fork()
	require.Zero(t, took)
	require.False(t, run.over)
	n.die(third, ExitNoRestart)
	require.True(t, run.over)
	require.ErrorIs(t, run.err, errs.NoWorkers)
	require.ErrorContains(t, run.err, "exit status 78")
}

// TestExitNoRestartDuringReload: while a replacement is on its way it is not the
// end of all; when that fails it is.
func TestExitNoRestartDuringReload(t *testing.T) {
	for _, ok := range []bool{true, false} {
		t.Run(fmt.Sprintf("ready %v", ok), func(t *testing.T) {
			n, all := filled(t, Settings{Workers: 2})
			n.die(all[0], ExitNoRestart)
			done := n.reload()
			next := n.started()
			n.die(all[1], ExitNoRestart)
			n.none(time.Second)
			require.NoError(t, n.m.GaveUp())
			if ok {
				n.ready(next)
				n.ready(n.started())
				require.NoError(t, done.outcome())
				require.Equal(t, 2, n.serving())
				return
			}
			n.die(next, ExitNoRestart)
			require.Error(t, done.outcome())
			require.ErrorIs(t, n.m.GaveUp(), errs.NoWorkers)
			n.none(time.Hour)
		})
	}
}

// TestRunTellsOfABootLoop: Run drains what there is and returns why it ends.
func TestRunTellsOfABootLoop(t *testing.T) {
	n := newFake(t, Settings{Workers: 2})
	run := n.beginRun()
	p, _ := n.fork()
	other, _ := n.fork()
	for i := 1; ; i++ {
		n.die(p, 1)
		if i == maxBootFailures {
			break
		}
		p, _ = n.fork()
	}
	require.Equal(t, Draining, other.State())
	require.Equal(t, ReasonStop, n.end(other, 0).Reason)
	require.True(t, run.over)
	require.ErrorIs(t, run.err, errs.BootLoop)
}

// TestReasons: an Exit tells why the worker ended, and Stats counts.
func TestReasons(t *testing.T) {
	n := newFake(t, Settings{Workers: 1})
	stalls := func(p *proc) { n.in(func(*Machine) { p.worker().stall() }) }
	counted := make(map[Reason]int)
	for _, c := range []struct {
		end    func(p *proc)
		status int
		want   Reason
	}{
		{func(*proc) {}, 1, ReasonCrash},
		{func(*proc) {}, killed, ReasonCrash},
		{func(*proc) {}, 0, ReasonDrain},
		{func(p *proc) { n.kill(p) }, killed, ReasonKill},
		{func(p *proc) { n.send(p, syscall.SIGTERM, false) }, 0, ReasonKill},
		{func(p *proc) { n.send(p, syscall.Signal(0), true) }, 1, ReasonCrash},
		{func(p *proc) { n.drain(p) }, 0, ReasonDrain},
		{func(p *proc) { n.happened(p, DrainsByItself) }, 0, ReasonDrain},
		{func(p *proc) { n.happened(p, EndsByItself) }, 0, ReasonDrain},
		{stalls, 2, ReasonStall},
		{func(p *proc) { n.disconnect() }, 0, ReasonStop},
		// The first reason holds.
		{func(p *proc) { stalls(p); n.kill(p) }, killed, ReasonStall},
	} {
		_, err := n.forkOne()
		require.NoError(t, err)
		p, _ := n.fork()
		n.ready(p)
		c.end(p)
		require.Equal(t, c.want, n.end(p, c.status).Reason)
		counted[c.want]++
	}
	_, err := n.forkOne()
	require.NoError(t, err)
	p, _ := n.fork()
	require.Equal(t, ReasonCrash, n.end(p, 0).Reason, "never ready")
	counted[ReasonCrash]++
	require.Equal(t, counted, n.stats().Exits)
}

// TestProofOutlivesItsWorker: a program whose worker was online for long is known
// to work, also when that worker has been replaced, or dies while it is: what
// crashes after it is tried on and on.
func TestProofOutlivesItsWorker(t *testing.T) {
	for name, goes := range map[string]func(n *fakeCluster, old, next *proc){
		"replaced": func(n *fakeCluster, old, next *proc) {
			n.online(next)
			n.die(old, 0)
		},
		"drains":                    func(n *fakeCluster, old, next *proc) { n.online(next) },
		"dies during its replacing": func(n *fakeCluster, old, next *proc) { n.die(old, 1); n.online(next) },
	} {
		t.Run(name, func(t *testing.T) {
			n, all := born(t, Settings{Workers: 1})
			old := all[0]
			n.online(old)
			n.sleep(backoffReset)
			n.reload()
			p := n.started()
			goes(n, old, p)
			for range 3 * maxBootFailures {
				n.die(p, 1)
				p, _ = n.fork()
			}
		})
	}
}

// TestLastOneOutDuringAJob: when the last slot goes out while a replacement or a
// reload is under way, its end is the end of all, however it ends.
func TestLastOneOutDuringAJob(t *testing.T) {
	t.Run("the old worker drains", func(t *testing.T) {
		n, all := filled(t, Settings{Workers: 1})
		done := n.reload()
		next := n.started()
		n.ready(next)
		n.die(next, ExitNoRestart)
		require.NoError(t, n.m.GaveUp(), "old code may answer yet")
		n.die(all[0], 0)
		require.ErrorContains(t, done.outcome(), "slot 0 ended during the reload: exit status 78")
		require.ErrorIs(t, n.m.GaveUp(), errs.NoWorkers)
		require.ErrorContains(t, n.m.GaveUp(), "exit status 78")
	})
	t.Run("the program is looked up", func(t *testing.T) {
		n, all := filled(t, Settings{Workers: 1})
		n.missing = os.ErrNotExist
		done := n.newCall()
		n.in(func(m *Machine) { // the look-up ends after this step
			m.Reload(n.now, done.id)
			m.Exited(n.now, all[0].id, Exit{Code: ExitNoRestart})
		})
		require.ErrorIs(t, done.outcome(), os.ErrNotExist)
		require.ErrorIs(t, n.m.GaveUp(), errs.NoWorkers)
	})
	// Scale fills the slots that are out: it must not find that all are.
	t.Run("scaled down", func(t *testing.T) {
		n, all := filled(t, Settings{Workers: 2, Recycle: Recycle{Age: time.Minute, Jitter: -1}})
		n.sleep(time.Minute)
		n.in(func(m *Machine) { m.st.Recycling = nil })
		for n.started().Slot() != 1 {
			n.in(func(m *Machine) {
				m.now = n.now
				defer m.settle()
				m.st.Recycling = []int{all[1].id}
				m.st.Replacing.failed(context.Canceled)
			})
		}
		n.die(all[0], ExitNoRestart)
		require.NoError(t, n.scale(1))
		require.NoError(t, n.m.GaveUp())
		require.Equal(t, 0, n.started().Slot())
	})
}
