//go:build unix

package cluster_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// versionMaster is a master that prints, for each worker, the pid and the file
// that it runs; its workers are the program of the environment.
var versionMaster = clustertest.Program("version-master", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 1, Env: []string{clustertest.ProgramEnv + "=" + clustertest.CommandWorker}}))
	cluster.OnOnline(func(w *cluster.Process) {
		var a clustertest.About
		clustertest.Must(w.Request(context.Background(), clustertest.Order{Cmd: "about"}, &a))
		fmt.Println("worker", w.PID(), a.Slot)
	})
	cluster.OnError(func(_ *cluster.Process, err error) { fmt.Println("error", err) })
	clustertest.Must(cluster.Run(context.Background()))
})

// TestRespawnRunsTheMastersBinary: after another program was put in the place
// of the binary, or nothing, a crashed worker is still replaced by the version
// that the master runs.
func TestRespawnRunsTheMastersBinary(t *testing.T) {
	t.Parallel()
	other, err := exec.LookPath("false")
	require.NoError(t, err)
	binary := filepath.Join(clustertest.TempDir(t), "server")
	clustertest.CopyBinary(t, binary)
	p := clustertest.StartCmd(t, exec.Command(binary), versionMaster)
	pid := func() (pid int) {
		_, err := fmt.Sscan(p.Expect("worker"), &pid, new(int))
		require.NoError(t, err)
		return pid
	}
	first := pid()
	require.NoError(t, os.Remove(binary))
	require.NoError(t, os.Symlink(other, binary))
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	second := pid()
	require.NotEqual(t, first, second)
	require.NoError(t, os.Remove(binary))
	require.NoError(t, syscall.Kill(second, syscall.SIGKILL))
	require.NotEqual(t, second, pid())
	p.Signal(syscall.SIGTERM)
	require.Zero(t, p.Exit())
	p.GroupEmpty()
	require.NotContains(t, p.Output(), "error")
}
