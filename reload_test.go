package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestRecycledWorker: a worker that has accepted so many connections, is so old,
// or so large, is drained once its replacement is up.
func TestRecycledWorker(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		r     cluster.Recycle
		cause func(t *testing.T, w clustertest.Event)
	}{
		"connections": {cluster.Recycle{Connections: 5}, func(t *testing.T, w clustertest.Event) {
			for range 5 {
				_, err := clustertest.Get("http://127.0.0.1:" + w.Rest[0])
				require.NoError(t, err)
			}
		}},
		"age":    {cluster.Recycle{Age: 2 * time.Second}, func(*testing.T, clustertest.Event) {}},
		"memory": {cluster.Recycle{Memory: 200 << 20}, func(t *testing.T, w clustertest.Event) { clustertest.Kill(t, w.PID, clustertest.SigPoke) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.r.Jitter, c.r.MinAge = -1, 1
			p, ups := clustertest.Supervise(t, clustertest.Supervision{Workers: 1, Recycle: c.r, Watchdog: cluster.Watchdog{Interval: clustertest.Tick}, Env: []string{"TROUBLE=memory"}})
			c.cause(t, ups[0])
			// The replacement is ready when the worker dies, whichever of the two
			// says so first.
			old := strconv.Itoa(ups[0].PID)
			ends := p.All("up 0 ", "dead 0 "+old+" "+string(cluster.ReasonRecycle), "census dead "+old+" ")
			require.NotEqual(t, old, strings.Fields(ends[0])[0])
			_, ready := census(ends[2])
			require.Positive(t, ready)
			p.Terminate()
		})
	}
}

// TestRecyclingTakesTurns: of workers that are due together one at a time is
// replaced, and none before its replacement is up.
func TestRecyclingTakesTurns(t *testing.T) {
	t.Parallel()
	const workers = 3
	p, ups := clustertest.Supervise(t, clustertest.Supervision{Workers: workers, Recycle: cluster.Recycle{Age: 4 * time.Second, Jitter: -1, MinAge: 1}})
	gone := make(map[int]bool)
	for range workers {
		pid, rest, _ := strings.Cut(p.Expect("census dead "), " ")
		gone[clustertest.Atoi(pid)] = true
		_, ready := census(rest)
		require.GreaterOrEqual(t, ready, workers, "when %s dies", pid)
	}
	for _, w := range ups {
		require.True(t, gone[w.PID])
	}
	p.Terminate()
	for line := range strings.Lines(p.Output()) {
		if strings.HasPrefix(line, "census ") {
			f := strings.Fields(line)
			alive := clustertest.Atoi(f[len(f)-2])
			require.LessOrEqual(t, alive, workers+1, line)
		}
		if pid, ok := strings.CutPrefix(line, "dead "); ok && gone[clustertest.Atoi(strings.Fields(pid)[1])] {
			require.Contains(t, line, string(cluster.ReasonRecycle))
		}
	}
}

// census reads how many workers there are and how many of them are ready.
func census(text string) (alive, ready int) {
	f := strings.Fields(text)
	return clustertest.Atoi(f[0]), clustertest.Atoi(f[1])
}

// versioned is a worker that says in its environment which version it is.
var versioned = clustertest.Program("versioned", func() {
	if text := os.Getenv("BROKEN"); text != "" {
		fmt.Fprintln(os.Stdout, "a line of output")
		fmt.Fprintln(os.Stderr, text)
		os.Exit(3)
	}
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	go ln.Accept()
	clustertest.ServeOrders()
	select {}
})

// TestReloadContextIsTheCallsAlone: a call that is given up returns at once, and the reload goes
// on. Its workers have the environment of the time of the reload. A slot that was not reloaded
// keeps its own.
func TestReloadContextIsTheCallsAlone(t *testing.T) {
	const name = "CLUSTER_TEST_GENERATION"
	t.Setenv(name, "1")
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Workers: 1})
	online := clustertest.Onlines(t)
	generation := func() string {
		w := clustertest.Await(t, online, "online")
		return clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about", Env: []string{name}}).Env[name]
	}
	require.NoError(t, cluster.AutoFork())
	require.Equal(t, "1", generation())

	t.Setenv(name, "2")
	require.NoError(t, cluster.Workers()[0].OSProcess().Kill())
	require.Equal(t, "1", generation())

	results := make(chan cluster.ReloadResult, 1)
	t.Cleanup(cluster.OnReload(func(r cluster.ReloadResult) { results <- r }))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, cluster.Reload(ctx), context.Canceled)
	require.Equal(t, "2", generation())
	require.NoError(t, clustertest.Await(t, results, "result").Err)
}

