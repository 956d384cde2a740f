package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// runMaster is a master whose main loop is Run. It prints what happens. The
// environment says what its workers are and how Run is to end.
var runMaster = clustertest.Program("run-master", func() {
	timeout, _ := time.ParseDuration(os.Getenv("RUN_SHUTDOWN_TIMEOUT"))
	clustertest.Must(cluster.SetupMaster(cluster.Options{
		Workers: 2, Env: []string{clustertest.ProgramEnv + "=" + os.Getenv("RUN_WORKERS")}, ShutdownTimeout: timeout,
	}))
	cluster.OnListening(func(w *cluster.Process, addr net.Addr) { fmt.Println("listening", w.PID(), clustertest.Dialable(addr)) })
	cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) { fmt.Println("death", e.Code, e.Signal, e.Voluntary) })
	cluster.OnShutdown(func(context.Context) error {
		fmt.Println("hook", len(cluster.Workers()), "Context:", cluster.Context().Err())
		return nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if os.Getenv("RUN_CTX") != "" {
		cluster.OnRequest(func(*cluster.Process, cluster.Message) (any, error) {
			cancel()
			return nil, nil
		})
	}
	err := cluster.Run(ctx)
	fmt.Println("returned", err, "ctx", errors.Is(err, context.Canceled), "deadline", errors.Is(err, context.DeadlineExceeded))
	clustertest.Must(err)
})

// endingRun listens, and asks the master to end its Run's context.
var endingRun = clustertest.Program("ending-run", func() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	cluster.Worker.Request(cluster.Context(), "end", nil)
	ln.Accept()
})

// lingering listens, and its drain takes as long as it may.
var lingering = clustertest.Program("lingering", func() {
	// Before it listens: the master may stop it at once then.
	cluster.OnShutdown(func(ctx context.Context) error {
		fmt.Println("lingers")
		<-ctx.Done()
		return nil
	})
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	ln.Accept()
})

// TestRunStops: SIGTERM to the master, Ctrl-C to the whole foreground group and
// the end of ctx all stop the cluster gracefully: every worker drains and exits
// with 0, voluntarily, the hooks run when all are gone, and the master exits
// with 0. The port is free then.
func TestRunStops(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		workers string
		stop    func(p *clustertest.Proc)
	}{
		"SIGTERM": {idle, func(p *clustertest.Proc) { p.Signal(syscall.SIGTERM) }},
		"SIGINT":  {idle, func(p *clustertest.Proc) { p.Signal(syscall.SIGINT) }},
		"Ctrl-C":  {idle, func(p *clustertest.Proc) { p.CtrlC() }},
		"ctx":     {endingRun, func(*clustertest.Proc) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := clustertest.UnusedAddress(t, "tcp", "")
			p := clustertest.Start(t, runMaster, "RUN_WORKERS="+c.workers, "RUN_CTX="+name, "ADDRESS="+addr)
			if c.workers == idle {
				p.Expect("listening")
				p.Expect("listening")
			}
			c.stop(p)
			p.Expect("returned <nil>")
			require.Zero(t, p.Exit())
			p.GroupEmpty()
			ln, err := net.Listen("tcp", addr)
			require.NoError(t, err)
			ln.Close()
			out := p.Output()
			require.Equal(t, 2, strings.Count(out, "death 0 <nil> true\n"), "both workers drained")
			require.Equal(t, 2, strings.Count(out, "death"))
			require.Equal(t, 1, strings.Count(out, "hook 0 Context: context canceled\n"), "once, after the last worker")
		})
	}
}

// TestRunSecondSignal: a second signal shortens a drain that takes long. The
// exit status is 0 if the workers ended by themselves in what was left, which
// they do unless the machine is very busy.
func TestRunSecondSignal(t *testing.T) {
	t.Parallel()
	p := clustertest.Start(t, runMaster, "RUN_WORKERS="+lingering, "RUN_SHUTDOWN_TIMEOUT=10m")
	p.Expect("listening")
	p.Expect("listening")
	p.Signal(syscall.SIGTERM)
	p.Expect("lingers")
	p.Expect("lingers")
	p.Signal(syscall.SIGINT)
	p.Expect("returned")
	graceful := strings.Count(p.Output(), "death 0 <nil> true\n") == 2
	require.Equal(t, graceful, p.Exit() == 0)
	p.GroupEmpty()
}

