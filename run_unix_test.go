//go:build unix

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// activatedBy is the command that a service manager would run with sockets: the
// variable holds the pid of the program itself.
func activatedBy(sockets ...*os.File) *exec.Cmd {
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=`+strconv.Itoa(len(sockets))+` exec "$0"`, os.Args[0])
	cmd.ExtraFiles = sockets
	return cmd
}

// inherited is a listening socket to hand to a program. It is blocking, as those
// of systemd are.
func inherited(t *testing.T, network, address string) (f *os.File, fd int, addr net.Addr) {
	t.Helper()
	ln, err := net.Listen(network, address)
	require.NoError(t, err)
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	f, err = ln.(interface{ File() (*os.File, error) }).File()
	require.NoError(t, err)
	fd = int(f.Fd()) // which makes it blocking: once only
	t.Cleanup(func() { f.Close() })
	ln.Close()
	return f, fd, ln.Addr()
}

// TestSocketActivation: a worker that asks for the address of a socket that the
// service manager opened gets that socket, non-blocking; it survives all
// workers, and a unix socket's file the master. One that nobody asks for is
// named in the log.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "socket")
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": path} {
		f, fd, addr := inherited(t, network, address)
		unused, _, unusedAddr := inherited(t, "tcp", "127.0.0.1:0")
		s := clustertest.Supervision{Workers: 2, Env: []string{"ADDRESS=" + network + " " + addr.String()}}
		p := clustertest.StartCmd(t, activatedBy(unused, f), clustertest.Supervisor, clustertest.SuperviseEnv(t, &s, nil)...)
		p.Ups(2)
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		require.NoError(t, err)
		require.NotZero(t, flags&unix.O_NONBLOCK, "shared with this process")
		clustertest.Eventually(t, func() bool { return strings.Contains(p.Output(), unusedAddr.String()) }, "the log of the socket that is not used")
		require.NotContains(t, p.Output(), "address="+addr.String())
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial(network, addr.String())
		}}}
		resp, err := client.Get("http://cluster/")
		require.NoError(t, err)
		_, err = io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		p.Terminate()
		c, err := net.Dial(network, addr.String())
		require.NoError(t, err, "the socket is the manager's, and listens on")
		c.Close()
	}
	_, err := os.Stat(path)
	require.NoError(t, err)
}

// activatedTwice is a master that ends its cluster and begins it again.
var activatedTwice = clustertest.Program("activated-twice", func() {
	refused := make(chan error, 1)
	o := cluster.Options{Workers: 1, Env: []string{clustertest.ProgramEnv + "=" + clustertest.Troublemaker},
		AllowListen: func(_ *cluster.Process, network, address string) error {
			io.WriteString(os.Stdout, "asked "+address+"\n")
			return nil
		}}
	clustertest.Must(cluster.SetupMaster(o))
	cluster.OnDeath(func(_ *cluster.Process, e cluster.Exit) {
		if !e.Voluntary {
			refused <- fmt.Errorf("worker: %v", e)
		}
	})
	for range 2 {
		listening := make(chan string, 1)
		stop := cluster.OnListening(func(_ *cluster.Process, a net.Addr) { listening <- a.String() })
		clustertest.Must(cluster.AutoFork())
		select {
		case a := <-listening:
			io.WriteString(os.Stdout, "listening "+a+"\n")
		case err := <-refused:
			clustertest.Must(err)
		}
		stop()
		clustertest.Must(cluster.Disconnect(context.Background()))
	}
})

// TestActivatedSocketOutlivesDisconnect: the socket is used again by the next
// AutoFork, though it was closed; AllowListen is asked as for any other.
func TestActivatedSocketOutlivesDisconnect(t *testing.T) {
	t.Parallel()
	f, _, addr := inherited(t, "tcp", "127.0.0.1:0")
	p := clustertest.StartCmd(t, activatedBy(f), activatedTwice, "ADDRESS="+addr.String())
	for range 2 {
		require.Equal(t, addr.String(), p.Expect("asked"))
		require.Equal(t, addr.String(), p.Expect("listening"))
	}
	require.Zero(t, p.Exit())
}

// TestSocketsOfAnotherProcess: a LISTEN_PID that is not the master's own is
// another's: the socket is not touched, and the address is in use.
func TestSocketsOfAnotherProcess(t *testing.T) {
	t.Parallel()
	f, fd, addr := inherited(t, "tcp", "127.0.0.1:0")
	cmd := exec.Command(os.Args[0])
	cmd.ExtraFiles = []*os.File{f}
	p := clustertest.StartCmd(t, cmd, activatedTwice, "ADDRESS="+addr.String(), "LISTEN_FDS=1", "LISTEN_PID=1")
	require.Contains(t, p.Expect("FATAL cluster: listen"), "address already in use")
	require.Equal(t, 1, p.Exit())
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	require.NoError(t, err)
	require.Zero(t, flags&unix.O_NONBLOCK)
}

// isReloading checks what systemd asks for: both in one datagram.
func isReloading(t *testing.T, d string) {
	t.Helper()
	require.Regexp(t, `(?m)^RELOADING=1$`, d)
	require.Regexp(t, `(?m)^MONOTONIC_USEC=[1-9][0-9]*$`, d)
}

func isReady(t *testing.T, d string) {
	t.Helper()
	require.Regexp(t, `(?m)^READY=1$`, d)
}

// TestNotify: the service manager hears of the start, of each reload, whether it
// succeeds or not, and of the stop; it hears that all is well as often as it
// wants to.
func TestNotify(t *testing.T) {
	t.Parallel()
	manager := clustertest.NewManager(t)
	broken := filepath.Join(t.TempDir(), "broken")
	p, _ := clustertest.Supervise(t, clustertest.Supervision{Workers: 2, Env: []string{"FAIL=" + broken}}, manager.Env, "WATCHDOG_USEC=200000")
	isReady(t, manager.Next())
	for range 3 {
		for clustertest.Await(t, manager.Datagrams, "datagram") != "WATCHDOG=1" {
		}
	}
	p.Signal(syscall.SIGHUP)
	isReloading(t, manager.Next())
	d := manager.Next()
	isReady(t, d)
	require.Contains(t, d, "STATUS=generation 2")
	p.Expect("reload 2 2 <nil>")

	require.NoError(t, os.WriteFile(broken, nil, 0o644))
	p.Signal(syscall.SIGHUP)
	isReloading(t, manager.Next())
	d = manager.Next()
	isReady(t, d)
	require.Contains(t, d, "no database", "why it failed")
	require.Equal(t, 2, strings.Count(d, "\n")+1, "%q", d)

	p.Terminate()
	require.Contains(t, manager.Next(), "STOPPING=1")
	require.Empty(t, manager.Datagrams, "nothing after it")
}

// TestNotifyOnlyWhenUp: READY=1 waits until MinReady workers are up, and
// WATCHDOG=1 for one.
func TestNotifyOnlyWhenUp(t *testing.T) {
	t.Parallel()
	for need, min := range map[int]int{2: 0, 1: 1} {
		manager := clustertest.NewManager(t)
		s := clustertest.Supervision{Program: gated, Workers: 2, MinReady: min, Env: []string{"GATE=" + filepath.Join(t.TempDir(), "gate")}}
		p := clustertest.Start(t, clustertest.Supervisor, clustertest.SuperviseEnv(t, &s, []string{manager.Env})...)
		for i := range 2 {
			if i == need {
				isReady(t, manager.Next())
			}
			require.Empty(t, manager.Datagrams)
			require.NoError(t, os.WriteFile(s.Env[len(s.Env)-1][5:]+strconv.Itoa(i), nil, 0o644))
			p.Event("up")
		}
		if need == 2 {
			isReady(t, manager.Next())
		}
		p.Terminate()
	}
}

// TestNotifyForThoseWhoNeverListen: workers that are online and never listen,
// as consumers of a queue, are up as well.
func TestNotifyForThoseWhoNeverListen(t *testing.T) {
	t.Parallel()
	manager := clustertest.NewManager(t)
	s := clustertest.Supervision{Program: clustertest.CommandWorker, Workers: 2}
	p := clustertest.Start(t, clustertest.Supervisor, clustertest.SuperviseEnv(t, &s, []string{manager.Env})...)
	isReady(t, manager.Next())
	p.Terminate()
}

// TestNotifyIsForTheMaster: workers do not inherit what was addressed to it.
func TestNotifyIsForTheMaster(t *testing.T) {
	for _, k := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		t.Setenv(k, "1")
	}
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{})
	w := clustertest.Fork(t)
	require.Empty(t, clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about", Env: []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}}).Env)
}

// gated is a troublemaker that waits for the file of its slot.
var gated = clustertest.Program("gated", func() {
	gate := os.Getenv("GATE") + strconv.Itoa(cluster.Worker.Slot())
	for {
		if _, err := os.Stat(gate); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	clustertest.RunProgram(clustertest.Troublemaker)
})

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

// TestReloadOfExecTellsLastWords: the error of a reload has what the new worker of
// another program says, if that is one with this package.
func TestReloadOfExecTellsLastWords(t *testing.T) {
	dir := clustertest.TempDir(t)
	program, failure := filepath.Join(dir, "program"), filepath.Join(dir, "failure")
	clustertest.CopyBinary(t, program)
	clustertest.WithMaster(t, clustertest.Troublemaker, cluster.Options{Workers: 1, Exec: program, Env: []string{"FAIL=" + failure}})
	listening := clustertest.Listenings(t)
	require.NoError(t, cluster.AutoFork())
	clustertest.Await(t, listening, "listening")
	require.NoError(t, os.WriteFile(failure, nil, 0o600))
	require.ErrorContains(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)), "no database")
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

// TestReloadGoesToTheNewDirectory: the working directory is what a symbolic link
// leads to, through which the master was started. A reload's workers have what it
// leads to by then.
func TestReloadGoesToTheNewDirectory(t *testing.T) {
	t.Parallel()
	dir := clustertest.TempDir(t)
	v1, v2, current := filepath.Join(dir, "v1"), filepath.Join(dir, "v2"), filepath.Join(dir, "current")
	for _, v := range []string{v1, v2} {
		require.NoError(t, os.Mkdir(v, 0o755))
		clustertest.CopyBinary(t, filepath.Join(v, "server"))
	}
	moveLink(t, v1, current)
	cmd := exec.Command(filepath.Join(current, "server"))
	cmd.Dir = v1
	s := clustertest.Supervision{Workers: 1}
	p := clustertest.StartCmd(t, cmd, clustertest.Supervisor, clustertest.SuperviseEnv(t, &s, []string{"PWD=" + v1})...)
	runsIn := func(e clustertest.Event, dir string) {
		t.Helper()
		cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", e.PID))
		if errors.Is(err, fs.ErrNotExist) {
			t.Skip("nobody tells the directory of a process here")
		}
		require.NoError(t, err)
		require.Equal(t, dir, cwd)
	}
	old := p.Event("up")
	runsIn(old, v1)
	moveLink(t, v2, current)
	clustertest.Kill(t, old.PID, syscall.SIGKILL)
	old = p.Event("up")
	runsIn(old, v1)
	p.Signal(syscall.SIGHUP)
	rests := p.All("up 0 ", "reload 1 2 <nil>")
	e := clustertest.ParseEvent("0 " + rests[0])
	runsIn(e, v2)
	moveLink(t, v1, current)
	clustertest.Kill(t, e.PID, syscall.SIGKILL)
	runsIn(p.Event("up"), v2)
	p.Terminate()
}
