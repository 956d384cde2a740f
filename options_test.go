package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestOptionsErrorsNameTheField: SetupMaster refuses what makes no sense with
// an error that names the field, and changes nothing.
func TestOptionsErrorsNameTheField(t *testing.T) {
	require.NoError(t, cluster.SetupMaster(cluster.Options{Workers: 3}))
	t.Cleanup(func() { cluster.SetupMaster(cluster.Options{}) })
	for field, o := range map[string]cluster.Options{
		"Workers":         {Workers: -1},
		"MaxProcs":        {MaxProcs: -1},
		"MemoryLimit":     {MemoryLimit: -1},
		"StartTimeout":    {StartTimeout: -time.Second},
		"ShutdownTimeout": {ShutdownTimeout: -time.Second},
		"MaxMessage":      {MaxMessage: -1},
		"MaxQueue":        {MaxQueue: -1},
		"Scheduling":      {Scheduling: 9},
		"Exec":            {Exec: "no-such-program-anywhere"},
		"Args":            {Args: []string{"a\x00b"}},
		"Env":             {Env: []string{"novalue"}},
		"ListenFDs":       {ListenFDs: []int{2}},
	} {
		require.ErrorContains(t, cluster.SetupMaster(o), "cluster: Options."+field)
	}
	for _, env := range []string{"=x", "K=a\x00b", "NODE_WORKER_ID=1", "NODE_UNIQUE_ID=1", "NODE_CHANNEL_FD=3", "NODE_GO_CLUSTER={}"} {
		require.ErrorContains(t, cluster.SetupMaster(cluster.Options{Env: []string{env}}), "cluster: Options.Env")
		_, err := cluster.Fork(env)
		require.ErrorContains(t, err, "cluster: Fork")
	}
	require.ErrorIs(t, cluster.SetupMaster(cluster.Options{Exec: "no-such-program-anywhere"}), exec.ErrNotFound)
	require.Equal(t, 3, cluster.Settings().Workers)
}

// TestSettings: every default is filled in; SetupMaster replaces all that an
// earlier one said; what Settings returned can be given back to it, and is the
// caller's own.
func TestSettings(t *testing.T) {
	t.Cleanup(func() { cluster.SetupMaster(cluster.Options{}) })
	require.NoError(t, cluster.SetupMaster(cluster.Options{}))
	s := cluster.Settings()
	require.Equal(t, runtime.GOMAXPROCS(0), s.Workers)
	require.Equal(t, os.Args[1:], s.Args)
	require.Equal(t, cluster.Shared, s.Scheduling)
	require.Equal(t, 60*time.Second, s.StartTimeout)
	require.Equal(t, 30*time.Second, s.ShutdownTimeout)
	require.Equal(t, 500*time.Millisecond, s.ReadyFor)
	require.Equal(t, 16<<20, s.MaxMessage)
	require.Equal(t, 64<<20, s.MaxQueue)
	require.NoError(t, cluster.SetupMaster(s))

	env := []string{"A=1"}
	require.NoError(t, cluster.SetupMaster(cluster.Options{Workers: 5, Env: env, Args: []string{}}))
	env[0] = "A=2"
	s = cluster.Settings()
	require.Equal(t, []string{"A=1"}, s.Env)
	require.NotNil(t, s.Args)
	require.Empty(t, s.Args)
	s.Env[0] = "A=3"
	require.Equal(t, []string{"A=1"}, cluster.Settings().Env)

	require.NoError(t, cluster.SetupMaster(cluster.Options{Dir: "sub"}))
	wd, err := os.Getwd()
	require.NoError(t, err)
	s = cluster.Settings()
	require.Equal(t, filepath.Join(wd, "sub"), s.Dir)
	require.Equal(t, runtime.GOMAXPROCS(0), s.Workers, "the 5 of before is gone")
	require.Nil(t, s.Env)
}

