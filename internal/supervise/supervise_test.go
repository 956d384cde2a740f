package supervise

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/stretchr/testify/require"
)

// TestBackoff: the first crash is answered at once, the following ever later up
// to a bound, and a worker that was ready for long makes the next crash a first
// one again.
func TestBackoff(t *testing.T) {
	n, all := born(t, Settings{Workers: 1})
	p := all[0]
	n.ready(p) // once is enough: this program works
	for _, want := range []time.Duration{0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 15000, 15000} {
		n.die(p, 1)
		var took time.Duration
		p, took = n.fork()
		near(t, want*time.Millisecond, took)
	}
	n.ready(p)
	n.sleep(backoffReset)
	n.die(p, killed)
	p, took := n.fork()
	require.Zero(t, took)
	n.ready(p)
	n.sleep(backoffReset / 2) // not long enough
	n.die(p, killed)
	_, took = n.fork()
	near(t, 100*time.Millisecond, took)
}

// TestBackoffIsPerSlot: a slot whose workers crash does not slow down another,
// and a successor has its predecessor's slot and a new id.
func TestBackoffIsPerSlot(t *testing.T) {
	n, all := born(t, Settings{Workers: 2})
	first, second := all[0], all[1]
	require.Equal(t, []int{0, 1}, []int{first.Slot(), second.Slot()})
	n.ready(first)
	n.ready(second)
	ids := map[int]bool{first.id: true, second.id: true}
	for range 4 {
		n.die(first, 1)
		first, _ = n.fork()
		require.Equal(t, 0, first.Slot())
		require.False(t, ids[first.id])
		ids[first.id] = true
	}
	n.die(first, 1)
	n.die(second, 1)
	p, took := n.fork()
	require.Equal(t, 1, p.Slot())
	require.Zero(t, took)
	p, took = n.fork()
	require.Equal(t, 0, p.Slot())
	near(t, 800*time.Millisecond, took)
}

// TestCleanExitIsNoCrash: a worker that was ready for a second and exits with 0
// is replaced at once, however often, and counts for no backoff. One that was
// ready for less crashed.
func TestCleanExitIsNoCrash(t *testing.T) {
	n := newFake(t, Settings{Workers: 1})
	require.NoError(t, n.autoFork())
	p, took := n.fork()
	require.Zero(t, took)
	for range 10 {
		n.ready(p)
		n.sleep(cleanAfter)
		n.die(p, 0)
		p, took = n.fork()
		require.Zero(t, took)
	}
	for _, want := range []time.Duration{0, 100, 200} {
		n.ready(p)
		n.sleep(cleanAfter / 2)
		n.die(p, 0)
		p, took = n.fork()
		near(t, want*time.Millisecond, took)
	}
}

// TestVoluntaryExitIsNotReplaced: a slot whose worker was asked to end stays
// empty, however the worker ended; the next AutoFork fills it again when nothing
// runs any more.
func TestVoluntaryExitIsNotReplaced(t *testing.T) {
	for name, end := range map[string]func(n *fakeCluster, p *proc){
		"Kill": func(n *fakeCluster, p *proc) {
			require.NoError(n.t, n.kill(p))
			require.Equal(n.t, []os.Signal{os.Kill}, n.signals)
		},
		"Kill with a signal": func(n *fakeCluster, p *proc) { require.NoError(n.t, n.send(p, syscall.SIGTERM, false)) },
		"Disconnect":         func(n *fakeCluster, p *proc) { n.drain(p) },
		"its own wish":       func(n *fakeCluster, p *proc) { n.happened(p, EndsByItself) },
	} {
		t.Run(name, func(t *testing.T) {
			n, all := born(t, Settings{Workers: 2})
			p, other := all[0], all[1]
			n.ready(p)
			end(n, p)
			n.die(p, 1)
			n.none(time.Hour)
			require.NoError(t, n.autoFork()) // workers run: nothing to do
			n.none(time.Hour)
			require.NoError(t, n.kill(other))
			n.die(other, killed)
			n.none(time.Hour)
			require.NoError(t, n.autoFork())
			n.fork()
			n.fork()
		})
	}
}

// TestBootLoop: when workers keep dying before they are ready, and none ever
// was, the supervision ends and Run says why.
func TestBootLoop(t *testing.T) {
	n, all := born(t, Settings{Workers: 2})
	p, other := all[0], all[1]
	for range maxBootFailures - 1 {
		n.online(p)
		n.die(p, 1)
		p, _ = n.fork()
	}
	n.die(p, 1)
	n.none(time.Hour)
	require.ErrorIs(t, n.m.GaveUp(), errs.BootLoop)
	require.ErrorContains(t, n.m.GaveUp(), "exit status 1")
	require.ErrorContains(t, n.m.GaveUp(), "slot 0")
	n.die(other, 1)
	n.none(time.Hour)
	require.NoError(t, n.autoFork()) // a new beginning
	n.fork()
	n.fork()
	require.NoError(t, n.m.GaveUp())
}