// TestRunHadToKill: the exit status says when a worker did not end by itself.
func TestRunHadToKill(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		timeout, workers, want string
		signals                int
	}{
		"ShutdownTimeout": {"3s", idle, "ctx false deadline true", 1},
		"second signal":   {"10m", idle, "ctx false deadline true", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := clustertest.Start(t, runMaster, "RUN_WORKERS="+c.workers, "RUN_SHUTDOWN_TIMEOUT="+c.timeout)
			stopped := strings.Fields(p.Expect("listening"))[0]
			p.Expect("listening")
			clustertest.Pause(t, clustertest.Atoi(stopped))
			p.Signal(syscall.SIGTERM)
			p.Expect("death 0 <nil> true")
			if c.signals > 1 {
				p.Signal(syscall.SIGTERM)
			}
			p.Expect("death " + clustertest.System.Killed + " true")
			require.Contains(t, p.Expect("returned"), c.want)
			require.Equal(t, 1, p.Exit())
			p.GroupEmpty()
		})
	}
}

// TestRunContextHadToKill: when ctx ended Run, and a worker had to be killed,
// the error wraps both reasons.
func TestRunContextHadToKill(t *testing.T) {
	clustertest.WithMaster(t, idle, cluster.Options{Workers: 1, ShutdownTimeout: 200 * time.Millisecond})
	listens := clustertest.Listenings(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cluster.Run(ctx) }()
	w := clustertest.Await(t, listens, "listening")
	clustertest.Pause(t, w.PID())
	cancel()
	err := clustertest.Await(t, done, "end of Run")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, strconv.Itoa(w.ID()))
}

// TestRunsShareOneStop: several Run calls are one; the first ctx that ends ends
// all. Afterwards Run works again.
func TestRunsShareOneStop(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Workers: 2})
	online := clustertest.Onlines(t)
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 3)
		for range 2 {
			go func() { done <- cluster.Run(t.Context()) }()
		}
		clustertest.Await(t, online, "online")
		clustertest.Await(t, online, "online")
		go func() { done <- cluster.Run(ctx) }()
		cancel()
		for range 3 {
			require.NoError(t, clustertest.Await(t, done, "end of Run"))
		}
		require.Empty(t, cluster.Workers())
		require.Empty(t, online, "one AutoFork for all")
	}
}

// TestDisconnectEndsRun: after a Disconnect by the program nothing is left to wait
// for, so Run returns, and so does what is Run in a master that has forked.
func TestDisconnectEndsRun(t *testing.T) {
	for name, wait := range map[string]func() error{
		"Run":            func() error { return cluster.Run(context.Background()) },
		"ListenAndServe": func() error { return cluster.ListenAndServe("127.0.0.1:0", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Workers: 2})
			online := clustertest.Onlines(t)
			require.NoError(t, cluster.AutoFork())
			hooked := make(chan struct{}, 1)
			t.Cleanup(cluster.OnShutdown(func(context.Context) error { hooked <- struct{}{}; return nil }))
			done := make(chan error, 1)
			go func() { done <- wait() }()
			clustertest.Await(t, online, "online")
			clustertest.Await(t, online, "online")
			require.NoError(t, cluster.Disconnect(clustertest.Within(t, clustertest.Patience)))
			require.NoError(t, clustertest.Await(t, done, "end of "+name))
			clustertest.Await(t, hooked, "the hook of OnShutdown")
		})
	}
}

// TestRunTakesOverWorkers: Run supervises what AutoFork and Fork began, and
// starts nothing itself then.
func TestRunTakesOverWorkers(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Workers: 2})
	online := clustertest.Onlines(t)
	w := clustertest.Fork(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cluster.Run(ctx) }()
	clustertest.Await(t, online, "online")
	clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about"})
	require.Len(t, cluster.Workers(), 1)
	cancel()
	require.NoError(t, clustertest.Await(t, done, "end of Run"))
	require.True(t, w.ExitedAfterDisconnect())
}

