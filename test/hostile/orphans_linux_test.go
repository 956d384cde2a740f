package hostile_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// asPID1 runs the test binary as PID 1 of a namespace, as in a container.
func asPID1() *exec.Cmd {
	args := []string{"-pf", "--mount-proc", os.Args[0]}
	if os.Getuid() != 0 {
		args = append([]string{"-r"}, args...)
	}
	return exec.Command("unshare", args...)
}

// ended reports whether a process has exited, and nobody or somebody has waited for it.
func ended(pid string) bool {
	b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	return err != nil || bytes.HasPrefix(b[bytes.LastIndexByte(b, ')')+1:], []byte(" Z"))
}

// TestPID1: as the first process of a container the master waits for the
// children of those that have died, and for its own workers no less; SIGTERM
// ends it with 0.
func TestPID1(t *testing.T) {
	t.Parallel()
	s := clustertest.Supervision{Workers: 1, Env: []string{"TROUBLE=orphan"}}
	p := clustertest.StartCmd(t, asPID1(), clustertest.Supervisor, clustertest.SuperviseEnv(t, &s, nil)...)
	p.Ups(1)
	master := clustertest.Children(p.Cmd.Process.Pid)
	require.Len(t, master, 1)
	pid := clustertest.Atoi(master[0])
	worker := clustertest.Children(pid)
	require.Len(t, worker, 1)

	clustertest.Kill(t, clustertest.Atoi(worker[0]), syscall.SIGUSR1)
	orphan := ""
	clustertest.Eventually(t, func() bool {
		for _, c := range clustertest.Children(pid) {
			if c != worker[0] {
				orphan = c
			}
		}
		return orphan != ""
	}, "an orphan")
	clustertest.Kill(t, clustertest.Atoi(orphan), syscall.SIGKILL)
	clustertest.Eventually(t, func() bool { return ended(orphan) }, "its end")
	clustertest.Eventually(t, func() bool { return len(clustertest.Children(pid)) == 1 }, "that somebody waits for it")

	clustertest.Kill(t, clustertest.Atoi(worker[0]), syscall.SIGKILL)
	require.Equal(t, []string{"crash", "-1"}, p.Event("dead").Rest, "not waited for by another")
	p.Event("up")
	clustertest.Kill(t, pid, syscall.SIGTERM)
	require.Zero(t, p.Exit())
}
