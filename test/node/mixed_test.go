//go:build unix

package node_test

// Clusters of both runtimes.

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestNodeMixed: one Go master, Go and node workers, one port: each serves its
// share, and when those of one kind go the others serve on.
func TestNodeMixed(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s, Env: []string{clustertest.ProgramEnv + "=" + mixed}})
		port := clustertest.FreePort(t)
		addr := "127.0.0.1:" + strconv.Itoa(port)
		node := c.Fork()
		c.Web(node, port)
		o := cluster.Settings()
		o.Exec, o.Args = "", nil
		require.NoError(t, cluster.SetupMaster(o))
		goWorker, err := cluster.Fork("ADDR=" + addr)
		require.NoError(t, err)
		c.Find(t, fmt.Sprintf("listening %d tcp %s", goWorker.ID(), addr))

		want := map[string]bool{"node " + strconv.Itoa(node.ID()): true, "go " + strconv.Itoa(goWorker.ID()): true}
		seen := make(map[string]bool)
		clustertest.Eventually(t, func() bool {
			body, err := clustertest.Get("http://" + addr)
			require.NoError(t, err)
			require.True(t, want[body], body)
			seen[body] = true
			return len(seen) == 2
		}, "an answer of each")
		require.NoError(t, node.Disconnect(t.Context()))
		for range 5 {
			body, err := clustertest.Get("http://" + addr)
			require.NoError(t, err)
			require.Equal(t, "go "+strconv.Itoa(goWorker.ID()), body)
		}
		require.NoError(t, goWorker.Disconnect(t.Context()))
	})
}

// mixed serves at ADDR like the node worker beside it.
var mixed = clustertest.Program("mixed", func() {
	clustertest.Must(cluster.ListenAndServe(os.Getenv("ADDR"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "go %d", cluster.Worker.ID())
	})))
})

// TestNodePrimaryMixed: the same under a node primary, for every kind of address
// that both can listen on.
func TestNodePrimaryMixed(t *testing.T) {
	script := clustertest.NodeScript(t, "worker.js")
	policies(t, func(t *testing.T, n *clustertest.NodePrimary) {
		port := clustertest.FreePort(t)
		for i, c := range []struct {
			network, address string
			node             any // what node's listen gets for the same
		}{
			{"tcp", "127.0.0.1:" + strconv.Itoa(port), map[string]any{"host": "127.0.0.1", "port": port}},
			{"tcp", "[::1]:" + strconv.Itoa(port), map[string]any{"host": "::1", "port": port}},
			{"tcp", ":" + strconv.Itoa(clustertest.FreePort(t)), nil},
			{"unix", filepath.Join(t.TempDir(), "s.sock"), nil},
		} {
			if c.node == nil {
				c.node = strings.TrimPrefix(c.address, ":")
			}
			goWorker, nodeWorker := n.Fork(), 2*i+2
			n.Listen(goWorker, c.network, c.address)
			n.Run(`
				cluster.setupPrimary({exec: args[0]});
				const w = workers[args[1]] = cluster.fork();
				w.send({id: 1, code: 'await listen(web(), args[0])', args: [args[2]]});
				await until(w, 'listening')`, script, nodeWorker, c.node)
			ask := func() string {
				body, err := clustertest.Get("http://" + c.address)
				if c.network == "unix" {
					body, err = getUnix(c.address, "http://unix/")
				}
				require.NoError(t, err)
				return body
			}
			seen := make(map[string]bool)
			clustertest.Eventually(t, func() bool {
				seen[ask()] = true
				return seen["go "+strconv.Itoa(goWorker)] && seen["node "+strconv.Itoa(nodeWorker)]
			}, "an answer of each")
			n.Run(`workers[args[0]].disconnect()`, goWorker)
			require.Equal(t, "0 null true true", n.Exit(goWorker))
			for range 5 {
				require.Equal(t, "node "+strconv.Itoa(nodeWorker), ask())
			}
		}
		address := "127.0.0.1:" + strconv.Itoa(clustertest.FreePort(t))
		w := n.Fork()
		require.Empty(t, n.Do(w, clustertest.GuestOrder{Do: "packet", Network: "udp", Address: address}).Err)
		n.Run(`
			const w = workers[args[1]] = cluster.fork();
			w.send({id: 1, code: "await bind(dgram.createSocket('udp4'), args[0], '127.0.0.1')", args: [args[0]]});
			await until(w, 'listening')`, clustertest.Atoi(address[len("127.0.0.1:"):]), w+1)
	})
}

// TestNodeTwoClusters: of two clusters, one of each kind, the second to want a
// port gets EADDRINUSE, whichever is the first.
func TestNodeTwoClusters(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	n := clustertest.NewNodePrimary(t)
	w, other := c.Fork(), n.Fork()
	r := n.Do(other, clustertest.GuestOrder{Do: "listen", Network: "tcp", Address: c.Web(w)})
	require.True(t, r.InUse, "%+v", r)
	_, port, err := net.SplitHostPort(n.Listen(other, "tcp", "127.0.0.1:0"))
	require.NoError(t, err)
	_, jsErr := c.Try(w, `await listen(web(), args[0], '127.0.0.1')`, clustertest.Atoi(port))
	require.NotNil(t, jsErr)
	require.Equal(t, "EADDRINUSE", jsErr.Code)
	n.End()
}