// TestOptionsExec: a bare name comes from PATH, a relative path from the
// directory in which the master was started, wherever it is now.
func TestOptionsExec(t *testing.T) {
	start, err := os.Getwd()
	require.NoError(t, err)
	dir, err := filepath.EvalSymlinks(clustertest.TempDir(t))
	require.NoError(t, err)
	if filepath.VolumeName(dir) != filepath.VolumeName(start) { // no path leads from one to the other
		dir, err = os.MkdirTemp(start, ".cluster-test-")
		require.NoError(t, err)
		t.Cleanup(func() { os.Remove(dir) })
	}
	program := filepath.Join(dir, "worker-program"+clustertest.System.Exe)
	clustertest.CopyBinary(t, program)
	t.Cleanup(func() { os.Remove(program) })
	relative, err := filepath.Rel(start, program)
	require.NoError(t, err)
	t.Chdir("/")
	t.Setenv("PATH", dir+clustertest.System.PathList+os.Getenv("PATH"))
	for name, path := range map[string]string{"absolute": program, "relative": relative, "bare": "worker-program"} {
		t.Run(name, func(t *testing.T) {
			clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Exec: path})
			require.Equal(t, program, cluster.Settings().Exec)
			self := clustertest.Ask[clustertest.About](t, clustertest.Fork(t), clustertest.Order{Cmd: "about"})
			require.Equal(t, program, self.Args[0])
			if self.Exe != "" {
				require.Equal(t, program, self.Exe)
			}
		})
	}
	t.Run("gone", func(t *testing.T) {
		clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Exec: "./no-such-file"})
		_, err := cluster.Fork()
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.ErrorContains(t, err, "cluster: Fork")
		require.ErrorContains(t, err, filepath.Join(start, "no-such-file"))
		require.ErrorIs(t, cluster.AutoFork(), fs.ErrNotExist)
		require.Empty(t, cluster.Workers())
	})
}

// TestOptionsArgs: nil means the master's own arguments, an empty list means no arguments.
func TestOptionsArgs(t *testing.T) {
	for name, c := range map[string]struct{ args, want []string }{
		"nil":   {nil, os.Args[1:]},
		"empty": {[]string{}, nil},
		"some":  {[]string{"-a", "b c", ""}, []string{"-a", "b c", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Args: c.args})
			self := clustertest.Ask[clustertest.About](t, clustertest.Fork(t), clustertest.Order{Cmd: "about"})
			require.Equal(t, os.Args[0], self.Args[0])
			require.ElementsMatch(t, c.want, self.Args[1:])
		})
	}
}

// TestOptionsEnv: Fork's environment wins over Options.Env, and that over the
// master's; what a service manager addressed to the master stays there.
func TestOptionsEnv(t *testing.T) {
	for _, k := range []string{"ENV_MASTER", "ENV_OPTIONS", "ENV_FORK", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "NODE_CHANNEL_FD"} {
		t.Setenv(k, "master")
	}
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Env: []string{"ENV_OPTIONS=options", "ENV_FORK=options", "LISTEN_PID=options"}})
	w := clustertest.Fork(t, "ENV_FORK=fork")
	self := clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about", Env: []string{
		"ENV_MASTER", "ENV_OPTIONS", "ENV_FORK", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "NODE_CHANNEL_FD",
	}})
	require.Equal(t, map[string]string{
		"ENV_MASTER": "master", "ENV_OPTIONS": "options", "ENV_FORK": "fork", "LISTEN_PID": "options",
	}, self.Env)
}

// TestOptionsDir: a worker starts in Dir, and an error of it names the
// directory.
func TestOptionsDir(t *testing.T) {
	dir, err := filepath.EvalSymlinks(clustertest.TempDir(t))
	require.NoError(t, err)
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Dir: dir})
	require.Equal(t, dir, clustertest.Ask[clustertest.About](t, clustertest.Fork(t), clustertest.Order{Cmd: "about"}).Dir)

	o := cluster.Settings()
	o.Dir = filepath.Join(dir, "missing")
	require.NoError(t, cluster.SetupMaster(o))
	_, err = cluster.Fork()
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, o.Dir)
}

// TestOptionsMaxProcs: a worker gets its share of the master's GOMAXPROCS, at
// least 1, unless its environment or MaxProcs says otherwise.
func TestOptionsMaxProcs(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	t.Setenv("GOMAXPROCS", "7") // the master's own, not a worker's
	for name, c := range map[string]struct {
		o    cluster.Options
		fork []string
		want int
	}{
		"share":             {cluster.Options{Workers: 2}, nil, 4},
		"at least 1":        {cluster.Options{Workers: 64}, nil, 1},
		"environment":       {cluster.Options{Workers: 2, Env: []string{"GOMAXPROCS=3"}}, nil, 3},
		"fork":              {cluster.Options{Workers: 2, Env: []string{"GOMAXPROCS=3"}}, []string{"GOMAXPROCS=5"}, 5},
		"option":            {cluster.Options{Workers: 2, MaxProcs: 6}, nil, 6},
		"option before env": {cluster.Options{MaxProcs: 6, Env: []string{"GOMAXPROCS=3"}}, nil, 6},
	} {
		t.Run(name, func(t *testing.T) {
			clustertest.WithMaster(t, clustertest.CommandWorker, c.o)
			require.Equal(t, c.want, clustertest.Ask[clustertest.About](t, clustertest.Fork(t, c.fork...), clustertest.Order{Cmd: "about"}).MaxProcs)
		})
	}
}

