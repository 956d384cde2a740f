package cluster_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

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

// zombie reports whether a process has exited and nobody has waited for it.
func zombie(pid string) bool {
	b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	return err == nil && bytes.HasPrefix(b[bytes.LastIndexByte(b, ')')+1:], []byte(" Z"))
}

// TestPID1: as the first process of a container the master waits for the
// children of those that have died, and for its own workers no less; SIGTERM
// ends it with 0.
func TestPID1(t *testing.T) {
	t.Parallel()
	s := supervision{Workers: 1, Env: []string{"TROUBLE=orphan"}}
	p := startCmd(t, asPID1(), supervisor, supervise1(t, &s, nil)...)
	p.ups(1)
	master := children(p.cmd.Process.Pid)
	require.Len(t, master, 1)
	pid := atoi(master[0])
	worker := children(pid)
	require.Len(t, worker, 1)

	kill(t, atoi(worker[0]), syscall.SIGUSR1)
	orphan := ""
	eventually(t, func() bool {
		for _, c := range children(pid) {
			if c != worker[0] {
				orphan = c
			}
		}
		return orphan != ""
	}, "an orphan")
	eventually(t, func() bool { return zombie(orphan) }, "its end")
	eventually(t, func() bool { return len(children(pid)) == 1 }, "that somebody waits for it")

	kill(t, atoi(worker[0]), syscall.SIGKILL)
	require.Equal(t, []string{"crash", "-1"}, p.event("dead").rest, "not waited for by another")
	p.event("up")
	kill(t, pid, syscall.SIGTERM)
	require.Zero(t, p.exit())
}
