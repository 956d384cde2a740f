package hostile_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// assault is something that happens to a cluster under stress. begin returns when
// it is under way, and the func that it returns waits for its end. It happens to
// one slot: 0 for the first of a pair, which is where a reload begins.
type assault struct {
	name  string
	begin func(b *stress, slot int) (end func())
}

// sigterm is for systems that have it.
const sigterm = "SIGTERM to a worker"

// assaults are those that need real processes.
var assaults = []assault{
	{"reload", func(b *stress, _ int) func() { return b.reload(false) }},
	{"failing reload", func(b *stress, _ int) func() { return b.reload(true) }},
	{"SIGKILL of a worker", func(b *stress, slot int) func() {
		w := b.worker(slot)
		b.ends(w, syscall.SIGKILL)
		return func() { b.dead(w) }
	}},
	{sigterm, func(b *stress, slot int) func() {
		w := b.worker(slot)
		b.ends(w, syscall.SIGTERM)
		return func() { b.dead(w) }
	}},
	{"stall", func(b *stress, slot int) func() {
		w := b.worker(slot)
		b.ends(w, clustertest.SigStop)
		return func() { b.dead(w) }
	}},
	{"crash loop", func(b *stress, slot int) func() {
		// Of what the slot runs: the next version is better.
		w, before := b.worker(slot), last()
		var files []string
		for v := range b.fresh {
			f := troubleFile(b.dir, slot, strconv.Itoa(v))
			require.NoError(b.t, os.WriteFile(f, nil, 0o644))
			files = append(files, f)
		}
		b.ends(w, syscall.SIGKILL)
		b.dead(w)
		// Who takes its place is forked after it, or is a replacement under way.
		b.until(func() bool {
			return last() > before || slices.ContainsFunc(cluster.Workers(), func(p *cluster.Process) bool { return p.Slot() == slot })
		}, "a successor")
		b.looping = true
		return func() {
			b.looping = false
			for _, f := range files {
				if err := os.Remove(f); err != nil { // two of a kind share them
					require.ErrorIs(b.t, err, os.ErrNotExist)
				}
			}
		}
	}},
	{"recycling", func(b *stress, slot int) func() {
		w, before := b.worker(slot), last()
		if err := w.Send(clustertest.Order{Cmd: "hoard"}); errors.Is(err, cluster.ErrClosed) {
			return func() {}
		}
		b.until(func() bool { return last() > before || w.State() > cluster.Ready }, "a replacement")
		return func() { b.until(func() bool { return w.State() > cluster.Ready }, "the end of a worker that is due") }
	}},
	{"scale up", func(b *stress, _ int) func() {
		before := last()
		require.NoError(b.t, cluster.Scale(cluster.Stats().Target+1))
		b.forks(before)
		return func() {}
	}},
	{"scale down", func(b *stress, _ int) func() {
		require.NoError(b.t, cluster.Scale(cluster.Stats().Target-1))
		return func() {}
	}},
	{"Disconnect", func(b *stress, _ int) func() {
		b.mu.Lock()
		b.stopping = true
		b.mu.Unlock()
		stopped := make(chan error, 1)
		go func() { stopped <- cluster.Disconnect(clustertest.Within(b.t, clustertest.Patience)) }()
		b.until(func() bool { return cluster.Stats().Target == 0 }, "the stop")
		return func() {
			if err := clustertest.Await(b.t, stopped, "end of Disconnect"); err != nil { // one that is stopped does not drain
				require.ErrorIs(b.t, err, context.DeadlineExceeded)
				require.Contains(b.t, b.t.Name(), "stall")
			}
			require.Empty(b.t, cluster.Workers())
		}
	}},
}

// reload begins one, of what works or of what does not.
func (b *stress) reload(broken bool) func() {
	b.deploy(broken)
	version, before := b.version, last()
	done := make(chan error, 1)
	go func() { done <- cluster.Reload(clustertest.Within(b.t, clustertest.Patience)) }()
	var over bool
	var err error
	b.until(func() bool {
		select {
		case err = <-done:
			over = true
		default:
		}
		return over || last() > before
	}, "a reload")
	return func() {
		if !over {
			err = clustertest.Await(b.t, done, "end of a reload")
		}
		b.mu.Lock()
		stopping := b.stopping
		b.mu.Unlock()
		switch {
		case stopping && (errors.Is(err, cluster.ErrClosed) || errors.Is(err, cluster.ErrNoWorkers)):
		case broken && !stopping:
			require.ErrorContains(b.t, err, "ended before it was up: exit status 3")
		case err != nil:
			require.NoError(b.t, err)
		case !broken:
			b.l.Oldest.Store(int64(version))
		}
	}
}

