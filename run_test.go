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
	"github.com/stretchr/testify/require"
)

// runMaster is a master whose main loop is Run. It prints what happens. The
// environment says what its workers are and how Run is to end.
var runMaster = program("run-master", func() {
	timeout, _ := time.ParseDuration(os.Getenv("RUN_SHUTDOWN_TIMEOUT"))
	die(cluster.SetupMaster(cluster.Options{
		Workers: 2, Env: []string{programEnv + "=" + os.Getenv("RUN_WORKERS")}, ShutdownTimeout: timeout,
	}))
	cluster.OnListening(func(w *cluster.Process, addr net.Addr) { fmt.Println("listening", w.PID(), dialable(addr)) })
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
	die(err)
})

// endingRun listens, and asks the master to end its Run's context.
var endingRun = program("ending-run", func() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	die(err)
	cluster.Worker.Request(cluster.Context(), "end", nil)
	ln.Accept()
})

// lingering listens, and its drain takes as long as it may.
var lingering = program("lingering", func() {
	// Before it listens: the master may stop it at once then.
	cluster.OnShutdown(func(ctx context.Context) error {
		fmt.Println("lingers")
		<-ctx.Done()
		return nil
	})
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	die(err)
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
		stop    func(p *proc)
	}{
		"SIGTERM": {idle, func(p *proc) { p.signal(syscall.SIGTERM) }},
		"SIGINT":  {idle, func(p *proc) { p.signal(syscall.SIGINT) }},
		"Ctrl-C":  {idle, func(p *proc) { p.ctrlC() }},
		"ctx":     {endingRun, func(*proc) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, runMaster, "RUN_WORKERS="+c.workers, "RUN_CTX="+name)
			var addr string
			if c.workers == idle {
				addr = strings.Fields(p.expect("listening"))[1]
				p.expect("listening")
			}
			c.stop(p)
			p.expect("returned <nil>")
			require.Zero(t, p.exit())
			p.groupEmpty()
			if addr != "" {
				ln, err := net.Listen("tcp", addr)
				require.NoError(t, err)
				ln.Close()
			}
			out := p.output()
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
	p := start(t, runMaster, "RUN_WORKERS="+lingering, "RUN_SHUTDOWN_TIMEOUT=10m")
	p.expect("listening")
	p.expect("listening")
	p.signal(syscall.SIGTERM)
	p.expect("lingers")
	p.expect("lingers")
	p.signal(syscall.SIGINT)
	p.expect("returned")
	graceful := strings.Count(p.output(), "death 0 <nil> true\n") == 2
	require.Equal(t, graceful, p.exit() == 0)
	p.groupEmpty()
}

// TestRunHadToKill: the exit status says when a worker did not end by itself.
func TestRunHadToKill(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		timeout, workers, want string
		signals                int
	}{
		"ShutdownTimeout": {"300ms", idle, "ctx false deadline true", 1},
		"second signal":   {"10m", idle, "ctx false deadline true", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, runMaster, "RUN_WORKERS="+c.workers, "RUN_SHUTDOWN_TIMEOUT="+c.timeout)
			stopped := strings.Fields(p.expect("listening"))[0]
			p.expect("listening")
			pause(t, atoi(stopped))
			p.signal(syscall.SIGTERM)
			p.expect("death 0 <nil> true")
			if c.signals > 1 {
				p.signal(syscall.SIGTERM)
			}
			p.expect("death " + system.killed + " true")
			require.Contains(t, p.expect("returned"), c.want)
			require.Equal(t, 1, p.exit())
			p.groupEmpty()
		})
	}
}

// TestRunContextHadToKill: when ctx ended Run, and a worker had to be killed,
// the error wraps both reasons.
func TestRunContextHadToKill(t *testing.T) {
	withMaster(t, idle, cluster.Options{Workers: 1, ShutdownTimeout: 200 * time.Millisecond})
	listens := listenings(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cluster.Run(ctx) }()
	w := await(t, listens, "listening")
	pause(t, w.PID())
	cancel()
	err := await(t, done, "end of Run")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, strconv.Itoa(w.ID()))
}

