//go:build unix

package cluster_test

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

// TestReloadOfOptionsExec: the program of Options.Exec is held as well: what a
// deployment puts in its place comes with the reload. A script is executed by
// its path, at every fork.
func TestReloadOfOptionsExec(t *testing.T) {
	dir := clustertest.TempDir(t)
	link := filepath.Join(dir, "program")
	v1, v2 := filepath.Join(dir, "v1"), filepath.Join(dir, "v2")
	clustertest.CopyBinary(t, v1)
	clustertest.CopyBinary(t, v2)
	script := func(version string) {
		clustertest.WriteProgram(t, link+".sh", []byte("#!/bin/sh\nexec "+version+" \"$@\"\n"))
	}
	exe := func(w *cluster.Process) string {
		return clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about"}).Exe
	}
	for name, c := range map[string]struct {
		exec   string
		deploy func(version string)
		pinned bool
	}{
		"binary": {link, func(v string) { moveLink(t, v, link) }, true},
		"script": {link + ".sh", script, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.deploy(v1)
			clustertest.WithMaster(t, versioned, cluster.Options{Workers: 1, Exec: c.exec})
			listening := clustertest.Listenings(t)
			require.NoError(t, cluster.AutoFork())
			w := clustertest.Await(t, listening, "listening")
			require.Equal(t, v1, exe(w))
			c.deploy(v2)
			require.NoError(t, w.OSProcess().Kill())
			w = clustertest.Await(t, listening, "listening")
			if c.pinned {
				require.Equal(t, v1, exe(w))
			} else {
				require.Equal(t, v2, exe(w))
			}
			require.NoError(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)))
			require.Equal(t, v2, exe(clustertest.Await(t, listening, "listening")))
		})
	}
}

// TestStderrIsHandedOver: what a worker says before it is ready passes through
// the master; from then on its standard error is the master's own.
func TestStderrIsHandedOver(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{})
	fd2 := func(pid string) string {
		file, err := os.Readlink("/proc/" + pid + "/fd/2")
		require.NoError(t, err)
		return file
	}
	w := clustertest.Fork(t)
	pid := strconv.Itoa(w.PID())
	clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about"})
	require.NotEqual(t, fd2("self"), fd2(pid))
	clustertest.Ask[string](t, w, clustertest.Order{Cmd: "listen"})
	clustertest.Eventually(t, func() bool { return fd2(pid) == fd2("self") }, "the master's standard error in the worker")
}

// TestMasterOutlivesItsStderr: that nobody reads the master's standard error any
// more ends neither it nor a worker that has something to say before it is ready.
func TestMasterOutlivesItsStderr(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	r.Close()
	defer w.Close()
	s := clustertest.Supervision{Workers: 1, Env: []string{"FAIL=" + os.Args[0]}, MaxBootFailures: -1, Quiet: true} // it says so and exits
	cmd := exec.Command("/bin/sh", "-c", `exec "$0" 2>&3 3>&-`, os.Args[0])
	cmd.ExtraFiles = []*os.File{w}
	p := clustertest.StartCmd(t, cmd, clustertest.Supervisor, clustertest.SuperviseEnv(t, &s, nil)...)
	for range 4 {
		require.Equal(t, []string{"crash", "3"}, p.Event("dead").Rest)
	}
	p.Terminate()
}

// TestSignalsOfRun: HUP reloads, TTIN and TTOU scale, not under one. Workers
// leave these signals to the master, as they come to the whole group of a
// terminal.
func TestSignalsOfRun(t *testing.T) {
	t.Parallel()
	p, ups := clustertest.Supervise(t, clustertest.Supervision{Workers: 1})
	group := func(sig syscall.Signal) { clustertest.Kill(t, -p.Cmd.Process.Pid, sig) }
	group(syscall.SIGTTIN)
	second := p.Event("up")
	require.Equal(t, 1, second.Slot)
	require.Equal(t, 2, p.Stats().Target)
	group(syscall.SIGTTOU)
	p.Dead(second.PID, cluster.ReasonScale)
	group(syscall.SIGTTOU)
	group(syscall.SIGHUP)
	rests := p.All("up 0 ", "reload ", clustertest.Died(ups[0], cluster.ReasonReload))
	require.Equal(t, "1 2 <nil>", rests[1])
	s := p.Stats()
	require.Equal(t, 1, s.Target)
	require.Equal(t, clustertest.ParseEvent("0 "+rests[0]).PID, s.Workers[0].PID)
	p.Terminate()
}

// TestNoSignals: they are the program's own; even SIGTERM does what it does to
// any program, and the workers drain as their master is gone.
func TestNoSignals(t *testing.T) {
	t.Parallel()
	p, ups := clustertest.Supervise(t, clustertest.Supervision{Workers: 1, NoSignals: true})
	p.Signal(syscall.SIGHUP)
	p.Expect("own hangup")
	s := p.Stats()
	require.Equal(t, ups[0].PID, s.Workers[0].PID)
	require.Equal(t, 1, s.Generation)
	p.Signal(syscall.SIGTERM)
	require.Equal(t, -1, p.Exit())
	p.GroupEmpty()
}

// moveLink makes path lead to file, in one step, as a deployment does.
func moveLink(t *testing.T, file, path string) {
	t.Helper()
	require.NoError(t, os.Symlink(file, path+".new"))
	require.NoError(t, os.Rename(path+".new", path))
}

// TestReloadRunsTheNewBinary: a reload takes the file to which the master's path
// leads now; a crashed worker is replaced by what its slot ran. When there is no
// such file the reload fails, and the old workers go on.
func TestReloadRunsTheNewBinary(t *testing.T) {
	t.Parallel()
	dir := clustertest.TempDir(t)
	v1, v2, current := filepath.Join(dir, "v1"), filepath.Join(dir, "v2"), filepath.Join(dir, "current")
	clustertest.CopyBinary(t, v1)
	clustertest.CopyBinary(t, v2)
	moveLink(t, v1, current)
	s := clustertest.Supervision{Workers: 2}
	p := clustertest.StartCmd(t, exec.Command(current), clustertest.Supervisor, clustertest.SuperviseEnv(t, &s, nil)...)
	ups := p.Ups(2)
	runs := func(e clustertest.Event, exe string) {
		t.Helper()
		require.Equal(t, exe, e.Rest[1])
	}
	runs(ups[0], v1)
	moveLink(t, v2, current)
	clustertest.Kill(t, ups[0].PID, syscall.SIGKILL)
	ups[0] = p.Event("up")
	runs(ups[0], v1)

	p.Signal(syscall.SIGHUP)
	rests := p.All("up 0 ", "up 1 ", "reload", clustertest.Died(ups[0], cluster.ReasonReload), clustertest.Died(ups[1], cluster.ReasonReload))
	for i := range ups {
		ups[i] = clustertest.ParseEvent(strconv.Itoa(i) + " " + rests[i])
		runs(ups[i], v2)
	}
	require.Equal(t, " 2 2 <nil>", rests[2])

	moveLink(t, filepath.Join(dir, "v3"), current)
	p.Signal(syscall.SIGHUP)
	require.Contains(t, p.Expect("reload 0 2"), "no such file")
	clustertest.Kill(t, ups[1].PID, syscall.SIGKILL)
	runs(p.Event("up"), v2)
	p.Terminate()
}
