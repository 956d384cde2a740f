package cluster_test

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// obedient is a worker that does what the master asks it to, and nothing by
// itself.
var obedient = program("obedient", func() {
	serveOrders()
	select {}
})

// order is what obedient is asked: its cmd is the verb.
type order struct {
	Cmd  string   `json:"cmd"`
	Code int      `json:"code,omitempty"`
	Env  []string `json:"env,omitempty"`
	Text string   `json:"text,omitempty"`
}

// about is what a process can say about itself.
type about struct {
	Args        []string
	Exe, Dir    string
	Env         map[string]string
	UID, GID    int
	Groups      []int
	MaxProcs    int
	Slot, ID    int
	Descriptors []string
}

func serveOrders() {
	cluster.Respond("about", func(_ *cluster.Process, o order) (about, error) { return aboutSelf(o.Env), nil })
	cluster.Respond("exit", func(_ *cluster.Process, o order) (any, error) {
		os.Exit(o.Code)
		return nil, nil
	})
	cluster.Respond("listen", func(*cluster.Process, order) (string, error) {
		ln, err := cluster.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		go ln.Accept()
		return ln.Addr().String(), nil
	})
	cluster.Respond("ready", func(w *cluster.Process, _ order) (any, error) { return nil, w.Ready() })
	cluster.Respond("print", func(_ *cluster.Process, o order) (any, error) {
		os.Stdout.WriteString(o.Text)
		return nil, nil
	})
	// child starts a process that inherits all it can and outlives the worker.
	cluster.Respond("child", func(_ *cluster.Process, o order) (int, error) {
		c := exec.Command("/bin/sh", "-c", o.Text)
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		if err := c.Start(); err != nil {
			return 0, err
		}
		return c.Process.Pid, nil
	})
	cluster.Respond("disconnect", func(w *cluster.Process, _ order) (any, error) {
		go w.Disconnect(context.Background())
		return nil, nil
	})
	cluster.Respond("kill", func(w *cluster.Process, _ order) (any, error) {
		go w.Kill()
		return nil, nil
	})
}

func aboutSelf(env []string) about {
	a := about{
		Args: os.Args, UID: syscall.Getuid(), GID: syscall.Getgid(), MaxProcs: runtime.GOMAXPROCS(0),
		Slot: cluster.Worker.Slot(), ID: cluster.Worker.ID(), Descriptors: descriptors(), Env: make(map[string]string),
	}
	a.Exe, _ = os.Readlink("/proc/self/exe")
	a.Dir, _ = os.Getwd()
	a.Groups, _ = syscall.Getgroups()
	for _, k := range env {
		if v, ok := os.LookupEnv(k); ok {
			a.Env[k] = v
		}
	}
	return a
}

// ask gives an order to a worker and returns its answer.
func ask[A any](t *testing.T, w *cluster.Process, o order) (answer A) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, w.Request(ctx, o, &answer), "%s to worker %d", o.Cmd, w.ID())
	return answer
}

// tell gives an order that the worker may not live to answer.
func tell(t *testing.T, w *cluster.Process, o order) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.Request(ctx, o, nil); err != nil {
		require.ErrorIs(t, err, cluster.ErrClosed)
	}
}

// forkOne forks a worker and fails the test if that fails.
func forkOne(t *testing.T, env ...string) *cluster.Process {
	t.Helper()
	w, err := tryFork(env...)
	require.NoError(t, err)
	return w
}

// tryFork is cluster.Fork, once more where it failed for no reason.
func tryFork(env ...string) (*cluster.Process, error) {
	w, err := cluster.Fork(env...)
	if spurious(err) {
		return cluster.Fork(env...)
	}
	return w, err
}

// dying is a worker whose death the test will wait for.
type dying struct {
	w *cluster.Process
	e cluster.Exit
}

// deaths returns the deaths of all workers from now on.
func deaths(t *testing.T) <-chan dying {
	c := make(chan dying, 10000)
	t.Cleanup(cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) { c <- dying{w, e} }))
	return c
}

// onlines returns the workers that come online from now on.
func onlines(t *testing.T) <-chan *cluster.Process {
	c := make(chan *cluster.Process, 10000)
	t.Cleanup(cluster.OnOnline(func(w *cluster.Process) { c <- w }))
	return c
}

// listenings returns the workers that listen from now on.
func listenings(t *testing.T) <-chan *cluster.Process {
	c := make(chan *cluster.Process, 10000)
	t.Cleanup(cluster.OnListening(func(w *cluster.Process, _ net.Addr) { c <- w }))
	return c
}

// within returns a context for calls that must end by themselves.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// stopAll ends the test's cluster, gracefully.
func stopAll(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, cluster.Disconnect(ctx))
}

// lineWriter hands what is written to it over by lines.
type lineWriter struct {
	c    chan string
	mu   sync.Mutex
	half string
}

func newLineWriter() *lineWriter { return &lineWriter{c: make(chan string, 10000)} }

func (l *lineWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(l.half+string(p), "\n")
	for _, line := range lines[:len(lines)-1] {
		l.c <- line
	}
	l.half = lines[len(lines)-1]
	return len(p), nil
}

// both is an Options.Output that takes the standard output and error of all.
func (l *lineWriter) both(*cluster.Process) (stdout, stderr io.Writer) { return l, l }
