package foreign_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

func silent(*cluster.Process) (stdout, stderr io.Writer) { return io.Discard, io.Discard }

type about struct {
	Env, FDs, Args []string
	UID, PGID      int
}

func (a about) get(name string) (value string, set bool) {
	for _, kv := range a.Env {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			value, set = v, true
		}
	}
	return value, set
}

// TestInheritance: a foreign program finds its sockets as systemd passes them, and
// nothing else of the master's: no role, no channel, no descriptor.
func TestInheritance(t *testing.T) {
	t.Setenv("LISTEN_FDS", "7")
	t.Setenv("NOTIFY_SOCKET", "/nowhere")
	o := guest("an argument")
	o.Title = "a title"
	path := filepath.Join(clustertest.TempDir(t), "s")
	o.Sockets = append(o.Sockets, cluster.Socket{Network: "unix", Address: path}, cluster.Socket{Network: "udp", Address: "127.0.0.1:0", Name: "dgram"})
	clustertest.WithMaster(t, "none", o)
	require.NoError(t, cluster.AutoFork())
	w := only(t)
	a := ask[about](t, "/about")
	for name, want := range map[string]string{
		"LISTEN_FDS": "3", "LISTEN_FDNAMES": "web:unknown:dgram", "LISTEN_PID": strconv.Itoa(w.PID()),
		"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": strconv.Itoa(w.PID()),
	} {
		value, _ := a.get(name)
		require.Equal(t, want, value, name)
	}
	for _, name := range []string{"NODE_WORKER_ID", "NODE_UNIQUE_ID", "NODE_CHANNEL_FD", "NODE_GO_CLUSTER", "GO_CLUSTER_BECOME"} {
		_, set := a.get(name)
		require.False(t, set, name)
	}
	notify, _ := a.get("NOTIFY_SOCKET")
	require.NotEqual(t, "/nowhere", notify)
	require.Equal(t, []string{"3 nonblocking=true", "4 nonblocking=true", "5 nonblocking=true"}, a.FDs)
	require.Equal(t, []string{"a title", "an argument"}, a.Args)
	require.Equal(t, w.PID(), a.PGID, "a terminal's signals are the master's")
	require.Equal(t, w.PID(), ask[int](t, "/pid"))
	name, err := os.ReadFile("/proc/" + strconv.Itoa(w.PID()) + "/comm")
	require.NoError(t, err)
	require.Equal(t, "guest\n", string(name))

	require.False(t, w.IsConnected())
	ctx := clustertest.Within(t, clustertest.Patience)
	for _, err := range []error{w.Send(1), w.Send(1, func(error) {}), w.SendContext(ctx, 1), w.Request(ctx, 1, nil)} {
		require.ErrorIs(t, err, cluster.ErrNotSupported)
		require.NotErrorIs(t, err, cluster.ErrClosed)
	}
	require.FileExists(t, path)
	require.NoError(t, cluster.Disconnect(ctx))
	require.NoFileExists(t, path)
	require.Empty(t, cluster.Stats().Listeners)
}

// TestPlainFork: what a worker of Fork has stays until it is gone, and no longer.
func TestPlainFork(t *testing.T) {
	o := guest()
	path := filepath.Join(clustertest.TempDir(t), "s")
	o.Sockets = []cluster.Socket{{Network: "unix", Address: path}}
	clustertest.WithMaster(t, "none", o)
	first, err := cluster.Fork()
	require.NoError(t, err)
	second, err := cluster.Fork()
	require.NoError(t, err)
	for _, w := range []*cluster.Process{first, second} {
		until(t, w, cluster.Ready)
		require.FileExists(t, path)
		require.NoError(t, w.Disconnect(clustertest.Within(t, clustertest.Patience)))
	}
	clustertest.Eventually(t, func() bool { _, err := os.Stat(path); return errors.Is(err, fs.ErrNotExist) }, "the end of the file")
}

