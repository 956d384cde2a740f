package hostile_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// stress is a cluster under load that things happen to.
type stress struct {
	t       *testing.T
	l       *clustertest.Load
	dir     string // of the files that make workers crash
	version int    // what is deployed
	fresh   int    // the first that no worker ran when the pair began
	looping bool   // the first slot's workers crash before they are ready
	env     []string

	mu       sync.Mutex
	deaths   []time.Time // of workers that did not drain
	excused  int
	stopping bool
	reopened time.Time     // after the last stop
	changed  chan struct{} // something happened
}

const (
	stressWorkers = 3
	stressClients = 6
	stressMemory  = 300 << 20
)

// stressed is an echoing worker that can be made to crash before it is ready, and to
// grow too large.
var stressed = clustertest.Program("stressed", func() {
	if os.Getenv("BROKEN") != "" {
		os.Exit(3)
	}
	if _, err := os.Stat(troubleFile(os.Getenv("TROUBLE"), cluster.Worker.Slot(), os.Getenv("GENERATION"))); err == nil {
		os.Exit(1)
	}
	cluster.Handle("hoard", func(*cluster.Process, clustertest.Order) { hoarded = bytes.Repeat([]byte{1}, stressMemory) })
	clustertest.RunProgram(clustertest.Echoing)
})

var hoarded []byte // what a stressed worker grows by

func troubleFile(dir string, slot int, generation string) string {
	return filepath.Join(dir, strconv.Itoa(slot)+"."+generation)
}

// startStress begins a cluster and its load.
func startStress(t *testing.T, s cluster.Scheduling) *stress {
	l := &clustertest.Load{T: t, Network: "tcp", Body: bytes.Repeat([]byte("x"), 4<<10), Stop: make(chan struct{})}
	l.HTTP, l.Raw = clustertest.UnusedAddress(t, "tcp", "http"), clustertest.UnusedAddress(t, "tcp", "raw")
	b := &stress{t: t, l: l, dir: clustertest.TempDir(t), changed: make(chan struct{}, 1)}
	l.Excuse = b.excuse
	clustertest.WithMaster(t, stressed, cluster.Options{
		Workers: stressWorkers, Scheduling: s,
		ShutdownTimeout: 4 * time.Second, // for the drain of one that is stopped
		Env:             []string{"NETWORK=tcp", "HTTP=" + l.HTTP, "RAW=" + l.Raw, "TROUBLE=" + b.dir},
		Watchdog:        cluster.Watchdog{Interval: clustertest.Tick, Timeout: 2 * time.Second},
		Recycle:         cluster.Recycle{Memory: stressMemory, MinAge: 1, Jitter: -1},
		Backoff:         cluster.Backoff{Min: 50 * time.Millisecond, Max: 400 * time.Millisecond},
	})
	b.env = cluster.Settings().Env
	t.Cleanup(cluster.OnDeath(func(_ *cluster.Process, e cluster.Exit) {
		if e.Code != 0 {
			b.mu.Lock()
			b.deaths = append(b.deaths, time.Now())
			b.mu.Unlock()
		}
		b.wake()
	}))
	t.Cleanup(cluster.OnFork(func(*cluster.Process) { b.wake() }))
	t.Cleanup(cluster.OnOnline(func(*cluster.Process) { b.wake() }))
	// A stopped worker cannot dump its goroutines, and gets 5 s for it: it goes on
	// to do so.
	t.Cleanup(cluster.OnError(func(w *cluster.Process, err error) {
		if strings.Contains(err.Error(), cluster.ErrStalled.Error()) {
			clustertest.SendSignal(w.OSProcess(), clustertest.SigCont)
		}
	}))
	b.deploy(false)
	require.NoError(t, cluster.AutoFork())
	b.calm()
	for range stressClients / 3 {
		l.Run(l.KeepAlive())
		l.Run(l.OneShot)
		l.Run(l.Session)
	}
	return b
}

func (b *stress) wake() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// until waits for a state of the cluster; each event is a reason to look.
func (b *stress) until(cond func() bool, what string) {
	b.t.Helper()
	for end := time.After(clustertest.Patience); !cond(); {
		select {
		case <-b.changed:
		case <-time.After(10 * time.Millisecond): // ready and draining have no event
		case <-end:
			s := cluster.Stats()
			b.t.Fatalf("not within %v: %s\n%+v", clustertest.Patience, what, s)
		}
	}
}

// excuse reports whether a request may have failed: a worker died with it, or all
// were told to stop.
func (b *stress) excuse(began time.Time, _ error) bool {
	began = began.Add(-100 * time.Millisecond) // its connection may be the dead one's
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		b.mu.Lock()
		stopping := b.stopping || began.Before(b.reopened)
		died := slices.ContainsFunc(b.deaths, func(d time.Time) bool { return d.After(began) })
		if died && !stopping {
			b.excused++
		}
		excused := died || stopping
		b.mu.Unlock()
		if excused || time.Now().After(end) { // the death may be reported later than the client sees it
			return excused
		}
	}
}

// deploy makes the next version.
func (b *stress) deploy(broken bool) {
	b.version++
	o := cluster.Settings()
	o.Env = append(b.env[:len(b.env):len(b.env)], "GENERATION="+strconv.Itoa(b.version))
	if broken {
		o.Env = append(o.Env, "BROKEN=1")
	}
	require.NoError(b.t, cluster.SetupMaster(o))
}

// calm waits until each slot has one worker, that is ready, and nothing is under
// way.
func (b *stress) calm() {
	b.t.Helper()
	b.until(func() bool {
		s := cluster.Stats()
		if s.Target != stressWorkers || len(s.Workers) != stressWorkers || s.Reload.Running {
			return false
		}
		for i, w := range s.Workers {
			if w.Slot != i || w.State != "ready" || !clustertest.Runs(w.PID) {
				return false
			}
		}
		return true
	}, "a calm cluster")
}

// worker is the one that has the slot: the oldest that is not on its way out. In
// place of a slot whose workers crash it is the next one's.
func (b *stress) worker(slot int) *cluster.Process {
	b.t.Helper()
	if b.looping {
		slot++
	}
	var found *cluster.Process
	b.until(func() bool {
		for _, w := range cluster.Workers() {
			if w.Slot() == slot && w.State() == cluster.Ready {
				found = w
				return true
			}
		}
		return false
	}, fmt.Sprintf("a worker in slot %d", slot))
	return found
}

// forks waits for a fork after that of the worker with the number.
func (b *stress) forks(after int) {
	b.t.Helper()
	b.until(func() bool {
		all := cluster.Workers()
		return len(all) > 0 && all[len(all)-1].ID() > after
	}, "a fork")
}

// last is the number of the newest worker.
func last() int {
	n := 0
	for _, w := range cluster.Workers() {
		n = max(n, w.ID())
	}
	return n
}