// TestBootLoopOnlyForUnprovenPrograms: once a worker of any slot was ready, or
// online for long, a crash loop is no reason to give up.
func TestBootLoopOnlyForUnprovenPrograms(t *testing.T) {
	for name, prove := range map[string]func(n *fakeCluster, other *proc) *proc{
		"another slot was ready": func(n *fakeCluster, other *proc) *proc {
			n.ready(other)
			n.die(other, 1)
			p, _ := n.fork()
			return p
		},
		"another slot's worker is online for long": func(n *fakeCluster, other *proc) *proc {
			n.online(other)
			n.sleep(backoffReset)
			return other
		},
		"another slot's worker was online for long, and died": func(n *fakeCluster, other *proc) *proc {
			n.online(other)
			n.sleep(backoffReset)
			n.die(other, 1)
			p, _ := n.fork()
			return p
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, all := born(t, Settings{Workers: 2})
			p, other := all[0], all[1]
			prove(n, other)
			for range 4 * maxBootFailures {
				n.die(p, 1)
				p, _ = n.fork()
			}
		})
	}
	// A queue consumer never listens. That it crashes once a minute is no reason
	// to leave it dead.
	t.Run("each is online for long", func(t *testing.T) {
		n := newFake(t, Settings{Workers: 1})
		require.NoError(t, n.autoFork())
		for range 4 * maxBootFailures {
			p, took := n.fork()
			require.Zero(t, took)
			n.online(p)
			n.sleep(time.Minute)
			n.die(p, 1)
		}
	})
	// Slow is not up: one that hangs until StartTimeout proves nothing.
	t.Run("none is ever online", func(t *testing.T) {
		n := newFake(t, Settings{Workers: 1})
		require.NoError(t, n.autoFork())
		for i, want := range []time.Duration{0, 0, 100, 200, 400} {
			p, took := n.fork()
			near(t, want*time.Millisecond, took)
			n.sleep(startTimeout)
			require.Len(t, n.signals, i+1, "StartTimeout")
			n.die(p, killed)
		}
		n.none(time.Hour)
	})
}

// TestStartTimeoutEndsWithOnline: a worker that never listens is up once it is
// online; under ManualReady it has to say so.
func TestStartTimeoutEndsWithOnline(t *testing.T) {
	for _, manual := range []bool{false, true} {
		t.Run(fmt.Sprintf("ManualReady %v", manual), func(t *testing.T) {
			n, all := born(t, Settings{Workers: 1, ManualReady: manual})
			p := all[0]
			n.online(p)
			n.sleep(2 * startTimeout)
			if manual {
				require.Len(t, n.signals, 1)
			} else {
				require.Empty(t, n.signals)
			}
		})
	}
}

// TestStartTimeoutWaitsForADebugger: what a debugger has stopped is not killed for being
// late, and has all the time once more when that lets it go.
func TestStartTimeoutWaitsForADebugger(t *testing.T) {
	n, _ := born(t, Settings{Workers: 1})
	n.traced = true
	n.sleep(3 * startTimeout)
	require.Empty(t, n.signals)
	n.traced = false
	n.sleep(startTimeout)
	require.Len(t, n.signals, 1)
}

// TestForkFailureIsACrash: a replacement that cannot be started is tried again,
// ever later, and works again when the cause is gone.
func TestForkFailureIsACrash(t *testing.T) {
	n, all := born(t, Settings{Workers: 1})
	p := all[0]
	n.ready(p)
	n.failing(errors.New("no more processes"))
	n.die(p, 1)
	n.none(time.Minute)
	n.failing(nil)
	_, took := n.fork()
	require.LessOrEqual(t, took, backoffMax+backoffMax/5)
	require.Len(t, n.list(), 1)
}

// TestAutoForkAllOrNothing: when one worker cannot be started AutoFork says so
// and leaves none; once it has returned, another AutoFork starts all.
func TestAutoForkAllOrNothing(t *testing.T) {
	n := newFake(t, Settings{Workers: 3})
	broken := errors.New("out of memory")
	n.start = func(o Order) error {
		if o.Place == 2 {
			return broken
		}
		return nil
	}
	done := n.beginAutoFork()
	first, _ := n.fork()
	second, _ := n.fork()
	require.Len(t, n.signals, 2)
	n.die(first, killed)
	require.False(t, done.over, "it returns when all are gone")
	n.die(second, killed)
	require.ErrorContains(t, done.outcome(), broken.Error())
	require.Empty(t, n.list())
	n.none(time.Hour)

	n.start = nil
	require.NoError(t, n.autoFork())
	for range 3 {
		n.fork()
	}
}