// TestReady: one that is alive for so long is ready; the others say so, or the
// master does.
func TestReady(t *testing.T) {
	t.Run("time", func(t *testing.T) {
		o := guest()
		clustertest.WithMaster(t, "none", o)
		w, err := cluster.Fork()
		require.NoError(t, err)
		until(t, w, cluster.Ready)
	})
	t.Run("word", func(t *testing.T) {
		o := guest("-ready")
		o.ManualReady = true
		clustertest.WithMaster(t, "none", o)
		w, err := cluster.Fork()
		require.NoError(t, err)
		until(t, w, cluster.Ready)
		require.Equal(t, "serves", cluster.Stats().Workers[0].Status)
	})
	t.Run("master's word", func(t *testing.T) {
		o := guest()
		o.ManualReady = true
		clustertest.WithMaster(t, "none", o)
		w, err := cluster.Fork()
		require.NoError(t, err)
		require.Equal(t, w.PID(), ask[int](t, "/pid"))
		require.Equal(t, cluster.Online, w.State())
		require.NoError(t, w.Ready())
		require.Equal(t, cluster.Ready, w.State())
		require.NoError(t, w.Kill())
		until(t, w, cluster.Dead)
		require.ErrorIs(t, w.Ready(), cluster.ErrClosed)
	})
	t.Run("never", func(t *testing.T) {
		o := guest()
		o.ManualReady, o.StartTimeout = true, 100*time.Millisecond
		clustertest.WithMaster(t, "none", o)
		ends := deaths(t)
		_, err := cluster.Fork()
		require.NoError(t, err)
		require.Equal(t, cluster.ReasonCrash, clustertest.Await(t, ends, "death").Reason)
	})
}

// TestWords: what a worker says counts if it, or what it has started, says it.
func TestWords(t *testing.T) {
	o := guest()
	o.ManualReady = true
	clustertest.WithMaster(t, "none", o)
	require.NoError(t, cluster.AutoFork())
	w := cluster.Workers()[0]
	socket, _ := ask[about](t, "/about").get("NOTIFY_SOCKET")
	c, err := net.Dial("unixgram", socket)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("READY=1\nSTATUS=the master's"))
	require.NoError(t, err)
	c.Write(make([]byte, 100<<10)) // too long for anybody
	ask[string](t, "/notify", "text", "STATUS=red\x1b[31m\nX=")
	require.Equal(t, `red\x1b[31m`, cluster.Stats().Workers[0].Status, "what came before was nobody's word")
	require.Equal(t, cluster.Online, w.State())
	require.Equal(t, "<nil>", ask[string](t, "/child", "text", "READY=1"))
	require.Equal(t, cluster.Ready, w.State())

	ends := deaths(t)
	ask[string](t, "/notify", "text", "STOPPING=1")
	require.Equal(t, cluster.Draining, w.State())
	_, err = clustertest.Get("http://" + address(t) + "/exit?status=0")
	require.Error(t, err)
	e := clustertest.Await(t, ends, "death")
	require.Equal(t, cluster.ReasonDrain, e.Reason)
	require.False(t, e.Voluntary)
}

// TestMainPID: a SIGTERM goes to the process that a wrapper names.
func TestMainPID(t *testing.T) {
	out := clustertest.NewLineWriter()
	o := guest()
	o.Args = []string{"-c", `trap 'echo the shell was asked' TERM; "$0" & "$0" -say "MAINPID=$!
READY=1"; wait $!; wait $!`, o.Exec}
	o.Exec, o.ManualReady, o.Output = "/bin/sh", true, out.Both
	clustertest.WithMaster(t, "none", o)
	w, err := cluster.Fork()
	require.NoError(t, err)
	until(t, w, cluster.Ready)
	main := ask[int](t, "/pid")
	require.NotEqual(t, main, w.PID())
	require.NoError(t, w.Disconnect(clustertest.Within(t, clustertest.Patience)))
	require.Equal(t, "terminated "+strconv.Itoa(main), clustertest.Await(t, out.Lines, "line"))
	require.Empty(t, out.Lines)
}

