package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

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

// TestReloadContextIsTheCallsAlone: a call that is given up returns at once, and the
// reload goes on. What it starts has the environment of that time, and a slot that
// was not reloaded goes on with its own.
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