// TestRunFails: when the workers cannot be started, or keep dying before they
// are ready, Run says so instead of waiting for ever.
func TestRunFails(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	t.Run("no program", func(t *testing.T) {
		clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Exec: "/no/such/file"})
		require.ErrorIs(t, cluster.Run(t.Context()), os.ErrNotExist)
	})
	crash := cluster.Options{Workers: 1, Env: []string{clustertest.ProgramEnv + "=" + clustertest.Failing, "EXIT=9"}}
	t.Run("boot loop", func(t *testing.T) {
		clustertest.WithMaster(t, clustertest.CommandWorker, crash)
		dead := clustertest.Deaths(t)
		err := cluster.Run(t.Context())
		require.ErrorIs(t, err, cluster.ErrBootLoop)
		require.ErrorContains(t, err, "exit status 9")
		require.Len(t, dead, 5)
	})
	t.Run("boot loop before Run", func(t *testing.T) {
		clustertest.WithMaster(t, clustertest.CommandWorker, crash)
		dead := clustertest.Deaths(t)
		require.NoError(t, cluster.AutoFork())
		// One beside the slots, so that Run has something to stop.
		require.NoError(t, cluster.SetupMaster(cluster.Options{Env: []string{clustertest.ProgramEnv + "=" + clustertest.CommandWorker}}))
		clustertest.Fork(t)
		for range 5 {
			clustertest.Await(t, dead, "death")
		}
		// The last of the five deaths and what follows from it are one step of
		// the master's; Workers comes behind it.
		require.Len(t, cluster.Workers(), 1)
		require.ErrorIs(t, cluster.Run(t.Context()), cluster.ErrBootLoop)
		require.Empty(t, cluster.Workers())
	})
}

// TestRunEndIsClosed: nothing can be forked from the stop until Run returns:
// not by a hook, and not by an OnDeath that comes late. Afterwards it can.
func TestRunEndIsClosed(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Workers: 1})
	online := clustertest.Onlines(t)
	hooked := make(chan struct{})
	tried := make(chan error, 10)
	t.Cleanup(cluster.OnShutdown(func(context.Context) error {
		tried <- cluster.AutoFork()
		close(hooked)
		return nil
	}))
	stopDeath := cluster.OnDeath(func(*cluster.Process, cluster.Exit) {
		<-hooked
		_, err := cluster.Fork()
		tried <- err
	})
	defer stopDeath()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cluster.Run(ctx) }()
	clustertest.Await(t, online, "online")
	cancel()
	require.NoError(t, clustertest.Await(t, done, "end of Run"))
	require.ErrorIs(t, clustertest.Await(t, tried, "AutoFork"), cluster.ErrClosed)
	require.ErrorIs(t, clustertest.Await(t, tried, "Fork"), cluster.ErrClosed)
	stopDeath()
	require.NoError(t, cluster.AutoFork())
	clustertest.Await(t, online, "online")
}

// TestDisconnectNone: with no worker Disconnect returns at once, with no error
// even if ctx has ended.
func TestDisconnectNone(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, ctx := range []context.Context{t.Context(), ended} {
		require.NoError(t, cluster.Disconnect(ctx))
	}
}

// TestDisconnectStarting: a worker that is told to stop before it is online, or
// before it listens, exits with 0 as any other.
func TestDisconnectStarting(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	clustertest.WithMaster(t, idle, cluster.Options{Workers: 8})
	dead := clustertest.Deaths(t)
	for round := range 4 {
		if round%2 == 0 {
			require.NoError(t, cluster.AutoFork())
			clustertest.StopAll(t)
		} else {
			var all sync.WaitGroup
			for range 8 {
				w := clustertest.Fork(t)
				all.Go(func() {
					if err := w.Disconnect(clustertest.Within(t, clustertest.Patience)); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
		}
		for range 8 {
			d := clustertest.Await(t, dead, "death")
			require.Zero(t, d.Exit.Code, "%v", d.Exit)
			require.True(t, d.Exit.Voluntary)
		}
	}
}

// TestDisconnectIsExclusive: while a Disconnect is under way nothing is forked,
// and other Disconnect calls wait for the same end. Afterwards all works again.
func TestDisconnectIsExclusive(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Workers: 1})
	online := clustertest.Onlines(t)
	w := clustertest.Fork(t)
	clustertest.Await(t, online, "online")
	clustertest.Pause(t, w.PID())
	done := make(chan error, 10)
	for range 5 {
		go func() { done <- cluster.Disconnect(clustertest.Within(t, clustertest.Patience)) }()
	}
	clustertest.Eventually(t, func() bool { return w.State() == cluster.Draining }, "the drain")
	_, err := cluster.Fork()
	require.ErrorIs(t, err, cluster.ErrClosed)
	require.ErrorIs(t, cluster.AutoFork(), cluster.ErrClosed)
	require.Empty(t, done)
	clustertest.Kill(t, w.PID(), clustertest.SigCont)
	for range 5 {
		require.NoError(t, clustertest.Await(t, done, "end of Disconnect"))
	}
	require.NoError(t, cluster.AutoFork())
	require.Equal(t, 0, clustertest.Await(t, online, "online").Slot())
}

// TestDisconnectContext: when ctx ends Disconnect kills what is left and says
// so; a worker's own Disconnect returns, and the drain goes on.
func TestDisconnectContext(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{})
	online, dead := clustertest.Onlines(t), clustertest.Deaths(t)
	w := clustertest.Fork(t)
	clustertest.Await(t, online, "online")
	clustertest.Pause(t, w.PID())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.Equal(t, context.DeadlineExceeded, w.Disconnect(ctx))
	require.False(t, w.IsDead())
	require.True(t, w.ExitedAfterDisconnect())
	clustertest.Kill(t, w.PID(), clustertest.SigCont)
	require.Zero(t, clustertest.Await(t, dead, "death").Exit.Code)

	w = clustertest.Fork(t)
	clustertest.Await(t, online, "online")
	clustertest.Pause(t, w.PID())
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, context.Canceled, cluster.Disconnect(gone))
	require.True(t, w.IsDead())
	d := clustertest.Await(t, dead, "death")
	clustertest.RequireKilled(t, d.Exit)
	require.True(t, d.Exit.Voluntary)
}