// TestTerminated: a program that does not catch SIGTERM ends by it. That is a good end, whoever
// sends the signal.
func TestTerminated(t *testing.T) {
	o := guest("-unaware")
	clustertest.WithMaster(t, "none", o)
	ends := deaths(t)
	require.NoError(t, cluster.AutoFork())
	w := only(t)
	time.Sleep(time.Second) // so long it must have been ready for its end to be no crash
	require.NoError(t, w.OSProcess().Signal(syscall.SIGTERM))
	e := clustertest.Await(t, ends, "death")
	require.Equal(t, cluster.ReasonDrain, e.Reason)
	require.False(t, e.Voluntary)
	require.Equal(t, "signal: terminated", strings.Split(e.String(), " after")[0])
	clustertest.Eventually(t, func() bool { return len(cluster.Workers()) == 1 }, "a successor")
	w = only(t)
	require.NoError(t, w.Disconnect(clustertest.Within(t, clustertest.Patience)))
	e = clustertest.Await(t, ends, "death")
	require.Equal(t, cluster.ReasonDrain, e.Reason)
	require.True(t, e.Voluntary)
}

// TestDeaf: one that does not heed the SIGTERM is killed.
func TestDeaf(t *testing.T) {
	out := clustertest.NewLineWriter()
	o := guest("-deaf")
	o.ShutdownTimeout, o.Output = 500*time.Millisecond, out.Both
	clustertest.WithMaster(t, "none", o)
	require.NoError(t, cluster.AutoFork())
	only(t)
	ask[int](t, "/pid") // so that it ignores the signal
	require.ErrorIs(t, cluster.Disconnect(context.Background()), context.DeadlineExceeded)
	clustertest.Await(t, out.Lines, "word")
	require.Empty(t, out.Lines, "it is asked once")
}

// TestWatchdog: a worker that has said WATCHDOG=1 has to say it again; another need
// not.
func TestWatchdog(t *testing.T) {
	o := guest("-beat", "20ms")
	o.Watchdog = cluster.Watchdog{Interval: 100 * time.Millisecond, Timeout: 10 * time.Second}
	clustertest.WithMaster(t, "none", o)
	ends := deaths(t)
	stalls := make(chan error, 100)
	t.Cleanup(cluster.OnError(func(_ *cluster.Process, err error) { stalls <- err }))
	w, err := cluster.Fork()
	require.NoError(t, err)
	until(t, w, cluster.Ready)
	ask[string](t, "/hang")
	require.ErrorIs(t, clustertest.Await(t, stalls, "stall"), cluster.ErrStalled)
	require.Equal(t, cluster.ReasonStall, clustertest.Await(t, ends, "death").Reason)

	o.Args, o.Watchdog.Timeout = []string{}, 500*time.Millisecond
	require.NoError(t, cluster.SetupMaster(o))
	w, err = cluster.Fork()
	require.NoError(t, err)
	until(t, w, cluster.Ready)
	time.Sleep(2 * o.Watchdog.Timeout) // nothing is to happen
	require.Equal(t, cluster.Ready, w.State())
}

