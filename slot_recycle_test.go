package cluster

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Recycling, over the state of the slots.

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

// TestCancelledRecyclingIsWantedStill: when the reload that it gave way to fails,
// the worker is as due as before.
func TestCancelledRecyclingIsWantedStill(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 2, Recycle: Recycle{Connections: 1}})
		defer n.stop()
		time.Sleep(time.Minute)
		n.in(func(m *master) { m.wantRecycle(all[1]) })
		synctest.Wait()
		cancelled := n.started()
		done := n.reload()
		n.die(cancelled, exit[-1])
		synctest.Wait()
		n.die(n.started(), exit[1])
		require.Error(t, outcome(t, done))
		_, e := n.replaced(all[1], exit[0])
		require.Equal(t, ReasonRecycle, e.Reason)
	})
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
		o.Exec = tempDirIn(t) + "/missing"
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

// TestDueBeforeItsTurn: a worker says once that it is full. If it does so before
// it has its slot, or while its predecessor still drains, it is replaced when
// that is possible.
func TestDueBeforeItsTurn(t *testing.T) {
	exit := realExits(t)
	full := func(n *nursery, p *Process) { n.in(func(m *master) { m.wantRecycle(p) }) }
	for _, reload := range []bool{true, false} {
		for _, early := range []bool{true, false} {
			for _, alone := range []bool{true, false} {
				synctest.Test(t, func(t *testing.T) {
					n, all := filled(t, Options{Workers: 1, ManualReady: true, Recycle: Recycle{Connections: 1, MinAge: time.Nanosecond}})
					defer n.stop()
					time.Sleep(time.Second)
					if reload {
						n.reload()
					} else {
						full(n, all[0])
						synctest.Wait()
					}
					next := n.started()
					time.Sleep(time.Second)
					if early {
						full(n, next)
					}
					if alone {
						n.die(all[0], exit[1])
						synctest.Wait()
					}
					n.ready(next)
					if !early {
						full(n, next)
					}
					if !alone {
						n.none(10 * time.Second)
						n.die(all[0], exit[0])
					}
					synctest.Wait()
					_, e := n.replaced(next, exit[0])
					require.Equal(t, ReasonRecycle, e.Reason)
				})
			}
		}
	}
}
