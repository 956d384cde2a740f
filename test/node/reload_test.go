//go:build unix

package node_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
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
	port := strconv.Itoa(clustertest.FreePort(t))
	o.Exec, o.Args, o.Workers = clustertest.NodeBinary(t), []string{script, port}, 2
	clustertest.WithMaster(t, "", o)
	listening := make(chan int, 100)
	t.Cleanup(cluster.OnListening(func(w *cluster.Process, _ net.Addr) { listening <- w.ID() }))
	require.NoError(t, cluster.AutoFork())
	clustertest.Await(t, listening, "first worker")
	clustertest.Await(t, listening, "second worker")
	return port
}

// getFromNode fetches url. Node from version 26 on may close a new connection before
// anything of a request has come, as docs/node.md says: then it asks again.
func getFromNode(t *testing.T) func(url string) error {
	hasty := clustertest.NodeMajor(t) >= 26
	return func(url string) error {
		for {
			_, err := clustertest.Get(url)
			closed := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
			if !hasty || !closed {
				return err
			}
		}
	}
}

// TestReloadOfNodeWorkers: node workers are replaced like Go workers, one by
// one, each ready before its predecessor drains, and no request is lost.
func TestReloadOfNodeWorkers(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		url, get := "http://127.0.0.1:"+nodeServer(t, cluster.Options{Scheduling: s}), getFromNode(t)
		var clients sync.WaitGroup
		var done atomic.Bool
		var answered atomic.Int64
		for range 3 {
			clients.Go(func() {
				for !done.Load() {
					if err := get(url); err != nil {
						t.Error(err)
						return
					}
					answered.Add(1)
				}
			})
		}
		for range 2 {
			old := cluster.Workers()
			require.NoError(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)))
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

// TestReloadOfNodeWorkersLosesNothing is TestReloadLosesNothing with node
// workers, over tcp and unix: reload after reload not one request fails, and no
// old worker answers afterwards.
//
// One thing is node's, not ours: its server.close closes connections on which no
// request is under way at once, in the middle of what a client may just be
// sending. HTTP has it that a client may try again then, on a new connection, if
// no byte of an answer has come; those that keep theirs do so here. (net/http's
// client does it too, but not when it fails while it writes a body.) What fails
// on the new one is lost; and one-shot clients never try again.
//
// From version 26 on server.close closes new connections too, if nothing of a request
// has come over them: then all clients try again. docs/node.md says both.
//
// With CLUSTER_LONG=1 there are 20 reloads and 10 000 requests for each.
func TestReloadOfNodeWorkersLosesNothing(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	reloads, requests := 2, int64(300)
	if clustertest.Long() {
		reloads, requests = 20, 10_000
	}
	for _, network := range []string{"tcp", "unix"} {
		schedulings(t, func(t *testing.T, s cluster.Scheduling) {
			l := &clustertest.Load{T: t, Network: network, Body: bytes.Repeat([]byte("x"), 16<<10), Stop: make(chan struct{})}
			l.Hasty = clustertest.NodeMajor(t) >= 26
			l.HTTP = clustertest.UnusedAddress(t, network, "http")
			address := l.HTTP
			if network == "tcp" {
				_, address, _ = net.SplitHostPort(address)
			}
			clustertest.WithMaster(t, "", cluster.Options{Exec: clustertest.NodeBinary(t), Args: []string{clustertest.NodeScript(t, "echo.js"), address}, Workers: 2, Scheduling: s})
			clustertest.LoseNothing(t, l, reloads, requests, 1, l.Patient(), l.Patient(), l.Patient(), l.OneShot, l.OneShot, l.OneShot)
		})
	}
}

// TestRecycleOfNodeWorkers: under RoundRobin the master counts the connections
// that it hands to a node worker, and replaces it at its limit.
func TestRecycleOfNodeWorkers(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	reasons := make(chan cluster.Reason, 100)
	url := "http://127.0.0.1:" + nodeServer(t, cluster.Options{Scheduling: cluster.RoundRobin,
		Recycle: cluster.Recycle{Connections: 10, MinAge: time.Millisecond, Jitter: -1}})
	t.Cleanup(cluster.OnDeath(func(_ *cluster.Process, e cluster.Exit) { reasons <- e.Reason }))
	get := getFromNode(t)
	for {
		require.NoError(t, get(url))
		select {
		case why := <-reasons:
			require.Equal(t, cluster.ReasonRecycle, why)
			require.GreaterOrEqual(t, len(cluster.Workers()), 2) // the other may be on its way out
			return
		default:
		}
	}
}