// TestDisconnectEndsAForkLoop: a program that forks a worker for each that dies
// does not keep Disconnect going for ever.
func TestDisconnectEndsAForkLoop(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{})
	online := clustertest.Onlines(t)
	var over atomic.Bool
	var forked, ended atomic.Int32
	closed := make(chan error, 10000)
	t.Cleanup(cluster.OnDeath(func(*cluster.Process, cluster.Exit) {
		defer ended.Add(1)
		if over.Load() {
			return
		}
		if _, err := cluster.Fork(); err != nil {
			closed <- err
		} else {
			forked.Add(1)
		}
	}))
	const first = 4
	for range first {
		clustertest.Fork(t)
		forked.Add(1)
	}
	for range first {
		require.NoError(t, clustertest.Await(t, online, "online").OSProcess().Kill())
	}
	// One that takes longer keeps the Disconnect under way while the others die.
	slow := clustertest.Await(t, online, "online of a replacement")
	clustertest.Pause(t, slow.PID())
	done := make(chan error, 1)
	go func() { done <- cluster.Disconnect(clustertest.Within(t, clustertest.Patience)) }()
	require.ErrorIs(t, clustertest.Await(t, closed, "refused fork"), cluster.ErrClosed)
	clustertest.Kill(t, slow.PID(), clustertest.SigCont)
	require.NoError(t, clustertest.Await(t, done, "end of Disconnect"))
	require.Greater(t, forked.Load(), int32(first))
	// Afterwards forks work again, and a callback that comes late makes one.
	over.Store(true)
	clustertest.Eventually(t, func() bool {
		clustertest.StopAll(t)
		return ended.Load() == forked.Load()
	}, "the end of the last callback")
}

// orphan drains for a while when its master is gone, and says so where the
// master no longer can.
var orphan = clustertest.Program("orphan", func() {
	cluster.OnShutdown(func(context.Context) error {
		fmt.Println("orphan drained", cluster.Worker.ExitedAfterDisconnect())
		return nil
	})
	ln, err := cluster.Listen("tcp", os.Getenv("ORPHAN_ADDRESS"))
	clustertest.Must(err)
	ln.Accept()
})

// TestMasterKilled: when the master dies of SIGKILL its workers notice at once,
// drain and exit; the port is free then.
func TestMasterKilled(t *testing.T) {
	t.Parallel()
	// A port of the system's choice somebody else may get once it is free.
	addr := clustertest.UnusedAddress(t, "tcp", "")
	p := clustertest.Start(t, runMaster, "RUN_WORKERS="+orphan, "ORPHAN_ADDRESS="+addr)
	p.Expect("listening")
	p.Expect("listening")
	p.Signal(syscall.SIGKILL)
	p.Expect("orphan drained false")
	p.Expect("orphan drained false")
	p.GroupEmpty()
	ln, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	ln.Close()
	require.NotContains(t, p.Output(), "panic")
}

// TestMasterDiesWhileWorkersStart: a worker whose master is gone before it is
// online is no master of its own: nothing is left, and nothing forks on.
func TestMasterDiesWhileWorkersStart(t *testing.T) {
	t.Parallel()
	for range 10 {
		p := clustertest.Start(t, dyingMaster)
		require.Equal(t, clustertest.System.KilledCode, p.Exit())
		p.GroupEmpty()
	}
}

// dyingMaster kills itself as soon as it has forked. Its workers are the same
// program.
var dyingMaster = clustertest.Program("dying-master", func() {
	clustertest.Must(cluster.AutoFork())
	if cluster.IsMaster() {
		self, err := os.FindProcess(os.Getpid())
		clustertest.Must(err)
		self.Kill()
	}
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	ln.Accept()
})
