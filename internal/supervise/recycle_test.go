package supervise

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Recycling, over the state of the slots.

// TestOneReplacementAtATime: a removed slot whose old worker drains still has
// the token.
func TestOneReplacementAtATime(t *testing.T) {
	n, all := filled(t, Settings{Workers: 3})
	n.sleep(time.Minute)
	n.full(all[2])
	n.full(all[0])
	n.full(all[1])
	next := n.started()
	require.Equal(t, 2, next.Slot())
	n.ready(next)
	require.NoError(t, n.scale(2))
	n.none(time.Second)
	n.die(next, 0)
	n.none(time.Second)
	n.die(all[2], 0)
	n.replaced(all[0], 0)
	_, e := n.replaced(all[1], 0)
	require.Equal(t, ReasonRecycle, e.Reason)
	n.none(time.Hour)
}

// TestRecycleByAge: a worker is replaced when it is as old as its own limit,
// which differs from the others' by the jitter; the replacement is ready first.
func TestRecycleByAge(t *testing.T) {
	n, all := filled(t, Settings{Workers: 1, Recycle: Recycle{Age: time.Hour / 2}})
	p := all[0]
	limits := make(map[time.Duration]bool)
	for range 20 {
		limit := p.worker().Limits.Age
		limits[limit] = true
		near(t, time.Hour/2, limit)
		next, took := n.fork()
		require.Equal(t, limit, took)
		require.Equal(t, p.generation, next.generation)
		require.Equal(t, Ready, p.State(), "the replacement is ready first")
		n.ready(next)
		require.Equal(t, Draining, p.State())
		require.Equal(t, ReasonRecycle, n.end(p, 0).Reason)
		p = next
	}
	require.Greater(t, len(limits), 10)
	require.Equal(t, 1, n.stats().Generation)
}

// TestRecycleOneAtATime: workers that are due together are replaced one after
// another, and one that is gone meanwhile is not.
func TestRecycleOneAtATime(t *testing.T) {
	n, all := filled(t, Settings{Workers: 4, Recycle: Recycle{Age: time.Minute, Jitter: -1}})
	n.sleep(time.Minute)
	next := n.started()
	n.none(time.Second)
	crashed := (next.Slot() + 1) % 4
	n.die(all[crashed], 1)
	respawn := n.started()
	require.Equal(t, crashed, respawn.Slot())
	n.ready(respawn)
	n.ready(next)
	n.die(all[next.Slot()], 0)
	seen := map[int]bool{crashed: true, next.Slot(): true}
	for range 2 {
		_, e := n.recycled(all, 0, seen)
		require.Equal(t, ReasonRecycle, e.Reason)
	}
	n.none(30 * time.Second)
}

// TestRecycleMinAge: whatever is full, no worker is replaced before MinAge.
func TestRecycleMinAge(t *testing.T) {
	n, all := filled(t, Settings{Workers: 1, Recycle: Recycle{Age: time.Second, Connections: 1, MinAge: time.Minute}})
	require.Equal(t, 1, all[0].order.Connections, "not 0, which is none")
	n.sleep(10 * time.Second)
	n.full(all[0])
	_, took := n.fork()
	require.Equal(t, 50*time.Second, took)
}

// TestRecycleByMemory: the worker's size is looked at at every interval of the
// watchdog, which may be off.
func TestRecycleByMemory(t *testing.T) {
	n, all := filled(t, Settings{Workers: 2, Watchdog: Watchdog{Timeout: -1}, Recycle: Recycle{Memory: 1 << 30, Jitter: -1}})
	n.mute = true
	for i, size := range []int64{1 << 30, 1<<30 + 1} {
		n.in(func(m *Machine) { m.Beat(n.now, all[i].id, Pulse{Memory: size}) })
	}
	next, took := n.fork()
	require.Equal(t, 1, next.Slot())
	require.Equal(t, 10*time.Second, took, "MinAge")
	n.none(30 * time.Second)
}

// TestRecycleIsRetried: a replacement that fails leaves the old worker, and is
// tried again ever later, though the cause, as memory, shows at every interval.
func TestRecycleIsRetried(t *testing.T) {
	o := Settings{Workers: 1, Backoff: Backoff{Min: 10 * time.Second, Max: time.Minute, Jitter: -1}, Recycle: Recycle{Memory: 1, Jitter: -1}}
	n, all := filled(t, o)
	n.pulse.Memory = 2
	for _, want := range []time.Duration{10, 10, 20, 40, 60, 60} {
		next, took := n.fork()
		require.Equal(t, want*time.Second, took)
		n.die(next, 1)
		require.Equal(t, Ready, all[0].State())
	}
	next, _ := n.fork()
	n.ready(next)
	n.pulse.Memory = 1
	require.Equal(t, ReasonRecycle, n.end(all[0], 0).Reason)
	n.none(time.Minute)
}

