//go:build unix

package cluster_test

import (
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// A worker that is stopped before it has listened exits with 0 as well, whoever
// stops it.
func TestDrainBeforeListening(t *testing.T) {
	withMaster(t, late, cluster.Options{})
	rec, dead := lines(t), deaths(t)
	for range 5 {
		w := forkOne(t)
		rec.until(t, "up")
		require.NoError(t, w.Disconnect(t.Context()))
		require.Equal(t, 0, await(t, dead, "death").e.Code)
		w = forkOne(t)
		rec.until(t, "up")
		require.NoError(t, w.OSProcess().Signal(syscall.SIGTERM))
		require.Equal(t, 0, await(t, dead, "death").e.Code)
	}
}