// TestReloadFailureTellsWhy: the error has the exit and the last lines of the
// new worker's standard error, wherever that goes; the old workers stay, and the
// next reload works.
func TestReloadFailureTellsWhy(t *testing.T) {
	for name, output := range map[string]func(*cluster.Process) (stdout, stderr io.Writer){
		"inherited":  nil,
		"one writer": clustertest.NewLineWriter().Both,
		"stderr": func(*cluster.Process) (stdout, stderr io.Writer) {
			return nil, new(bytes.Buffer)
		},
	} {
		t.Run(name, func(t *testing.T) {
			clustertest.WithMaster(t, versioned, cluster.Options{Workers: 2, Output: output})
			listening := clustertest.Listenings(t)
			require.NoError(t, cluster.AutoFork())
			for range 2 {
				clustertest.Await(t, listening, "listening")
			}
			old, before := cluster.Workers(), cluster.Stats().Generation
			o := cluster.Settings()
			good := o.Env
			o.Env = append(o.Env, "BROKEN=the configuration is wrong")
			require.NoError(t, cluster.SetupMaster(o))
			results := make(chan cluster.ReloadResult, 1)
			t.Cleanup(cluster.OnReload(func(r cluster.ReloadResult) { results <- r }))
			err := cluster.Reload(clustertest.Within(t, clustertest.Patience))
			require.ErrorContains(t, err, "slot 0")
			require.ErrorContains(t, err, "exit status 3")
			require.ErrorContains(t, err, "the configuration is wrong")
			r := clustertest.Await(t, results, "result")
			require.Equal(t, err, r.Err)
			require.Zero(t, r.Replaced)
			require.Equal(t, before, r.Generation)
			require.Equal(t, old, cluster.Workers())
			for _, w := range old {
				require.Equal(t, cluster.Ready, w.State())
			}
			o.Env = good
			require.NoError(t, cluster.SetupMaster(o))
			require.NoError(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)))
			r = clustertest.Await(t, results, "result")
			require.NoError(t, r.Err)
			require.Equal(t, 2, r.Replaced)
			require.Greater(t, r.Generation, before)
			require.Equal(t, r.Generation, cluster.Stats().Generation)
			for _, w := range old {
				require.True(t, w.IsDead(), "it is done when they are gone")
			}
		})
	}
}

// TestReloadInTheWrongPlace: without AutoFork there is nothing to reload.
func TestReloadInTheWrongPlace(t *testing.T) {
	require.ErrorIs(t, cluster.Reload(context.Background()), cluster.ErrNoWorkers)
}

// inWorker is a worker that calls what only the master may.
var inWorker = clustertest.Program("in-worker", func() {
	cluster.Respond("errors", func(*cluster.Process, clustertest.Order) (string, error) {
		if errors.Is(cluster.Reload(context.Background()), cluster.ErrNotMaster) && errors.Is(cluster.Scale(1), cluster.ErrNotMaster) &&
			cluster.Stats().PID == 0 {
			return "as expected", nil
		}
		return "", nil
	})
	select {}
})

// TestSupervisionIsTheMasters: Reload, Scale and Stats do nothing in a worker.
func TestSupervisionIsTheMasters(t *testing.T) {
	clustertest.WithMaster(t, inWorker, cluster.Options{})
	require.Equal(t, "as expected", clustertest.Ask[string](t, clustertest.Fork(t), clustertest.Order{Cmd: "errors"}))
}

// ---- no request is lost

// TestReloadLosesNothing: reload after reload under the load of clients that
// keep their connection until they are told to close it, that have a new one for
// each request, and that speak something else than HTTP: not one request fails,
// and once Reload has returned no old worker answers.
//
// With CLUSTER_LONG=1 there are 20 reloads and 100 000 requests for each.
func TestReloadLosesNothing(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	reloads, requests := 2, int64(300)
	if clustertest.Long() {
		reloads, requests = 20, 100_000
	}
	for _, network := range clustertest.System.Networks {
		for _, scheduling := range []cluster.Scheduling{cluster.Shared, cluster.RoundRobin} {
			t.Run(fmt.Sprint(network, " ", scheduling), func(t *testing.T) {
				l := &clustertest.Load{T: t, Network: network, Body: bytes.Repeat([]byte("x"), 16<<10), Stop: make(chan struct{})}
				l.HTTP, l.Raw = clustertest.UnusedAddress(t, network, "http"), clustertest.UnusedAddress(t, network, "raw")
				clustertest.WithMaster(t, clustertest.Echoing, cluster.Options{Workers: 2, Scheduling: scheduling,
					Env: []string{"NETWORK=" + network, "HTTP=" + l.HTTP, "RAW=" + l.Raw}})
				clustertest.LoseNothing(t, l, reloads, requests, 2, l.KeepAlive(), l.KeepAlive(), l.KeepAlive(),
					l.OneShot, l.OneShot, l.OneShot, l.Session, l.Session, l.Session)
			})
		}
	}
}

