package cluster

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestBackoff: the first crash is answered at once, the following ever later up
// to a bound, and a worker that was ready for long makes the next crash a first
// one again.
func TestBackoff(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := born(t, Options{Workers: 1})
		defer n.stop()
		p := all[0]
		n.ready(p) // once is enough: this program works
		for _, want := range []time.Duration{0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 15000, 15000} {
			n.die(p, exit[1])
			var took time.Duration
			p, took = n.fork()
			near(t, want*time.Millisecond, took)
		}
		n.ready(p)
		time.Sleep(backoffReset)
		n.die(p, exit[-1])
		p, took := n.fork()
		require.Zero(t, took)
		n.ready(p)
		time.Sleep(backoffReset / 2) // not long enough
		n.die(p, exit[-1])
		_, took = n.fork()
		near(t, 100*time.Millisecond, took)
	})
}

// TestBackoffIsPerSlot: a slot whose workers crash does not slow down another,
// and a successor has its predecessor's slot and a new id.
func TestBackoffIsPerSlot(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := born(t, Options{Workers: 2})
		defer n.stop()
		first, second := all[0], all[1]
		require.Equal(t, []int{0, 1}, []int{first.Slot(), second.Slot()})
		n.ready(first)
		n.ready(second)
		ids := map[int]bool{first.ID(): true, second.ID(): true}
		for range 4 {
			n.die(first, exit[1])
			first, _ = n.fork()
			require.Equal(t, 0, first.Slot())
			require.False(t, ids[first.ID()])
			ids[first.ID()] = true
		}
		n.die(first, exit[1])
		n.die(second, exit[1])
		p, took := n.fork()
		require.Equal(t, 1, p.Slot())
		require.Zero(t, took)
		p, took = n.fork()
		require.Equal(t, 0, p.Slot())
		near(t, 800*time.Millisecond, took)
	})
}

// TestCleanExitIsNoCrash: a worker that was ready for a second and exits with 0
// is replaced at once, however often, and counts for no backoff. One that was
// ready for less crashed.
func TestCleanExitIsNoCrash(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNursery(t, Options{Workers: 1})
		defer n.stop()
		require.NoError(t, n.m.autoFork())
		p, took := n.fork()
		require.Zero(t, took)
		for range 10 {
			n.ready(p)
			time.Sleep(cleanAfter)
			n.die(p, exit[0])
			p, took = n.fork()
			require.Zero(t, took)
		}
		for _, want := range []time.Duration{0, 100, 200} {
			n.ready(p)
			time.Sleep(cleanAfter / 2)
			n.die(p, exit[0])
			p, took = n.fork()
			near(t, want*time.Millisecond, took)
		}
	})
}

// TestVoluntaryExitIsNotReplaced: a slot whose worker was asked to end stays
// empty, however the worker ended; the next AutoFork fills it again when nothing
// runs any more.
func TestVoluntaryExitIsNotReplaced(t *testing.T) {
	exit := realExits(t)
	for name, end := range map[string]func(n *nursery, p *Process){
		"Kill": func(n *nursery, p *Process) {
			require.NoError(n.t, n.m.killWorker(p))
			require.Equal(n.t, []os.Signal{os.Kill}, n.killed())
		},
		"Kill with a signal": func(n *nursery, p *Process) { require.NoError(n.t, n.m.killWorker(p, sendable)) },
		"Disconnect":         func(n *nursery, p *Process) { go n.m.disconnectWorker(n.t.Context(), p) },
		"its own wish":       func(n *nursery, p *Process) { n.m.call(func() { p.voluntary.Store(true) }) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, all := born(t, Options{Workers: 2})
				defer n.stop()
				p, other := all[0], all[1]
				n.ready(p)
				end(n, p)
				synctest.Wait()
				n.die(p, exit[1])
				n.none(time.Hour)
				require.NoError(t, n.m.autoFork()) // workers run: nothing to do
				n.none(time.Hour)
				require.NoError(t, n.m.killWorker(other))
				n.die(other, exit[-1])
				n.none(time.Hour)
				require.NoError(t, n.m.autoFork())
				n.fork()
				n.fork()
			})
		})
	}
}

// TestBootLoop: when workers keep dying before they are ready, and none ever
// was, the supervision ends and Run says why.
func TestBootLoop(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := born(t, Options{Workers: 2})
		defer n.stop()
		p, other := all[0], all[1]
		for range maxBootFailures - 1 {
			n.online(p)
			n.die(p, exit[1])
			p, _ = n.fork()
		}
		n.die(p, exit[1])
		n.none(time.Hour)
		n.m.call(func() { require.ErrorIs(t, n.m.gaveUp, ErrBootLoop) })
		require.ErrorContains(t, n.m.gaveUp, "exit status 1")
		require.ErrorContains(t, n.m.gaveUp, "slot 0")
		n.die(other, exit[1])
		n.none(time.Hour)
		require.NoError(t, n.m.autoFork()) // a new beginning
		n.fork()
		n.fork()
		n.m.call(func() { require.NoError(t, n.m.gaveUp) })
	})
}