// TestOptionsMemoryLimit: a worker gets its share of the master's GOMEMLIMIT, if that
// is set, unless its environment or MemoryLimit says otherwise.
func TestOptionsMemoryLimit(t *testing.T) {
	const gib int64 = 1 << 30
	for name, c := range map[string]struct {
		master string
		o      cluster.Options
		fork   []string
		want   string
	}{
		"share":             {"4GiB", cluster.Options{Workers: 4}, nil, fmt.Sprint(gib)},
		"none":              {"", cluster.Options{Workers: 4}, nil, ""},
		"off":               {"off", cluster.Options{Workers: 4}, nil, "off"},
		"environment":       {"4GiB", cluster.Options{Workers: 4, Env: []string{"GOMEMLIMIT=3GiB"}}, nil, "3GiB"},
		"fork":              {"4GiB", cluster.Options{Env: []string{"GOMEMLIMIT=3GiB"}}, []string{"GOMEMLIMIT=off"}, "off"},
		"option":            {"", cluster.Options{MemoryLimit: 5 * gib}, nil, fmt.Sprint(5 * gib)},
		"option before all": {"off", cluster.Options{MemoryLimit: 6 * gib, Env: []string{"GOMEMLIMIT=off"}}, []string{"GOMEMLIMIT=off"}, fmt.Sprint(6 * gib)},
	} {
		t.Run(name, func(t *testing.T) {
			if c.master != "" {
				t.Setenv("GOMEMLIMIT", c.master)
			}
			clustertest.WithMaster(t, clustertest.CommandWorker, c.o)
			self := clustertest.Ask[clustertest.About](t, clustertest.Fork(t, c.fork...), clustertest.Order{Cmd: "about", Env: []string{"GOMEMLIMIT"}})
			require.Equal(t, c.want, self.Env["GOMEMLIMIT"])
		})
	}
	t.Run("follows Scale", func(t *testing.T) {
		t.Setenv("GOMEMLIMIT", "4GiB")
		clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Workers: 1})
		require.EqualValues(t, 4*gib, cluster.Settings().MemoryLimit)
		require.NoError(t, cluster.SetupMaster(cluster.Settings()))
		require.NoError(t, cluster.AutoFork())
		require.NoError(t, cluster.Scale(2))
		require.EqualValues(t, 2*gib, cluster.Settings().MemoryLimit)
		for _, w := range cluster.Workers() {
			self := clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about", Env: []string{"GOMEMLIMIT"}})
			require.Equal(t, fmt.Sprint(4*gib/int64(w.Slot()+1)), self.Env["GOMEMLIMIT"])
		}
	})
}

// TestMaxProcsFollow: a worker's share follows the master's GOMAXPROCS, as Go itself
// follows a cgroup's limit, unless the program or its environment has set it.
func TestMaxProcsFollow(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Workers: 2, Watchdog: cluster.Watchdog{Interval: clustertest.Tick}})
	procs := func(w *cluster.Process) int {
		return clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about"}).MaxProcs
	}
	follows, fixed := clustertest.Fork(t), clustertest.Fork(t, "GOMAXPROCS=4")
	require.Equal(t, 4, procs(follows))
	for _, n := range []int{6, 2, 8} {
		runtime.GOMAXPROCS(n)
		clustertest.Eventually(t, func() bool { return procs(follows) == n/2 }, "its share of the new number")
		require.Equal(t, 4, procs(fixed))
	}
}

// TestTitle is what a worker is called.
func TestTitle(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Title: "a title/of a worker"})
	w := clustertest.Fork(t)
	require.Equal(t, "a title/of a worker", clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about"}).Args[0])
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", w.PID())); err == nil {
		require.Equal(t, "a title/of a wo\n", string(comm))
	}
}

