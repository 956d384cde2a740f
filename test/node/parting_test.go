//go:build unix

package node_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestNodeDisconnectWhileListening: a node worker that is granted an address
// after it has begun to disconnect would keep listening, without a channel, and
// never end. So the grant comes in time, or not at all, or is taken back.
func TestNodeDisconnectWhileListening(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		t.Run("by the master, before the grant", func(t *testing.T) {
			asked, allowed := make(chan struct{}), make(chan struct{})
			c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s, AllowListen: func(*cluster.Process, string, string) error {
				close(asked)
				<-allowed
				return nil
			}})
			w := c.Fork()
			c.Order(w, `web().listen(0)`)
			clustertest.Await(t, asked, "queryServer")
			ended := make(chan error, 1)
			go func() { ended <- w.Disconnect(context.Background()) }()
			clustertest.Eventually(t, func() bool { return w.State() >= cluster.Draining }, "the drain")
			close(allowed)
			require.NoError(t, clustertest.Await(t, ended, "end of Disconnect"))
			require.Equal(t, "0 <nil> true true", c.Death(w))
		})
		t.Run("by the worker, before the grant", func(t *testing.T) {
			allowed := make(chan struct{})
			c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s, AllowListen: func(*cluster.Process, string, string) error {
				<-allowed
				return nil
			}})
			w := c.Fork()
			c.Order(w, `web().listen(0); cluster.worker.disconnect()`)
			clustertest.Eventually(t, w.ExitedAfterDisconnect, "exitedAfterDisconnect")
			close(allowed)
			require.Equal(t, "0 <nil> true true", c.Death(w))
		})
		// The worker reads the grant only after it has said that it disconnects.
		t.Run("by the worker, across the grant", func(t *testing.T) {
			c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
			w := c.Fork()
			c.Order(w, `
				web().listen(0);
				Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
				cluster.worker.disconnect()`)
			require.Equal(t, "0 <nil> true true", c.Death(w))
		})
		// kill does not wait for connections, which the order to disconnect would.
		t.Run("kill with a connection open", func(t *testing.T) {
			c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
			w := c.Fork()
			slow := getLater("http://" + c.Web(w) + "/slow")
			c.Find(t, fmt.Sprintf(`message %d {"event":"slow"}`, w.ID()))
			c.Order(w, `cluster.worker.kill()`)
			require.Equal(t, "0 <nil> true true", c.Death(w))
			require.Contains(t, clustertest.Await(t, slow, "end of the request"), "error")
		})
	})
}