// TestBootLoopOnlyForUnprovenPrograms: once a worker of any slot was ready, or
// online for long, a crash loop is no reason to give up.
func TestBootLoopOnlyForUnprovenPrograms(t *testing.T) {
	exit := realExits(t)
	for name, prove := range map[string]func(n *nursery, other *Process) *Process{
		"another slot was ready": func(n *nursery, other *Process) *Process {
			n.ready(other)
			n.die(other, exit[1])
			p, _ := n.fork()
			return p
		},
		"another slot's worker is online for long": func(n *nursery, other *Process) *Process {
			n.online(other)
			time.Sleep(backoffReset)
			return other
		},
		"another slot's worker was online for long, and died": func(n *nursery, other *Process) *Process {
			n.online(other)
			time.Sleep(backoffReset)
			n.die(other, exit[1])
			p, _ := n.fork()
			return p
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, all := born(t, Options{Workers: 2})
				defer n.stop()
				p, other := all[0], all[1]
				prove(n, other)
				for range 4 * maxBootFailures {
					n.die(p, exit[1])
					p, _ = n.fork()
				}
			})
		})
	}
	// A queue consumer never listens. That it crashes once a minute is no reason
	// to leave it dead.
	t.Run("each is online for long", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNursery(t, Options{Workers: 1})
			defer n.stop()
			require.NoError(t, n.m.autoFork())
			for range 4 * maxBootFailures {
				p, took := n.fork()
				require.Zero(t, took)
				n.online(p)
				time.Sleep(time.Minute)
				n.die(p, exit[1])
			}
		})
	})
	// Slow is not up: one that hangs until StartTimeout proves nothing.
	t.Run("none is ever online", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNursery(t, Options{Workers: 1})
			defer n.stop()
			require.NoError(t, n.m.autoFork())
			for i, want := range []time.Duration{0, 0, 100, 200, 400} {
				p, took := n.fork()
				near(t, want*time.Millisecond, took)
				time.Sleep(defaultStartTimeout)
				synctest.Wait()
				require.Len(t, n.killed(), i+1, "StartTimeout")
				n.die(p, exit[-1])
			}
			n.none(time.Hour)
		})
	})
}

// TestStartTimeoutEndsWithOnline: a worker that never listens is up once it is
// online; under ManualReady it has to say so.
func TestStartTimeoutEndsWithOnline(t *testing.T) {
	for _, manual := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n, all := born(t, Options{Workers: 1, ManualReady: manual})
			defer n.stop()
			p := all[0]
			n.online(p)
			time.Sleep(2 * defaultStartTimeout)
			synctest.Wait()
			if manual {
				require.Len(t, n.killed(), 1)
			} else {
				require.Empty(t, n.killed())
			}
		})
	}
}

// TestForkFailureIsACrash: a replacement that cannot be started is tried again,
// ever later, and works again when the cause is gone.
func TestForkFailureIsACrash(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := born(t, Options{Workers: 1})
		defer n.stop()
		p := all[0]
		n.ready(p)
		n.failing(errors.New("no more processes"))
		n.die(p, exit[1])
		n.none(time.Minute)
		n.failing(nil)
		_, took := n.fork()
		require.LessOrEqual(t, took, backoffMax+backoffMax/5)
		require.Len(t, n.m.list(), 1)
	})
}

// TestAutoForkAllOrNothing: when one worker cannot be started AutoFork says so
// and leaves none; once it has returned, another AutoFork starts all.
func TestAutoForkAllOrNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNursery(t, Options{Workers: 3})
		defer n.stop()
		broken, start := errors.New("out of memory"), n.m.start
		n.m.start = func(p *Process, env []string) error {
			if p.Slot() == 2 {
				return broken
			}
			return start(p, env)
		}
		done := make(chan error)
		go func() { done <- n.m.autoFork() }()
		first, _ := n.fork()
		second, _ := n.fork()
		require.Len(t, n.killed(), 2)
		n.die(first, nil)
		synctest.Wait()
		require.Empty(t, done, "it returns when all are gone")
		n.die(second, nil)
		require.ErrorIs(t, <-done, broken)
		require.Empty(t, n.m.list())
		n.none(time.Hour)

		n.m.start = start
		require.NoError(t, n.m.autoFork())
		for range 3 {
			n.fork()
		}
	})
}

