//go:build unix

package cluster_test

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// nodeServer makes the test process the master of two node workers that serve
// HTTP, and returns the port once they do.
func nodeServer(t *testing.T, o cluster.Options) string {
	t.Helper()
	script := filepath.Join(t.TempDir(), "server.js")
	require.NoError(t, os.WriteFile(script, []byte(`
		require('http').createServer((request, response) => setTimeout(() => response.end('ok'), 2))
			.listen(+process.argv[2], '127.0.0.1')`), 0o644))
	port := itoa(freePort(t))
	o.Exec, o.Args, o.Workers = nodeBinary(t), []string{script, port}, 2
	withMaster(t, "", o)
	listening := make(chan int, 100)
	hook(t, cluster.OnListening(func(w *cluster.Process, _ net.Addr) { listening <- w.ID() }))
	require.NoError(t, cluster.AutoFork())
	await(t, listening, "first worker")
	await(t, listening, "second worker")
	return port
}

// TestReloadOfNodeWorkers: node workers are replaced like Go workers, one by
// one, each ready before its predecessor drains, and no request is lost.
func TestReloadOfNodeWorkers(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		url := "http://127.0.0.1:" + nodeServer(t, cluster.Options{Scheduling: s})
		var clients sync.WaitGroup
		var done atomic.Bool
		var answered atomic.Int64
		for range 3 {
			clients.Go(func() {
				for !done.Load() {
					if _, err := get(url); err != nil {
						t.Error(err)
						return
					}
					answered.Add(1)
				}
			})
		}
		for range 2 {
			old := cluster.Workers()
			require.NoError(t, cluster.Reload(within(t, patience)))
			for _, w := range old {
				require.True(t, w.IsDead())
			}
			require.Len(t, cluster.Workers(), 2)
		}
		done.Store(true)
		clients.Wait()
		require.Positive(t, answered.Load())
	})
}

// TestRecycleOfNodeWorkers: under RoundRobin the master counts the connections
// that it hands to a node worker, and replaces it at its limit.
func TestRecycleOfNodeWorkers(t *testing.T) {
	reasons := make(chan cluster.Reason, 100)
	url := "http://127.0.0.1:" + nodeServer(t, cluster.Options{Scheduling: cluster.RoundRobin,
		Recycle: cluster.Recycle{Connections: 10, MinAge: time.Millisecond, Jitter: -1}})
	hook(t, cluster.OnDeath(func(_ *cluster.Process, e cluster.Exit) { reasons <- e.Reason }))
	for {
		_, err := get(url)
		require.NoError(t, err)
		select {
		case why := <-reasons:
			require.Equal(t, cluster.ReasonRecycle, why)
			require.GreaterOrEqual(t, len(cluster.Workers()), 2) // the other may be on its way out
			return
		default:
		}
	}
}
