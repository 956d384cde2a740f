package hostile_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// withoutProc runs the test binary, copied to path, where nothing is in /proc, under the
// name argv0.
func withoutProc(t *testing.T, path, argv0 string) *exec.Cmd {
	t.Helper()
	args := []string{"-m", "bash", "-c", `mount -t tmpfs none /proc && exec -a "$1" "$2"`, "bash", argv0, path}
	if os.Getuid() != 0 {
		args = append([]string{"-r"}, args...)
	}
	return exec.Command("unshare", args...)
}

// TestNoProc: without /proc, as in a chroot, workers are what lies at the path by which
// the master was started, and after a reload what the symbolic link there leads to then.
func TestNoProc(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, release := range []string{"1", "2"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, release), 0o755))
		clustertest.CopyBinary(t, filepath.Join(dir, release, "program"))
	}
	current := filepath.Join(dir, "current")
	require.NoError(t, os.Symlink("1", current))
	program := filepath.Join(current, "program")
	s := clustertest.Supervision{Workers: 2}
	p := clustertest.StartCmd(t, withoutProc(t, program, program), clustertest.Supervisor, clustertest.SuperviseEnv(t, &s, nil)...)
	runs := func(e clustertest.Event) string {
		exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(e.PID), "exe")) // here there is one
		require.NoError(t, err)
		return filepath.Base(filepath.Dir(exe))
	}
	ups := p.Ups(2)
	require.Equal(t, "1", runs(ups[0]))
	require.Equal(t, int64(0), p.Stats().Workers[0].RSS, "which nobody can tell")

	require.NoError(t, os.Remove(current))
	require.NoError(t, os.Symlink("2", current))
	clustertest.Kill(t, ups[0].PID, syscall.SIGKILL)
	p.Dead(ups[0].PID, cluster.ReasonCrash)
	require.Equal(t, "1", runs(p.Event("up")), "no other program without a reload")
	p.Signal(syscall.SIGHUP)
	for range 2 {
		require.Equal(t, "2", runs(p.Event("up")))
	}
	require.Equal(t, "2 2 <nil>", p.Expect("reload "))
	p.Terminate()
}

// TestNoProcNoPath: if the name by which the master was started leads nowhere either,
// the error says what is missing.
func TestNoProcNoPath(t *testing.T) {
	t.Parallel()
	p := clustertest.StartCmd(t, withoutProc(t, os.Args[0], "no-such-program"), clustertest.Supervisor, clustertest.SuperviseEnv(t, &clustertest.Supervision{Workers: 1}, nil)...)
	require.Contains(t, p.Expect("run "), "mount /proc")
	require.Equal(t, 1, p.Exit())
}