// TestNoForkWhileStopping: neither Fork, AutoFork nor a slot whose backoff ends
// starts anything while a Disconnect is under way; a fork that was under way
// when it began is drained, and waited for.
func TestNoForkWhileStopping(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := born(t, Options{Workers: 2})
		crashing, p := all[0], all[1]
		n.ready(p)
		for range 2 {
			n.die(crashing, exit[1])
			crashing, _ = n.fork()
		}
		n.die(crashing, exit[1]) // its slot waits 200 ms

		// A fork that hangs in exec.
		slow, started := make(chan *Process), make(chan bool)
		n.m.start = func(p *Process, env []string) error {
			p.child.started = time.Now()
			started <- true
			slow <- p
			return nil
		}
		go n.m.forkOne(nil)
		<-started

		stopped := make(chan error, 1)
		go func() { stopped <- n.m.disconnect(t.Context()) }()
		synctest.Wait()
		_, err := n.m.forkOne(nil)
		require.ErrorIs(t, err, ErrClosed)
		require.ErrorIs(t, n.m.autoFork(), ErrClosed)
		n.die(p, exit[0])
		time.Sleep(time.Second)
		synctest.Wait()
		require.Empty(t, stopped, "a fork is under way")
		late := <-slow
		synctest.Wait()
		require.Empty(t, stopped, "its worker lives")
		require.Equal(t, Draining, late.State())
		require.True(t, late.ExitedAfterDisconnect())
		n.die(late, exit[0])
		require.NoError(t, <-stopped)
		n.none(time.Hour)
	})
}

// TestDrainIsBounded: a worker that does not end within ShutdownTimeout of the
// order is killed, and so is one whose channel has closed; a second, shorter
// order counts, a longer one does not.
func TestDrainIsBounded(t *testing.T) {
	exit := realExits(t)
	for name, c := range map[string]struct {
		order func(n *nursery, p *Process)
		want  time.Duration
	}{
		"order":   {func(n *nursery, p *Process) { n.m.drain(p, 10*time.Second) }, 10 * time.Second},
		"closed":  {func(n *nursery, p *Process) { n.m.disconnected(p) }, defaultShutdownTimeout},
		"shorter": {func(n *nursery, p *Process) { n.m.drain(p, 10*time.Second); n.m.drain(p, time.Second) }, time.Second},
		"longer":  {func(n *nursery, p *Process) { n.m.drain(p, 10*time.Second); n.m.drain(p, time.Minute) }, 10 * time.Second},
		"SIGTERM": {func(n *nursery, p *Process) { n.m.drainingItself(p) }, defaultShutdownTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNursery(t, Options{Workers: 1})
				defer n.stop()
				p, err := n.m.forkOne(nil)
				require.NoError(t, err)
				n.ready(p)
				n.m.call(func() { c.order(n, p) })
				time.Sleep(c.want - time.Nanosecond)
				synctest.Wait()
				require.Empty(t, n.killed())
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				require.Equal(t, []os.Signal{os.Kill}, n.killed())
				n.die(p, exit[-1])
			})
		})
	}
}

// TestKilledOnlyIfItDiedOfIt: a worker that exits by itself at the very moment
// in which it is killed for its slowness was not killed.
func TestKilledOnlyIfItDiedOfIt(t *testing.T) {
	exit := realExits(t)
	for code, want := range map[int]error{0: nil, -1: context.DeadlineExceeded} {
		synctest.Test(t, func(t *testing.T) {
			n := newNursery(t, Options{Workers: 1})
			p, err := n.m.forkOne(nil)
			require.NoError(t, err)
			done := make(chan error, 2)
			go func() { done <- n.m.disconnectWorker(t.Context(), p) }()
			go func() { done <- n.m.disconnect(t.Context()) }()
			time.Sleep(defaultShutdownTimeout)
			synctest.Wait()
			require.Len(t, n.killed(), 1)
			n.die(p, exit[code])
			for range 2 {
				require.ErrorIs(t, <-done, want)
			}
		})
	}
}

// TestStateOnlyGrows: what comes late does not make a worker younger.
func TestStateOnlyGrows(t *testing.T) {
	p := newProcess(1, -1)
	for s := Starting; s <= Dead; s++ {
		p.advance(s)
		for earlier := Starting; earlier <= s; earlier++ {
			require.False(t, p.advance(earlier))
		}
		require.Equal(t, s, p.State())
		require.NotContains(t, s.String(), "State(")
	}
}