// TestHungWorker: one that is stopped, that spins with its channel unread, or of
// which a check does not return, is found, asked for its goroutines, and
// replaced.
func TestHungWorker(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env  []string
		hang syscall.Signal
		dump string
	}{
		"stopped":      {nil, clustertest.SigStop, ""},
		"spins":        {[]string{"TROUBLE=spin", "GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=1"}, clustertest.SigPoke, "[running]"},
		"check blocks": {[]string{"TROUBLE=check blocks"}, clustertest.SigPoke, "clustertest.blockedCheck"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, ups := clustertest.Supervise(t, clustertest.Supervision{Workers: 1, Env: c.env, Watchdog: cluster.Watchdog{Interval: clustertest.Tick, Timeout: 3 * time.Second}})
			clustertest.Kill(t, ups[0].PID, c.hang)
			require.Contains(t, p.Expect("error"), cluster.ErrStalled.Error())
			p.Dead(ups[0].PID, cluster.ReasonStall)
			next := p.Event("up")
			require.NotEqual(t, ups[0].PID, next.PID)
			p.Terminate()
			if clustertest.System.Dump {
				require.Equal(t, c.dump != "", strings.Contains(p.Output(), "SIGQUIT"), "a stopped worker cannot dump")
				require.Contains(t, p.Output(), c.dump)
			}
		})
	}
}

// TestFailingCheck: it is reported, and shown by Stats, and kills nobody.
func TestFailingCheck(t *testing.T) {
	t.Parallel()
	p, ups := clustertest.Supervise(t, clustertest.Supervision{Workers: 1, Env: []string{"TROUBLE=check fails"}, Watchdog: cluster.Watchdog{Interval: clustertest.Tick, Timeout: 5 * time.Second}})
	clustertest.Kill(t, ups[0].PID, clustertest.SigPoke)
	require.Contains(t, p.Expect("error"), "the database is down")
	for range 10 { // more than the timeout's worth of questions would take none along
		s := p.Stats()
		require.Equal(t, "the database is down", s.Workers[0].Check)
		require.Equal(t, ups[0].PID, s.Workers[0].PID)
	}
	p.Terminate()
	require.NotContains(t, p.Output(), "stall")
}

// TestBusyWorker: one that computes on all its cores, collects garbage all the
// time and serves beside it answers the master, late as it may be.
func TestBusyWorker(t *testing.T) {
	t.Parallel()
	p, ups := clustertest.Supervise(t, clustertest.Supervision{Workers: 1, Env: []string{"TROUBLE=busy", "GOMAXPROCS=1"}, Watchdog: cluster.Watchdog{Interval: clustertest.Tick}})
	clustertest.Kill(t, ups[0].PID, clustertest.SigPoke)
	for range 5 {
		begun := time.Now()
		answer, err := clustertest.Get("http://127.0.0.1:" + ups[0].Rest[0])
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(ups[0].PID), answer)
		clustertest.Eventually(t, func() bool {
			w := p.Stats().Workers[0]
			return w.PID == ups[0].PID && w.HeartbeatAge < cluster.Seconds(time.Since(begun))
		}, "a heartbeat of a busy worker")
	}
	p.Signal(syscall.SIGKILL) // it is too busy to drain at once
	p.Exit()
	p.GroupEmpty()
	require.NotContains(t, p.Output(), "stall")
}

// TestPausedMaster: one that was stopped for longer than the timeout kills
// nobody when it goes on.
func TestPausedMaster(t *testing.T) {
	t.Parallel()
	p, ups := clustertest.Supervise(t, clustertest.Supervision{Workers: 2, Watchdog: cluster.Watchdog{Interval: clustertest.Tick, Timeout: 2 * time.Second}})
	p.Signal(clustertest.SigStop)
	time.Sleep(3 * time.Second) // nothing tells that time has passed but time
	p.Signal(clustertest.SigCont)
	clustertest.Eventually(t, func() bool {
		s := p.Stats()
		return s.Workers[0].HeartbeatAge < cluster.Seconds(time.Second) && s.Workers[1].HeartbeatAge < cluster.Seconds(time.Second)
	}, "heartbeats")
	for i, w := range p.Stats().Workers {
		require.Equal(t, ups[i].PID, w.PID)
	}
	p.Terminate()
	require.NotContains(t, p.Output(), "stall")
}

// listensAndDies listens, and with DIES set ends right after it: its certificate
// does not load.
var listensAndDies = clustertest.Program("listens and dies", func() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	if os.Getenv("DIES") != "" {
		os.Exit(3)
	}
	clustertest.AnswerConns(ln)
})

// TestReloadHoldsTheReplacement: a new worker that dies right after it got ready
// fails the reload, and the old workers stay.
func TestReloadHoldsTheReplacement(t *testing.T) {
	o := cluster.Options{Workers: 2, ReadyFor: clustertest.Patience}
	clustertest.WithMaster(t, listensAndDies, o)
	listening := clustertest.Listenings(t)
	require.NoError(t, cluster.AutoFork())
	clustertest.Await(t, listening, "listening")
	clustertest.Await(t, listening, "listening")
	old := cluster.Workers()

	o.Env = []string{clustertest.ProgramEnv + "=" + listensAndDies, "DIES=1"}
	require.NoError(t, cluster.SetupMaster(o))
	err := cluster.Reload(clustertest.Within(t, clustertest.Patience))
	require.ErrorContains(t, err, "exit status 3")
	require.Equal(t, old, cluster.Workers(), "the old ones serve on")
	for _, w := range old {
		require.Equal(t, cluster.Ready, w.State())
	}
}
