//go:build unix

package cluster_test

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strconv"
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
	port := strconv.Itoa(freePort(t))
	o.Exec, o.Args, o.Workers = nodeBinary(t), []string{script, port}, 2
	withMaster(t, "", o)
	listening := make(chan int, 100)
	t.Cleanup(cluster.OnListening(func(w *cluster.Process, _ net.Addr) { listening <- w.ID() }))
	require.NoError(t, cluster.AutoFork())
	await(t, listening, "first worker")
	await(t, listening, "second worker")
	return port
}

// TestReloadOfNodeWorkers: node workers are replaced like Go workers, one by
// one, each ready before its predecessor drains, and no request is lost.
func TestReloadOfNodeWorkers(t *testing.T) {
	if apart(t) {
		return
	}
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
// With CLUSTER_LONG=1 there are 20 reloads and 10 000 requests for each.
func TestReloadOfNodeWorkersLosesNothing(t *testing.T) {
	if apart(t) {
		return
	}
	reloads, requests := 2, int64(300)
	if long() {
		reloads, requests = 20, 10_000
	}
	for _, network := range []string{"tcp", "unix"} {
		schedulings(t, func(t *testing.T, s cluster.Scheduling) {
			l := &load{t: t, network: network, body: bytes.Repeat([]byte("x"), 16<<10), stop: make(chan struct{})}
			l.http = unusedAddress(t, network, "http")
			address := l.http
			if network == "tcp" {
				_, address, _ = net.SplitHostPort(address)
			}
			withMaster(t, "", cluster.Options{Exec: nodeBinary(t), Args: []string{nodeScript(t, "echo.js"), address}, Workers: 2, Scheduling: s})
			loseNothing(t, l, reloads, requests, 1, l.patient(), l.patient(), l.patient(), l.oneShot, l.oneShot, l.oneShot)
		})
	}
}

// patient is a client that keeps its connection, and sends a request again, on a
// new one, if the server closes the old one before it answers.
func (l *load) patient() func() error {
	var c *counted
	var r *bufio.Reader
	return func() error {
		for {
			kept := c != nil
			if !kept {
				conn, err := net.Dial(l.network, l.http)
				if err != nil {
					return err
				}
				c = &counted{Conn: conn}
				r = bufio.NewReader(c)
			}
			before := c.read
			closing, err := l.exchange(c, r, false)
			silent := c.read == before
			if closing || l.stopped() {
				c.Close()
				c = nil
			}
			if err == nil || !kept || !silent {
				return err
			}
		}
	}
}

// counted counts what is read.
type counted struct {
	net.Conn
	read int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read += n
	return n, err
}

// TestRecycleOfNodeWorkers: under RoundRobin the master counts the connections
// that it hands to a node worker, and replaces it at its limit.
func TestRecycleOfNodeWorkers(t *testing.T) {
	if apart(t) {
		return
	}
	reasons := make(chan cluster.Reason, 100)
	url := "http://127.0.0.1:" + nodeServer(t, cluster.Options{Scheduling: cluster.RoundRobin,
		Recycle: cluster.Recycle{Connections: 10, MinAge: time.Millisecond, Jitter: -1}})
	t.Cleanup(cluster.OnDeath(func(_ *cluster.Process, e cluster.Exit) { reasons <- e.Reason }))
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
