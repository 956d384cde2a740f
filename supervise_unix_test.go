//go:build unix

package cluster

import (
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// TestProbeIsNotVoluntary: signal 0 asks whether the worker exists, and leaves
// it and its slot as they are.
func TestProbeIsNotVoluntary(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := born(t, Options{Workers: 1})
		defer n.stop()
		p := all[0]
		require.NoError(t, n.m.killWorker(p, syscall.Signal(0)))
		n.die(p, exit[1])
		n.fork()
	})
}
