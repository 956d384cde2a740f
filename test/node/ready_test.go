//go:build unix

package node_test

import (
	"net"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestNodeReady: a node worker is ready when it listens. It is so when OnListening
// looks, and OnReady comes after that, once.
func TestNodeReady(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	rec := clustertest.NewRecorder()
	t.Cleanup(cluster.OnListening(func(w *cluster.Process, _ net.Addr) { rec.Add("listening %v", w.State()) }))
	t.Cleanup(cluster.OnReady(func(w *cluster.Process) { rec.Add("ready %v", w.State()) }))
	w := c.Fork()
	c.Order(w, `web().listen(0)`)
	rec.Until(t, "ready")
	c.Order(w, `web().listen(0)`)
	rec.Until(t, "listening")
	require.Equal(t, []string{"listening ready", "ready ready", "listening ready"}, rec.All())
}