// TestNoForkWhileStopping: neither Fork, AutoFork nor a slot whose backoff ends
// starts anything while a Disconnect is under way; a fork that was under way
// when it began is drained, and waited for.
func TestNoForkWhileStopping(t *testing.T) {
	n, all := born(t, Settings{Workers: 2})
	crashing, p := all[0], all[1]
	n.ready(p)
	for range 2 {
		n.die(crashing, 1)
		crashing, _ = n.fork()
	}
	n.die(crashing, 1) // its slot waits 200 ms

	// A fork that hangs in exec.
	n.slowly = true
	n.beginFork()

	stopped := n.disconnect()
	_, err := n.forkOne()
	require.ErrorIs(t, err, errs.Closed)
	require.ErrorIs(t, n.autoFork(), errs.Closed)
	n.die(p, 0)
	n.sleep(time.Second)
	require.False(t, stopped.over, "a fork is under way")
	n.hurry()
	late, _ := n.fork()
	require.False(t, stopped.over, "its worker lives")
	require.Equal(t, Draining, late.State())
	require.True(t, late.voluntary)
	n.die(late, 0)
	require.Empty(t, stopped.killed)
	require.True(t, stopped.over)
	n.none(time.Hour)
}

// TestDrainIsBounded: a worker that does not end within ShutdownTimeout of the
// order is killed, and so is one whose channel has closed; a second, shorter
// order counts, a longer one does not.
func TestDrainIsBounded(t *testing.T) {
	order := func(timeouts ...time.Duration) func(n *fakeCluster, p *proc) {
		return func(n *fakeCluster, p *proc) {
			for _, d := range timeouts {
				n.in(func(m *Machine) { m.Hurry(n.now, d) })
			}
		}
	}
	happens := func(what Happening) func(n *fakeCluster, p *proc) {
		return func(n *fakeCluster, p *proc) { n.happened(p, what) }
	}
	for name, c := range map[string]struct {
		order func(n *fakeCluster, p *proc)
		want  time.Duration
		told  int // how often
	}{
		"order":   {order(10 * time.Second), 10 * time.Second, 1},
		"closed":  {happens(ClosesItsChannel), shutdownTimeout, 0},
		"shorter": {order(10*time.Second, time.Second), time.Second, 2},
		"longer":  {order(10*time.Second, time.Minute), 10 * time.Second, 1},
		"SIGTERM": {happens(DrainsByItself), shutdownTimeout, 0},
	} {
		t.Run(name, func(t *testing.T) {
			n := newFake(t, Settings{Workers: 1})
			p, err := n.forkOne()
			require.NoError(t, err)
			n.ready(p)
			c.order(n, p)
			n.sleep(c.want - time.Nanosecond)
			require.Empty(t, n.signals)
			require.Len(t, p.drains, c.told)
			n.sleep(time.Nanosecond)
			require.Equal(t, []os.Signal{os.Kill}, n.signals)
			n.die(p, killed)
		})
	}
}

// TestKilledOnlyIfItDiedOfIt: a worker that exits by itself at the very moment
// in which it is killed for its slowness was not killed.
func TestKilledOnlyIfItDiedOfIt(t *testing.T) {
	for _, status := range []int{0, killed} {
		n := newFake(t, Settings{Workers: 1})
		p, err := n.forkOne()
		require.NoError(t, err)
		n.drain(p)
		stopped := n.disconnect()
		n.sleep(shutdownTimeout)
		require.Len(t, n.signals, 1)
		require.Equal(t, status == killed, n.end(p, status).CutOff)
		require.True(t, stopped.over)
		require.Equal(t, status == killed, len(stopped.killed) == 1)
	}
}

// TestStateOnlyGrows: what comes late does not make a worker younger.
func TestStateOnlyGrows(t *testing.T) {
	n, all := born(t, Settings{Workers: 1})
	w := all[0].worker()
	for s := Starting; s < Dead; s++ {
		w.advance(s)
		for earlier := Starting; earlier <= s; earlier++ {
			require.False(t, w.advance(earlier))
		}
		require.Equal(t, s, n.list()[0].State())
		require.NotContains(t, s.String(), "State(")
	}
}

// TestProbeIsNotVoluntary: signal 0 asks whether the worker exists, and leaves it
// and its slot as they are.
func TestProbeIsNotVoluntary(t *testing.T) {
	n, all := born(t, Settings{Workers: 1})
	p := all[0]
	require.NoError(t, n.send(p, syscall.Signal(0), true))
	n.die(p, 1)
	n.fork()
}

// TestRefusedAutoForkHoldsNothing: the program that it has looked up is closed
// again, whether it was refused or had nothing to do.
func TestRefusedAutoForkHoldsNothing(t *testing.T) {
	n, all := born(t, Settings{Workers: 1})
	held := func() (held int) {
		for _, p := range n.programs {
			if p.open {
				held++
			}
		}
		return held
	}
	require.NoError(t, n.autoFork())
	require.Equal(t, 1, held())
	n.disconnect()
	require.ErrorIs(t, n.autoFork(), errs.Closed)
	require.Zero(t, held())
	n.die(all[0], killed)
}