// TestRecycleGivesWayToReload: a replacement that is not ready is cancelled for
// a reload; one that is, is finished first.
func TestRecycleGivesWayToReload(t *testing.T) {
	for _, up := range []bool{false, true} {
		t.Run(fmt.Sprintf("up %v", up), func(t *testing.T) {
			n, all := filled(t, Settings{Workers: 2, Recycle: Recycle{Age: time.Minute, Jitter: -1}})
			n.sleep(time.Minute)
			next := n.started()
			if up {
				n.ready(next)
				done := n.reload()
				n.none(time.Second)
				n.die(all[next.Slot()], 0)
				all[next.Slot()] = next
				for _, p := range all {
					p, _ = n.replaced(p, 0)
					require.Equal(t, 2, p.number())
				}
				require.NoError(t, done.outcome())
				n.none(30 * time.Second)
				return
			}
			done := n.reload()
			require.Equal(t, []os.Signal{os.Kill}, n.signals)
			fresh := n.started()
			require.Equal(t, 2, fresh.number())
			require.Equal(t, ReasonRecycle, n.end(next, killed).Reason)
			n.ready(fresh)
			require.Equal(t, ReasonReload, n.end(all[0], 0).Reason)
			n.replaced(all[1], 0)
			require.NoError(t, done.outcome())
			n.none(30 * time.Second) // what was due is gone
		})
	}
}

// TestCancelledRecyclingIsWantedStill: when the reload that it gave way to fails,
// the worker is as due as before.
func TestCancelledRecyclingIsWantedStill(t *testing.T) {
	n, all := filled(t, Settings{Workers: 2, Recycle: Recycle{Connections: 1}})
	n.sleep(time.Minute)
	n.full(all[1])
	cancelled := n.started()
	done := n.reload()
	n.die(cancelled, killed)
	n.die(n.started(), 1)
	require.Error(t, done.outcome())
	_, e := n.replaced(all[1], 0)
	require.Equal(t, ReasonRecycle, e.Reason)
}

// TestRecycleAfterReload: what was due during a reload that failed has its turn
// after it.
func TestRecycleAfterReload(t *testing.T) {
	t.Run("at its first slot", func(t *testing.T) {
		n, all := filled(t, Settings{Workers: 2, Recycle: Recycle{Age: time.Minute, Jitter: -1}})
		n.sleep(50 * time.Second)
		done := n.reload()
		next := n.started()
		n.none(20 * time.Second) // both are due now
		n.die(next, 1)
		require.Error(t, done.outcome())
		seen := make(map[int]bool)
		for range 2 {
			_, e := n.recycled(all, 0, seen)
			require.Equal(t, ReasonRecycle, e.Reason)
		}
	})
	t.Run("before its first slot", func(t *testing.T) {
		n, all := filled(t, Settings{Workers: 1, Recycle: Recycle{Age: time.Minute, Jitter: -1}})
		n.missing = os.ErrNotExist
		n.sleep(time.Minute - 1)
		n.now = n.now.Add(1)
		n.in(func(m *Machine) { // it is due while the program is looked up
			m.Reload(n.now, 0)
			m.Advance(n.now)
		})
		_, e := n.replaced(all[0], 0)
		require.Equal(t, ReasonRecycle, e.Reason)
	})
}

// TestDueBeforeItsTurn: a worker says once that it is full. If it does so before
// it has its slot, or while its predecessor still drains, it is replaced when
// that is possible.
func TestDueBeforeItsTurn(t *testing.T) {
	full := (*fakeCluster).full
	for _, reload := range []bool{true, false} {
		for _, early := range []bool{true, false} {
			for _, alone := range []bool{true, false} {
				t.Run(fmt.Sprint(reload, early, alone), func(t *testing.T) {
					n, all := filled(t, Settings{Workers: 1, ManualReady: true, Recycle: Recycle{Connections: 1, MinAge: time.Nanosecond}})
					n.sleep(time.Second)
					if reload {
						n.reload()
					} else {
						full(n, all[0])
					}
					next := n.started()
					n.sleep(time.Second)
					if early {
						full(n, next)
					}
					if alone {
						n.die(all[0], 1)
					}
					n.ready(next)
					if !early {
						full(n, next)
					}
					if !alone {
						n.none(10 * time.Second)
						n.die(all[0], 0)
					}
					_, e := n.replaced(next, 0)
					require.Equal(t, ReasonRecycle, e.Reason)
				})
			}
		}
	}
}