// TestRunsShareOneStop: several Run calls are one; the first ctx that ends ends
// all. Afterwards Run works again.
func TestRunsShareOneStop(t *testing.T) {
	withMaster(t, obedient, cluster.Options{Workers: 2})
	online := onlines(t)
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 3)
		for range 2 {
			go func() { done <- cluster.Run(t.Context()) }()
		}
		await(t, online, "online")
		await(t, online, "online")
		go func() { done <- cluster.Run(ctx) }()
		cancel()
		for range 3 {
			require.NoError(t, await(t, done, "end of Run"))
		}
		require.Empty(t, cluster.Workers())
		require.Empty(t, online, "one AutoFork for all")
	}
}

// TestRunTakesOverWorkers: Run supervises what AutoFork and Fork began, and
// starts nothing itself then.
func TestRunTakesOverWorkers(t *testing.T) {
	withMaster(t, obedient, cluster.Options{Workers: 2})
	online := onlines(t)
	w := forkOne(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cluster.Run(ctx) }()
	await(t, online, "online")
	ask[about](t, w, order{Cmd: "about"})
	require.Len(t, cluster.Workers(), 1)
	cancel()
	require.NoError(t, await(t, done, "end of Run"))
	require.True(t, w.ExitedAfterDisconnect())
}

// TestRunFails: when the workers cannot be started, or keep dying before they
// are ready, Run says so instead of waiting for ever.
func TestRunFails(t *testing.T) {
	if apart(t) {
		return
	}
	t.Run("no program", func(t *testing.T) {
		withMaster(t, obedient, cluster.Options{Exec: "/no/such/file"})
		require.ErrorIs(t, cluster.Run(t.Context()), os.ErrNotExist)
	})
	crash := cluster.Options{Workers: 1, Env: []string{programEnv + "=" + failing, "EXIT=9"}}
	t.Run("boot loop", func(t *testing.T) {
		withMaster(t, obedient, crash)
		dead := deaths(t)
		err := cluster.Run(t.Context())
		require.ErrorIs(t, err, cluster.ErrBootLoop)
		require.ErrorContains(t, err, "exit status 9")
		require.Len(t, dead, 5)
	})
	t.Run("boot loop before Run", func(t *testing.T) {
		withMaster(t, obedient, crash)
		dead := deaths(t)
		require.NoError(t, cluster.AutoFork())
		// One beside the slots, so that Run has something to stop.
		require.NoError(t, cluster.SetupMaster(cluster.Options{Env: []string{programEnv + "=" + obedient}}))
		forkOne(t)
		for range 5 {
			await(t, dead, "death")
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
	withMaster(t, obedient, cluster.Options{Workers: 1})
	online := onlines(t)
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
	await(t, online, "online")
	cancel()
	require.NoError(t, await(t, done, "end of Run"))
	require.ErrorIs(t, await(t, tried, "AutoFork"), cluster.ErrClosed)
	require.ErrorIs(t, await(t, tried, "Fork"), cluster.ErrClosed)
	stopDeath()
	require.NoError(t, cluster.AutoFork())
	await(t, online, "online")
}

// TestDisconnectNone: with no worker Disconnect returns at once, with no error
// even if ctx has ended.
func TestDisconnectNone(t *testing.T) {
	withMaster(t, obedient, cluster.Options{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, ctx := range []context.Context{t.Context(), ended} {
		require.NoError(t, cluster.Disconnect(ctx))
	}
}

// TestDisconnectStarting: a worker that is told to stop before it is online, or
// before it listens, exits with 0 as any other.
func TestDisconnectStarting(t *testing.T) {
	withMaster(t, idle, cluster.Options{Workers: 8})
	dead := deaths(t)
	for round := range 4 {
		if round%2 == 0 {
			require.NoError(t, cluster.AutoFork())
			stopAll(t)
		} else {
			var all sync.WaitGroup
			for range 8 {
				w := forkOne(t)
				all.Go(func() {
					if err := w.Disconnect(within(t, patience)); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
		}
		for range 8 {
			d := await(t, dead, "death")
			require.Zero(t, d.e.Code, "%v", d.e)
			require.True(t, d.e.Voluntary)
		}
	}
}

// TestDisconnectIsExclusive: while a Disconnect is under way nothing is forked,
// and other Disconnect calls wait for the same end. Afterwards all works again.
func TestDisconnectIsExclusive(t *testing.T) {
	withMaster(t, obedient, cluster.Options{Workers: 1})
	online := onlines(t)
	w := forkOne(t)
	await(t, online, "online")
	pause(t, w.PID())
	done := make(chan error, 10)
	for range 5 {
		go func() { done <- cluster.Disconnect(within(t, patience)) }()
	}
	eventually(t, func() bool { return w.State() == cluster.Draining }, "the drain")
	_, err := cluster.Fork()
	require.ErrorIs(t, err, cluster.ErrClosed)
	require.ErrorIs(t, cluster.AutoFork(), cluster.ErrClosed)
	require.Empty(t, done)
	kill(t, w.PID(), sigCont)
	for range 5 {
		require.NoError(t, await(t, done, "end of Disconnect"))
	}
	require.NoError(t, cluster.AutoFork())
	require.Equal(t, 0, await(t, online, "online").Slot())
}

// TestDisconnectContext: when ctx ends Disconnect kills what is left and says
// so; a worker's own Disconnect returns, and the drain goes on.
func TestDisconnectContext(t *testing.T) {
	withMaster(t, obedient, cluster.Options{})
	online, dead := onlines(t), deaths(t)
	w := forkOne(t)
	await(t, online, "online")
	pause(t, w.PID())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.Equal(t, context.DeadlineExceeded, w.Disconnect(ctx))
	require.False(t, w.IsDead())
	require.True(t, w.ExitedAfterDisconnect())
	kill(t, w.PID(), sigCont)
	require.Zero(t, await(t, dead, "death").e.Code)

	w = forkOne(t)
	await(t, online, "online")
	pause(t, w.PID())
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, context.Canceled, cluster.Disconnect(gone))
	require.True(t, w.IsDead())
	d := await(t, dead, "death")
	requireKilled(t, d.e)
	require.True(t, d.e.Voluntary)
}

// TestDisconnectEndsAForkLoop: a program that forks a worker for each that dies
// does not keep Disconnect going for ever.
func TestDisconnectEndsAForkLoop(t *testing.T) {
	withMaster(t, obedient, cluster.Options{})
	online := onlines(t)
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
		forkOne(t)
		forked.Add(1)
	}
	for range first {
		require.NoError(t, await(t, online, "online").OSProcess().Kill())
	}
	// One that takes longer keeps the Disconnect under way while the others die.
	slow := await(t, online, "online of a replacement")
	pause(t, slow.PID())
	done := make(chan error, 1)
	go func() { done <- cluster.Disconnect(within(t, patience)) }()
	require.ErrorIs(t, await(t, closed, "refused fork"), cluster.ErrClosed)
	kill(t, slow.PID(), sigCont)
	require.NoError(t, await(t, done, "end of Disconnect"))
	require.Greater(t, forked.Load(), int32(first))
	// Afterwards forks work again, and a callback that comes late makes one.
	over.Store(true)
	eventually(t, func() bool {
		stopAll(t)
		return ended.Load() == forked.Load()
	}, "the end of the last callback")
}

// orphan drains for a while when its master is gone, and says so where the
// master no longer can.
var orphan = program("orphan", func() {
	cluster.OnShutdown(func(context.Context) error {
		fmt.Println("orphan drained", cluster.Worker.ExitedAfterDisconnect())
		return nil
	})
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	die(err)
	ln.Accept()
})

// TestMasterKilled: when the master dies of SIGKILL its workers notice at once,
// drain and exit; the port is free then.
func TestMasterKilled(t *testing.T) {
	t.Parallel()
	p := start(t, runMaster, "RUN_WORKERS="+orphan)
	addr := strings.Fields(p.expect("listening"))[1]
	p.expect("listening")
	p.signal(syscall.SIGKILL)
	p.expect("orphan drained false")
	p.expect("orphan drained false")
	p.groupEmpty()
	ln, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	ln.Close()
	require.NotContains(t, p.output(), "panic")
}

// TestMasterDiesWhileWorkersStart: a worker whose master is gone before it is
// online is no master of its own: nothing is left, and nothing forks on.
func TestMasterDiesWhileWorkersStart(t *testing.T) {
	t.Parallel()
	for range 10 {
		p := start(t, dyingMaster)
		require.Equal(t, system.killedCode, p.exit())
		p.groupEmpty()
	}
}

// dyingMaster kills itself as soon as it has forked. Its workers are the same
// program.
var dyingMaster = program("dying-master", func() {
	die(cluster.AutoFork())
	if cluster.IsMaster() {
		self, err := os.FindProcess(os.Getpid())
		die(err)
		self.Kill()
	}
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	die(err)
	ln.Accept()
})