// ends sends a signal to a worker that may be gone already.
func (b *stress) ends(w *cluster.Process, sig syscall.Signal) {
	if err := clustertest.SendSignal(w.OSProcess(), sig); err != nil {
		require.ErrorIs(b.t, err, os.ErrProcessDone)
	}
}

func (b *stress) dead(w *cluster.Process) {
	b.t.Helper()
	b.until(w.IsDead, fmt.Sprintf("the death of worker %d", w.ID()))
}

// TestPairsUnderLoad: what TestPairs does to the state machine, done to real
// processes that serve: each pair of the assaults begins while the load goes on,
// which loses nothing but what was in flight on a worker that died of it; when
// both are over each slot has its worker again, of the right version.
//
// With CLUSTER_LONG=1 all pairs are tried; else some, others each day.
func TestPairsUnderLoad(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	possible := func(a assault) bool { return clustertest.System.Term || a.name != sigterm }
	chosen := func(i, j int) bool { return (i*len(assaults)+j+time.Now().YearDay())%13 == 0 }
	if clustertest.Long() {
		chosen = func(int, int) bool { return true }
	}
	for k, s := range []cluster.Scheduling{cluster.Shared, cluster.RoundRobin} {
		t.Run(s.String(), func(t *testing.T) {
			b := startStress(t, s)
			for i, first := range assaults {
				for j, second := range assaults {
					if (i+j)%2 == k && chosen(i, j) && possible(first) && possible(second) {
						t.Run(first.name+" and "+second.name, func(t *testing.T) {
							b.t = t
							b.pair(first, second)
						})
						if t.Failed() {
							return // what is left of it would be the next one's
						}
					}
				}
			}
			b.t = t
			close(b.l.Stop)
			b.l.Running.Wait()
			require.Zero(t, b.l.FailuresCount, "of %d requests: %v", b.l.Requests.Load(), b.l.Failures)
			require.LessOrEqual(t, b.excused, stressClients*len(b.deaths), "each client had one in flight")
			t.Logf("%d requests, %d lost with %d workers that died", b.l.Requests.Load(), b.excused, len(b.deaths))
		})
	}
}

func (b *stress) pair(first, second assault) {
	t := b.t
	failures := func() int {
		b.l.Mu.Lock()
		defer b.l.Mu.Unlock()
		return b.l.FailuresCount
	}
	b.deploy(false)
	b.fresh = b.version
	before, served := failures(), b.l.Requests.Load()
	endFirst := first.begin(b, 0)
	endSecond := func() {}
	if b.stopped() && second.name != "Disconnect" {
		b.duringStop(second)
	} else {
		endSecond = second.begin(b, 0)
	}
	endFirst()
	endSecond()
	if b.stopped() {
		require.NoError(t, cluster.Disconnect(context.Background()))
		require.NoError(t, cluster.SetupMaster(b.options()))
		b.deploy(false)
		require.NoError(t, cluster.AutoFork())
	} else {
		// The version of this test goes on, whatever failed.
		b.deploy(false)
		require.NoError(t, cluster.Scale(stressWorkers))
	}
	b.calm()
	b.mu.Lock()
	if b.stopping {
		b.stopping, b.reopened = false, time.Now()
	}
	b.mu.Unlock()
	b.until(func() bool { return b.l.Requests.Load() > served+20 }, "requests")
	require.Equal(t, before, failures(), "%v", b.l.Failures)
}

// duringStop is an assault on a cluster that ends: there is nothing for it to
// happen to but what drains.
func (b *stress) duringStop(a assault) {
	t, all := b.t, cluster.Workers()
	switch a.name {
	case "reload", "failing reload":
		require.Error(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)))
	case "scale up", "scale down":
		if err := cluster.Scale(stressWorkers); err != nil { // else the stop is over already
			require.ErrorIs(t, err, cluster.ErrClosed)
		}
	case "SIGKILL of a worker", "crash loop":
		if len(all) > 0 {
			b.ends(all[0], syscall.SIGKILL)
		}
	case sigterm:
		if len(all) > 0 {
			b.ends(all[0], syscall.SIGTERM)
		}
	}
}

func (b *stress) stopped() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stopping
}

func (b *stress) options() cluster.Options {
	o := cluster.Settings()
	o.Workers = stressWorkers
	return o
}
