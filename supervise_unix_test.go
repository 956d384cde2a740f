//go:build unix

package cluster

import (
	"os"
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

// TestRefusedAutoForkHoldsNothing: the program that it has looked up is closed
// again, whether it was refused or had nothing to do.
func TestRefusedAutoForkHoldsNothing(t *testing.T) {
	held := func() (n int) {
		dir, err := os.Open("/dev/fd")
		require.NoError(t, err)
		defer dir.Close()
		names, err := dir.Readdirnames(-1)
		require.NoError(t, err)
		return len(names)
	}
	synctest.Test(t, func(t *testing.T) {
		n, all := born(t, Options{Workers: 1, Exec: "/bin/sh"})
		p := all[0]
		before := held()
		for range 20 {
			require.NoError(t, n.m.autoFork())
		}
		n.in(func(m *master) { m.beginStop() })
		for range 20 {
			require.ErrorIs(t, n.m.autoFork(), ErrClosed)
		}
		// The stop has closed the one that was in use.
		require.LessOrEqual(t, held(), before)
		n.die(p, nil)
	})
}
