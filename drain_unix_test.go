//go:build unix

package cluster_test

import (
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// A worker that is stopped before it has listened exits with 0 as well, whoever
// stops it.
func TestDrainBeforeListening(t *testing.T) {
	clustertest.WithMaster(t, late, cluster.Options{})
	rec, dead := lines(t), clustertest.Deaths(t)
	for range 5 {
		w := clustertest.Fork(t)
		rec.Until(t, "up")
		require.NoError(t, w.Disconnect(t.Context()))
		require.Equal(t, 0, clustertest.Await(t, dead, "death").Exit.Code)
		w = clustertest.Fork(t)
		rec.Until(t, "up")
		require.NoError(t, w.OSProcess().Signal(syscall.SIGTERM))
		require.Equal(t, 0, clustertest.Await(t, dead, "death").Exit.Code)
	}
}