// TestCannotStart: an error tells what is wrong, at once.
func TestCannotStart(t *testing.T) {
	dir := clustertest.TempDir(t)
	garbage, forbidden := filepath.Join(dir, "garbage"), filepath.Join(dir, "forbidden")
	require.NoError(t, os.WriteFile(garbage, []byte("this is no program"), 0o755))
	require.NoError(t, os.WriteFile(forbidden, []byte("#!/bin/sh\n"), 0o644))
	for path, want := range map[string]error{filepath.Join(dir, "missing"): fs.ErrNotExist, garbage: syscall.ENOEXEC, forbidden: fs.ErrPermission} {
		o := guest()
		o.Exec = path
		clustertest.WithMaster(t, "none", o)
		_, err := cluster.Fork()
		require.ErrorIs(t, err, want)
		require.ErrorContains(t, err, path)
		require.Empty(t, cluster.Workers())
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	o := guest()
	o.Sockets[0].Address = taken.Addr().String()
	clustertest.WithMaster(t, "none", o)
	require.ErrorIs(t, cluster.AutoFork(), syscall.EADDRINUSE)
	o.Sockets[0].Address, o.Dir = "127.0.0.1:0", filepath.Join(dir, "missing")
	require.NoError(t, cluster.SetupMaster(o))
	require.ErrorContains(t, cluster.AutoFork(), o.Dir)
}

// TestBadOptions: each is refused, and the error names it.
func TestBadOptions(t *testing.T) {
	for want, change := range map[string]func(o *cluster.Options){
		"Exec must name":            func(o *cluster.Options) { o.Exec = "" },
		"for a Foreign program":     func(o *cluster.Options) { o.Foreign = false },
		"less than StartTimeout":    func(o *cluster.Options) { o.ReadyAfter = time.Hour },
		"Recycle.Connections":       func(o *cluster.Options) { o.Recycle.Connections = 1 },
		`"a:b" is no name`:          func(o *cluster.Options) { o.Sockets[0].Name = "a:b" },
		"unknown network tcp7":      func(o *cluster.Options) { o.Sockets[0].Network = "tcp7" },
		"missing port in address":   func(o *cluster.Options) { o.Sockets[0].Address = "localhost" },
		"must not be negative":      func(o *cluster.Options) { o.ReadyAfter = -time.Second },
		"\"a\\nb\" is no name":      func(o *cluster.Options) { o.Sockets[0].Name = "a\nb" },
		"cluster: Options.Sockets:": func(o *cluster.Options) { o.Sockets[0].Name = "é" },
	} {
		o := guest()
		change(&o)
		require.ErrorContains(t, cluster.SetupMaster(o), want)
	}
	o := guest()
	o.ReadyAfter = 0
	require.NoError(t, cluster.SetupMaster(o))
	require.Equal(t, time.Second, cluster.Settings().ReadyAfter)
	require.NoError(t, cluster.SetupMaster(cluster.Settings()), "what Settings shows is accepted")
	require.NoError(t, cluster.SetupMaster(cluster.Options{}))
}

// TestCrashLoop: a program that fails to start is tried a few times, and its last words
// are told.
func TestCrashLoop(t *testing.T) {
	o := guest("-die", "3")
	o.Backoff.Max, o.Backoff.Min, o.ReadyAfter = time.Millisecond, time.Millisecond, 30*time.Second
	o.Output = clustertest.NewLineWriter().Both
	clustertest.WithMaster(t, "none", o)
	err := cluster.Run(clustertest.Within(t, 2*clustertest.Patience))
	require.ErrorIs(t, err, cluster.ErrBootLoop)
	require.ErrorContains(t, err, "exit status 3")
	require.ErrorContains(t, err, "these are my last words")
}

// TestCredential: the program is the other user's, and can say how it is.
func TestCredential(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	require.NoError(t, os.Chmod(bin, 0o755))
	o := guest("-ready")
	o.Credential, o.ManualReady, o.Dir = &cluster.Credential{UID: 65534, GID: 65534}, true, "/"
	clustertest.WithMaster(t, "none", o)
	require.NoError(t, cluster.AutoFork())
	only(t)
	require.Equal(t, 65534, ask[about](t, "/about").UID)
}

// TestThreads: a worker lives on when threads of the master end, that too which was
// there when it was forked.
func TestThreads(t *testing.T) {
	clustertest.WithMaster(t, "none", guest())
	w, err := cluster.Fork()
	require.NoError(t, err)
	for range 200 {
		done := make(chan bool)
		go func() {
			defer close(done)
			runtime.LockOSThread() // and never unlocked: the thread ends with it
		}()
		<-done
	}
	until(t, w, cluster.Ready)
	require.Equal(t, w.PID(), ask[int](t, "/pid"))
	require.NoError(t, w.Kill(syscall.SIGKILL))
	until(t, w, cluster.Dead)
	w, err = cluster.Fork() // by another thread
	require.NoError(t, err)
	until(t, w, cluster.Ready)
}
