package cluster_test

import (
	"bytes"
	"context"
	"errors"
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
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// copyBinary puts a copy of the test binary at path.
func copyBinary(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	writeProgram(t, path, b)
}

// TestOptionsErrorsNameTheField: SetupMaster refuses what makes no sense with
// an error that names the field, and changes nothing.
func TestOptionsErrorsNameTheField(t *testing.T) {
	require.NoError(t, cluster.SetupMaster(cluster.Options{Workers: 3}))
	t.Cleanup(func() { cluster.SetupMaster(cluster.Options{}) })
	for field, o := range map[string]cluster.Options{
		"Workers":         {Workers: -1},
		"MaxProcs":        {MaxProcs: -1},
		"StartTimeout":    {StartTimeout: -time.Second},
		"ShutdownTimeout": {ShutdownTimeout: -time.Second},
		"MaxMessage":      {MaxMessage: -1},
		"MaxQueue":        {MaxQueue: -1},
		"Scheduling":      {Scheduling: 3},
		"Exec":            {Exec: "no-such-program-anywhere"},
		"Args":            {Args: []string{"a\x00b"}},
		"Env":             {Env: []string{"novalue"}},
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
	dir, err := filepath.EvalSymlinks(tempDir(t))
	require.NoError(t, err)
	if filepath.VolumeName(dir) != filepath.VolumeName(start) { // no path leads from one to the other
		dir, err = os.MkdirTemp(start, ".cluster-test-")
		require.NoError(t, err)
		t.Cleanup(func() { os.Remove(dir) })
	}
	program := filepath.Join(dir, "worker-program"+system.exe)
	copyBinary(t, program)
	t.Cleanup(func() { os.Remove(program) })
	relative, err := filepath.Rel(start, program)
	require.NoError(t, err)
	t.Chdir("/")
	t.Setenv("PATH", dir+system.pathList+os.Getenv("PATH"))
	for name, path := range map[string]string{"absolute": program, "relative": relative, "bare": "worker-program"} {
		t.Run(name, func(t *testing.T) {
			withMaster(t, obedient, cluster.Options{Exec: path})
			require.Equal(t, program, cluster.Settings().Exec)
			self := ask[about](t, forkOne(t), order{Cmd: "about"})
			require.Equal(t, program, self.Args[0])
			if self.Exe != "" {
				require.Equal(t, program, self.Exe)
			}
		})
	}
	t.Run("gone", func(t *testing.T) {
		withMaster(t, obedient, cluster.Options{Exec: "./no-such-file"})
		_, err := cluster.Fork()
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.ErrorContains(t, err, "cluster: Fork")
		require.ErrorContains(t, err, filepath.Join(start, "no-such-file"))
		require.ErrorIs(t, cluster.AutoFork(), fs.ErrNotExist)
		require.Empty(t, cluster.Workers())
	})
}

// TestOptionsArgs: nil is the master's own arguments, an empty list is none.
func TestOptionsArgs(t *testing.T) {
	for name, c := range map[string]struct{ args, want []string }{
		"nil":   {nil, os.Args[1:]},
		"empty": {[]string{}, nil},
		"some":  {[]string{"-a", "b c", ""}, []string{"-a", "b c", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			withMaster(t, obedient, cluster.Options{Args: c.args})
			self := ask[about](t, forkOne(t), order{Cmd: "about"})
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
	withMaster(t, obedient, cluster.Options{Env: []string{"ENV_OPTIONS=options", "ENV_FORK=options", "LISTEN_PID=options"}})
	w := forkOne(t, "ENV_FORK=fork")
	self := ask[about](t, w, order{Cmd: "about", Env: []string{
		"ENV_MASTER", "ENV_OPTIONS", "ENV_FORK", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "NODE_CHANNEL_FD",
	}})
	require.Equal(t, map[string]string{
		"ENV_MASTER": "master", "ENV_OPTIONS": "options", "ENV_FORK": "fork", "LISTEN_PID": "options",
	}, self.Env)
}

// TestOptionsDir: a worker starts in Dir, and an error of it names the
// directory.
func TestOptionsDir(t *testing.T) {
	dir, err := filepath.EvalSymlinks(tempDir(t))
	require.NoError(t, err)
	withMaster(t, obedient, cluster.Options{Dir: dir})
	require.Equal(t, dir, ask[about](t, forkOne(t), order{Cmd: "about"}).Dir)

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
			withMaster(t, obedient, c.o)
			require.Equal(t, c.want, ask[about](t, forkOne(t, c.fork...), order{Cmd: "about"}).MaxProcs)
		})
	}
}

// TestManualReady: with ManualReady a listener does not make a worker ready,
// without it the first one does.
func TestManualReady(t *testing.T) {
	t.Run("manual", func(t *testing.T) {
		withMaster(t, obedient, cluster.Options{ManualReady: true})
		listens := listenings(t)
		w := forkOne(t)
		ask[string](t, w, order{Cmd: "listen"})
		await(t, listens, "listening")
		require.Equal(t, cluster.Online, w.State())
		ask[any](t, w, order{Cmd: "ready"})
		// The answer came behind ready on the channel.
		require.Equal(t, cluster.Ready, w.State())
	})
	t.Run("by listening", func(t *testing.T) {
		withMaster(t, obedient, cluster.Options{})
		listens := listenings(t)
		w := forkOne(t)
		ask[about](t, w, order{Cmd: "about"})
		require.Equal(t, cluster.Online, w.State())
		ask[string](t, w, order{Cmd: "listen"})
		await(t, listens, "listening")
		require.Equal(t, cluster.Ready, w.State())
	})
	t.Run("without a listener", func(t *testing.T) {
		withMaster(t, obedient, cluster.Options{})
		w := forkOne(t)
		ask[any](t, w, order{Cmd: "ready"})
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
			withMaster(t, obedient, o)
			dead, failed := deaths(t), make(chan error, 10)
			t.Cleanup(cluster.OnError(func(_ *cluster.Process, err error) { failed <- err }))
			w := forkOne(t)
			require.ErrorContains(t, await(t, failed, "error"), name[len("not "):]+" within")
			d := await(t, dead, "death")
			require.Same(t, w, d.w)
			requireKilled(t, d.e)
			require.False(t, d.e.Voluntary)
			require.GreaterOrEqual(t, d.e.Uptime, o.StartTimeout)
		})
	}
}

// TestShutdownTimeout: a worker that does not end by itself is killed, and
// those that wait are told.
func TestShutdownTimeout(t *testing.T) {
	withMaster(t, obedient, cluster.Options{ShutdownTimeout: 200 * time.Millisecond})
	dead := deaths(t)
	online := onlines(t)
	for _, stop := range []func(w *cluster.Process) error{
		func(w *cluster.Process) error { return w.Disconnect(within(t, patience)) },
		func(w *cluster.Process) error { return cluster.Disconnect(within(t, patience)) },
	} {
		w := forkOne(t)
		await(t, online, "online")
		pause(t, w.PID())
		err := stop(w)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, strconv.Itoa(w.ID()))
		d := await(t, dead, "death")
		requireKilled(t, d.e)
		require.True(t, d.e.Voluntary)
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
	out := newLineWriter()
	withMaster(t, idle, cluster.Options{Workers: 2, Output: out.both, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	listens, dead := listenings(t), deaths(t)
	require.NoError(t, cluster.AutoFork())
	await(t, listens, "listening")
	w := await(t, listens, "listening")
	require.NoError(t, w.Disconnect(within(t, patience)))
	stopAll(t)
	await(t, dead, "death")
	await(t, dead, "death")
	require.Empty(t, log.String())
	require.Empty(t, out.c, "the workers' own output")

	require.NoError(t, cluster.AutoFork())
	w = await(t, listens, "listening")
	require.NoError(t, w.OSProcess().Kill())
	await(t, dead, "death")
	stopAll(t)
	require.Contains(t, log.String(), system.killedText)
	require.Contains(t, log.String(), "worker="+strconv.Itoa(w.ID()))
}

// TestOutputPipes: what a worker writes reaches the writers whole, before its
// death is reported.
func TestOutputPipes(t *testing.T) {
	var out, errs logBuffer
	withMaster(t, printing, cluster.Options{
		Env:    []string{"STDERR=error", "ZEROS=1048576"},
		Output: func(*cluster.Process) (stdout, stderr io.Writer) { return &out, &errs },
	})
	seen := make(chan int, 1)
	t.Cleanup(cluster.OnDeath(func(*cluster.Process, cluster.Exit) { seen <- len(out.String()) }))
	forkOne(t)
	require.Equal(t, 1<<20, await(t, seen, "death"))
	require.Equal(t, "error\n", errs.String())
}

// TestOutputOneWriterForBoth: given the same writer twice, the lines come in
// the order in which they were written, from one goroutine.
func TestOutputOneWriterForBoth(t *testing.T) {
	var both racyWriter
	withMaster(t, alternating, cluster.Options{
		Output: func(*cluster.Process) (stdout, stderr io.Writer) { return &both, &both },
	})
	dead := deaths(t)
	forkOne(t)
	await(t, dead, "death")
	require.Equal(t, "o1 e1 o2 e2 o3 e3 o4 e4 o5 e5 o6 e6 o7 e7 o8 e8 o9 e9", strings.Join(strings.Fields(both.String()), " "))
}

// racyWriter is not safe for use from two goroutines, and the race detector
// says so.
type racyWriter struct{ bytes.Buffer }

// TestOutputFiles: an *os.File is handed to the worker itself, io.Discard
// silences, and the master has no pipe and no goroutine for either.
func TestOutputFiles(t *testing.T) {
	file, err := os.Create(filepath.Join(tempDir(t), "out"))
	require.NoError(t, err)
	defer file.Close()
	withMaster(t, obedient, cluster.Options{
		Output: func(*cluster.Process) (stdout, stderr io.Writer) { return file, io.Discard },
	})
	w := forkOne(t)
	ask[any](t, w, order{Cmd: "print", Text: "to the file\n"})
	require.NoError(t, w.Disconnect(within(t, patience)))
	b, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	require.Equal(t, "to the file\n", string(b))
	_, err = file.WriteString("the master's file is still open\n")
	require.NoError(t, err)
}

// failingWriter fails.
type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// TestOutputWriterFails: a writer that fails does not stop the worker, as a
// pipe that nobody reads would.
func TestOutputWriterFails(t *testing.T) {
	withMaster(t, printing, cluster.Options{
		Env:    []string{"ZEROS=1048576", "EXIT=7"},
		Output: func(*cluster.Process) (stdout, stderr io.Writer) { return failingWriter{}, nil },
	})
	dead := deaths(t)
	forkOne(t)
	require.Equal(t, 7, await(t, dead, "death").e.Code)
}

// TestOutputInherited: by default a worker writes to the master's own standard
// output and error, and a nil writer means the same for one of them.
func TestOutputInherited(t *testing.T) {
	t.Parallel()
	for _, name := range []string{printMaster, printMasterNil} {
		p := start(t, name)
		p.expect("to stdout")
		require.Zero(t, p.exit())
	}
}

var (
	printMaster    = program("print-master", func() { printingMaster(nil) })
	printMasterNil = program("print-master-nil", func() {
		printingMaster(func(*cluster.Process) (stdout, stderr io.Writer) { return nil, io.Discard })
	})
)

// printingMaster runs one worker that prints.
func printingMaster(output func(*cluster.Process) (stdout, stderr io.Writer)) {
	die(cluster.SetupMaster(cluster.Options{Output: output, Env: []string{programEnv + "=" + obedient}}))
	w, err := cluster.Fork()
	die(err)
	die(w.Request(context.Background(), order{Cmd: "print", Text: "to stdout\n"}, nil))
	die(cluster.Disconnect(context.Background()))
}

// writeProgram writes a file to execute. A child that another goroutine forks
// meanwhile would hold it open for writing until its own exec, and until then
// nobody could execute it: no fork until it is closed.
func writeProgram(t *testing.T, path string, b []byte) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	require.NoError(t, os.WriteFile(path, b, 0o755))
}
