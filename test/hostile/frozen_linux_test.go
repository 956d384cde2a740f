package hostile_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// freezer makes a cgroup whose processes can be frozen. In version 1 (cgroups(7)) even SIGKILL
// waits there.
func freezer(t *testing.T) (freeze func(pid int), thaw func()) {
	t.Helper()
	dir := filepath.Join("/sys/fs/cgroup/freezer", "cluster-test-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("nothing can be frozen here: %v", err)
	}
	write := func(file, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644))
	}
	thaw = func() { write("freezer.state", "THAWED") }
	t.Cleanup(func() {
		thaw()
		clustertest.Eventually(t, func() bool { return os.Remove(dir) == nil }, "the processes to end")
	})
	return func(pid int) {
		thaw()
		write("cgroup.procs", strconv.Itoa(pid))
		write("freezer.state", "FROZEN")
		clustertest.Eventually(t, func() bool {
			b, _ := os.ReadFile(filepath.Join(dir, "freezer.state"))
			return string(b) == "FROZEN\n"
		}, "it is frozen")
	}, thaw
}

// TestFrozenWorker: neither a reload nor a stop waits for a process that nothing can
// end. The error names it.
func TestFrozenWorker(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	clustertest.WithMaster(t, clustertest.Troublemaker, cluster.Options{Workers: 1, ShutdownTimeout: 100 * time.Millisecond})
	freeze, thaw := freezer(t)
	readies := clustertest.Listenings(t)
	require.NoError(t, cluster.AutoFork())
	w := clustertest.Await(t, readies, "the first worker")
	freeze(w.PID())
	require.ErrorContains(t, cluster.Reload(context.Background()), strconv.Itoa(w.PID()))
	require.True(t, w.IsDead())
	thaw()
	clustertest.Eventually(t, func() bool { return !clustertest.Runs(w.PID()) }, "its end")

	w = clustertest.Await(t, readies, "the second worker")
	require.Equal(t, cluster.Ready, w.State())
	freeze(w.PID())
	err := cluster.Disconnect(context.Background())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, strconv.Itoa(w.PID()))
	thaw()
	clustertest.Eventually(t, func() bool { return !clustertest.Runs(w.PID()) }, "its end")
}