// TestManualReady: with ManualReady an Accept does not make a worker ready,
// without it the first one does, and listening alone does not.
func TestManualReady(t *testing.T) {
	t.Run("manual", func(t *testing.T) {
		clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{ManualReady: true})
		listens := clustertest.Listenings(t)
		w := clustertest.Fork(t)
		clustertest.Ask[string](t, w, clustertest.Order{Cmd: "listen"})
		clustertest.Await(t, listens, "listening")
		require.Equal(t, cluster.Online, w.State())
		clustertest.Ask[any](t, w, clustertest.Order{Cmd: "ready"})
		// The answer came behind ready on the channel.
		require.Equal(t, cluster.Ready, w.State())
	})
	t.Run("by accepting", func(t *testing.T) {
		clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{})
		listens := clustertest.Listenings(t)
		w := clustertest.Fork(t)
		clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about"})
		require.Equal(t, cluster.Online, w.State())
		clustertest.Ask[string](t, w, clustertest.Order{Cmd: "hold"})
		clustertest.Await(t, listens, "listening")
		clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about"})
		require.Equal(t, cluster.Online, w.State())
		clustertest.Ask[string](t, w, clustertest.Order{Cmd: "listen"})
		clustertest.Await(t, listens, "listening")
		clustertest.Eventually(t, func() bool { return w.State() == cluster.Ready }, "ready")
	})
	t.Run("without a listener", func(t *testing.T) {
		clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{})
		w := clustertest.Fork(t)
		clustertest.Ask[any](t, w, clustertest.Order{Cmd: "ready"})
		require.Equal(t, cluster.Ready, w.State())
	})
}

// TestStartTimeout: a worker that is not online in time, or under ManualReady
// not ready, is killed, reported, and not taken for a voluntary exit.
func TestStartTimeout(t *testing.T) {
	silent := cluster.Options{Env: []string{"CLUSTER_TEST_HANG=1"}, StartTimeout: 50 * time.Millisecond}
	unready := cluster.Options{ManualReady: true, StartTimeout: 300 * time.Millisecond}
	for name, o := range map[string]cluster.Options{"not online": silent, "not ready": unready} {
		t.Run(name, func(t *testing.T) {
			clustertest.WithMaster(t, clustertest.CommandWorker, o)
			dead, failed := clustertest.Deaths(t), make(chan error, 10)
			t.Cleanup(cluster.OnError(func(_ *cluster.Process, err error) { failed <- err }))
			w := clustertest.Fork(t)
			require.ErrorContains(t, clustertest.Await(t, failed, "error"), name[len("not "):]+" within")
			d := clustertest.Await(t, dead, "death")
			require.Same(t, w, d.Worker)
			clustertest.RequireKilled(t, d.Exit)
			require.False(t, d.Exit.Voluntary)
			require.GreaterOrEqual(t, d.Exit.Uptime, o.StartTimeout)
		})
	}
}

// TestShutdownTimeout: a worker that does not end by itself is killed, and
// those that wait are told.
func TestShutdownTimeout(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{ShutdownTimeout: 200 * time.Millisecond})
	dead := clustertest.Deaths(t)
	online := clustertest.Onlines(t)
	for _, stop := range []func(w *cluster.Process) error{
		func(w *cluster.Process) error { return w.Disconnect(clustertest.Within(t, clustertest.Patience)) },
		func(w *cluster.Process) error { return cluster.Disconnect(clustertest.Within(t, clustertest.Patience)) },
	} {
		w := clustertest.Fork(t)
		clustertest.Await(t, online, "online")
		clustertest.Pause(t, w.PID())
		err := stop(w)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, strconv.Itoa(w.ID()))
		d := clustertest.Await(t, dead, "death")
		clustertest.RequireKilled(t, d.Exit)
		require.True(t, d.Exit.Voluntary)
	}
}

