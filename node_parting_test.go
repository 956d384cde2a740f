//go:build unix

package cluster_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// TestNodeDisconnectWhileListening: a node worker that is granted an address
// after it has begun to disconnect would keep listening, without a channel, and
// never end. So the grant comes in time, or not at all, or is taken back.
func TestNodeDisconnectWhileListening(t *testing.T) {
	if apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		t.Run("by the master, before the grant", func(t *testing.T) {
			asked, allowed := make(chan struct{}), make(chan struct{})
			c := newNodeCluster(t, cluster.Options{Scheduling: s, AllowListen: func(*cluster.Process, string, string) error {
				close(asked)
				<-allowed
				return nil
			}})
			w := c.fork()
			c.order(w, `web().listen(0)`)
			await(t, asked, "queryServer")
			ended := make(chan error, 1)
			go func() { ended <- w.Disconnect(context.Background()) }()
			eventually(t, func() bool { return w.State() >= cluster.Draining }, "the drain")
			close(allowed)
			require.NoError(t, await(t, ended, "end of Disconnect"))
			require.Equal(t, "0 <nil> true true", c.death(w))
		})
		t.Run("by the worker, before the grant", func(t *testing.T) {
			allowed := make(chan struct{})
			c := newNodeCluster(t, cluster.Options{Scheduling: s, AllowListen: func(*cluster.Process, string, string) error {
				<-allowed
				return nil
			}})
			w := c.fork()
			c.order(w, `web().listen(0); cluster.worker.disconnect()`)
			eventually(t, w.ExitedAfterDisconnect, "exitedAfterDisconnect")
			close(allowed)
			require.Equal(t, "0 <nil> true true", c.death(w))
		})
		// The worker reads the grant only after it has said that it disconnects.
		t.Run("by the worker, across the grant", func(t *testing.T) {
			c := newNodeCluster(t, cluster.Options{Scheduling: s})
			w := c.fork()
			c.order(w, `
				web().listen(0);
				Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
				cluster.worker.disconnect()`)
			require.Equal(t, "0 <nil> true true", c.death(w))
		})
		// kill does not wait for connections, which the order to disconnect would.
		t.Run("kill with a connection open", func(t *testing.T) {
			c := newNodeCluster(t, cluster.Options{Scheduling: s})
			w := c.fork()
			slow := getting("http://" + c.web(w) + "/slow")
			c.find(t, fmt.Sprintf(`message %d {"event":"slow"}`, w.ID()))
			c.order(w, `cluster.worker.kill()`)
			require.Equal(t, "0 <nil> true true", c.death(w))
			require.Contains(t, await(t, slow, "end of the request"), "error")
		})
	})
}
