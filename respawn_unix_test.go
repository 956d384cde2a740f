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
	"github.com/stretchr/testify/require"
)

// versionMaster is a master that prints, for each worker, the pid and the file
// that it runs; its workers are the program of the environment.
var versionMaster = program("version-master", func() {
	die(cluster.SetupMaster(cluster.Options{Workers: 1, Env: []string{programEnv + "=" + obedient}}))
	cluster.OnOnline(func(w *cluster.Process) {
		var a about
		die(w.Request(context.Background(), order{Cmd: "about"}, &a))
		fmt.Println("worker", w.PID(), a.Slot)
	})
	cluster.OnError(func(_ *cluster.Process, err error) { fmt.Println("error", err) })
	die(cluster.Run(context.Background()))
})

// TestRespawnRunsTheMastersBinary: after another program was put in the place
// of the binary, or nothing, a crashed worker is still replaced by the version
// that the master runs.
func TestRespawnRunsTheMastersBinary(t *testing.T) {
	t.Parallel()
	other, err := exec.LookPath("false")
	require.NoError(t, err)
	binary := filepath.Join(tempDir(t), "server")
	copyBinary(t, binary)
	p := startCmd(t, exec.Command(binary), versionMaster)
	pid := func() (pid int) {
		_, err := fmt.Sscan(p.expect("worker"), &pid, new(int))
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
	p.signal(syscall.SIGTERM)
	require.Zero(t, p.exit())
	p.groupEmpty()
	require.NotContains(t, p.output(), "error")
}