// logBuffer is what a logger wrote.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestLoggerIsQuiet: nothing is logged while all is well, in the master or by a
// worker; a crash is.
func TestLoggerIsQuiet(t *testing.T) {
	var log logBuffer
	out := clustertest.NewLineWriter()
	clustertest.WithMaster(t, idle, cluster.Options{Workers: 2, Output: out.Both, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	listens, dead := clustertest.Listenings(t), clustertest.Deaths(t)
	require.NoError(t, cluster.AutoFork())
	clustertest.Await(t, listens, "listening")
	w := clustertest.Await(t, listens, "listening")
	require.NoError(t, w.Disconnect(clustertest.Within(t, clustertest.Patience)))
	clustertest.StopAll(t)
	clustertest.Await(t, dead, "death")
	clustertest.Await(t, dead, "death")
	require.Empty(t, log.String())
	require.Empty(t, out.Lines, "the workers' own output")

	require.NoError(t, cluster.AutoFork())
	w = clustertest.Await(t, listens, "listening")
	require.NoError(t, w.OSProcess().Kill())
	clustertest.Await(t, dead, "death")
	clustertest.StopAll(t)
	require.Contains(t, log.String(), clustertest.System.KilledText)
	require.Contains(t, log.String(), "worker="+strconv.Itoa(w.ID()))
}

// TestOutputPipes: what a worker writes reaches the writers whole, before its
// death is reported. Nothing of a line that is cut is lost.
func TestOutputPipes(t *testing.T) {
	var out, errs logBuffer
	clustertest.WithMaster(t, clustertest.Printing, cluster.Options{
		Env:    []string{"STDERR=error", "ZEROS=1048576"},
		Output: func(*cluster.Process) (stdout, stderr io.Writer) { return &out, &errs },
	})
	seen := make(chan int, 1)
	t.Cleanup(cluster.OnDeath(func(*cluster.Process, cluster.Exit) { seen <- strings.Count(out.String(), "\x00") }))
	clustertest.Fork(t)
	require.Equal(t, 1<<20, clustertest.Await(t, seen, "death"))
	require.Equal(t, "error\n", errs.String())
}

// TestOutputOneWriterForBoth: given the same writer twice, the lines come in
// the order in which they were written, from one goroutine.
func TestOutputOneWriterForBoth(t *testing.T) {
	var both racyWriter
	clustertest.WithMaster(t, clustertest.Alternating, cluster.Options{
		Output: func(*cluster.Process) (stdout, stderr io.Writer) { return &both, &both },
	})
	dead := clustertest.Deaths(t)
	clustertest.Fork(t)
	clustertest.Await(t, dead, "death")
	require.Equal(t, "o1 e1 o2 e2 o3 e3 o4 e4 o5 e5 o6 e6 o7 e7 o8 e8 o9 e9", strings.Join(strings.Fields(both.String()), " "))
}

// racyWriter is not safe for use from two goroutines, and the race detector
// says so.
type racyWriter struct{ bytes.Buffer }

// TestOutputFiles: an *os.File is handed to the worker itself, io.Discard
// silences, and the master has no pipe and no goroutine for either.
func TestOutputFiles(t *testing.T) {
	file, err := os.Create(filepath.Join(clustertest.TempDir(t), "out"))
	require.NoError(t, err)
	defer file.Close()
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{
		Output: func(*cluster.Process) (stdout, stderr io.Writer) { return file, io.Discard },
	})
	w := clustertest.Fork(t)
	clustertest.Ask[any](t, w, clustertest.Order{Cmd: "print", Text: "to the file\n"})
	require.NoError(t, w.Disconnect(clustertest.Within(t, clustertest.Patience)))
	b, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	require.Equal(t, "to the file\n", string(b))
	_, err = file.WriteString("the master's file is still open\n")
	require.NoError(t, err)
}

// TestOutputWriterFails: a writer that fails does not stop the worker, as a
// pipe that nobody reads would.
func TestOutputWriterFails(t *testing.T) {
	clustertest.WithMaster(t, clustertest.Printing, cluster.Options{
		Env:    []string{"ZEROS=1048576", "EXIT=7"},
		Output: func(*cluster.Process) (stdout, stderr io.Writer) { return clustertest.FailingWriter{}, nil },
	})
	dead := clustertest.Deaths(t)
	clustertest.Fork(t)
	require.Equal(t, 7, clustertest.Await(t, dead, "death").Exit.Code)
}

// TestOutputInherited: by default a worker writes to the master's own standard
// output and error, and a nil writer means the same for one of them.
func TestOutputInherited(t *testing.T) {
	t.Parallel()
	for _, name := range []string{printMaster, printMasterNil} {
		p := clustertest.Start(t, name)
		p.Expect("to stdout")
		require.Zero(t, p.Exit())
	}
}

var (
	printMaster    = clustertest.Program("print-master", func() { printingMaster(nil) })
	printMasterNil = clustertest.Program("print-master-nil", func() {
		printingMaster(func(*cluster.Process) (stdout, stderr io.Writer) { return nil, io.Discard })
	})
)

// printingMaster runs one worker that prints.
func printingMaster(output func(*cluster.Process) (stdout, stderr io.Writer)) {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Output: output, Env: []string{clustertest.ProgramEnv + "=" + clustertest.CommandWorker}}))
	w, err := cluster.Fork()
	clustertest.Must(err)
	clustertest.Must(w.Request(context.Background(), clustertest.Order{Cmd: "print", Text: "to stdout\n"}, nil))
	clustertest.Must(cluster.Disconnect(context.Background()))
}
