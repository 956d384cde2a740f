package cluster_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// idle listens, on a free port or that of ADDRESS, accepts and waits to be drained.
var idle = clustertest.Program("idle", func() {
	ln, err := cluster.Listen("tcp", cmp.Or(os.Getenv("ADDRESS"), "127.0.0.1:0"))
	clustertest.Must(err)
	go ln.Accept()
	<-cluster.Context().Done()
	ln.Close()
	select {}
})

// TestLifeOfAWorker sees every event of one worker, once and in order, and its
// state at each.
func TestLifeOfAWorker(t *testing.T) {
	clustertest.WithMaster(t, idle, cluster.Options{})
	rec := clustertest.NewRecorder()
	t.Cleanup(cluster.OnFork(func(w *cluster.Process) { rec.Add("fork %d", w.ID()) }))
	t.Cleanup(cluster.OnOnline(func(w *cluster.Process) { rec.Add("online %v", w.State() >= cluster.Online) }))
	t.Cleanup(cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
		rec.Add("listening %s %v %v", addr.Network(), addr.(*net.TCPAddr).Port > 0, w.State() >= cluster.Online)
	}))
	t.Cleanup(cluster.OnReady(func(w *cluster.Process) { rec.Add("ready %v", w.State() >= cluster.Ready) }))
	t.Cleanup(cluster.OnDisconnect(func(w *cluster.Process) { rec.Add("disconnect %v", w.IsConnected()) }))
	t.Cleanup(cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) {
		rec.Add("death %d %v voluntary=%v dead=%v", e.Code, e.Signal, e.Voluntary, w.IsDead())
	}))

	w, err := cluster.Fork()
	require.NoError(t, err)
	rec.Until(t, "listening")
	clustertest.Eventually(t, func() bool { return w.State() == cluster.Ready }, "ready")
	require.Equal(t, -1, w.Slot())
	require.Equal(t, []*cluster.Process{w}, cluster.Workers())
	require.NoError(t, w.Disconnect(t.Context()))
	rec.Until(t, "death")
	require.Empty(t, cluster.Workers())
	require.Equal(t, []string{
		"fork " + strconv.Itoa(w.ID()), "online true", "listening tcp true true", "ready true", "disconnect false",
		"death 0 <nil> voluntary=true dead=true",
	}, rec.All())
}

// TestAutoFork: it fills every slot, does nothing while workers run, and fills
// the slots again after a Disconnect.
func TestAutoFork(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Workers: 3})
	for range 2 {
		online := clustertest.Onlines(t)
		require.NoError(t, cluster.AutoFork())
		slots := make(map[int]bool)
		for range 3 {
			slots[clustertest.Await(t, online, "online").Slot()] = true
		}
		require.Equal(t, map[int]bool{0: true, 1: true, 2: true}, slots)
		require.NoError(t, cluster.AutoFork())
		workers := cluster.Workers()
		require.Len(t, workers, 3)
		var each []*cluster.Process
		cluster.EachWorker(func(w *cluster.Process) { each = append(each, w) })
		require.Equal(t, workers, each)
		for i, w := range workers[1:] {
			require.Greater(t, w.ID(), workers[i].ID(), "by id")
		}
		for _, w := range workers {
			require.Equal(t, w.Slot(), clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about"}).Slot, "the worker knows its slot")
		}
		clustertest.StopAll(t)
		require.Empty(t, cluster.Workers())
	}
}

// TestForkIsIndependentOfSlots: a plain Fork beside AutoFork has no slot and is
// not replaced; AutoFork does nothing while it runs.
func TestForkIsIndependentOfSlots(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Workers: 1})
	online, dead := clustertest.Onlines(t), clustertest.Deaths(t)
	w := clustertest.Fork(t)
	clustertest.Await(t, online, "online")
	require.NoError(t, cluster.AutoFork())
	require.Len(t, cluster.Workers(), 1)
	require.NoError(t, w.OSProcess().Kill())
	require.False(t, clustertest.Await(t, dead, "death").Exit.Voluntary)
	require.NoError(t, cluster.AutoFork())
	require.Equal(t, 0, clustertest.Await(t, online, "online").Slot())
	require.Len(t, cluster.Workers(), 1)
}

// TestSetupMasterIsForLaterForks: workers and slots that exist keep the options
// with which they began.
func TestSetupMasterIsForLaterForks(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Workers: 1, Env: []string{"GENERATION=1"}})
	online := clustertest.Onlines(t)
	generation := func(w *cluster.Process) string {
		return clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about", Env: []string{"GENERATION"}}).Env["GENERATION"]
	}
	require.NoError(t, cluster.AutoFork())
	w := clustertest.Await(t, online, "online")
	o := cluster.Settings()
	o.Env = append(o.Env, "GENERATION=2")
	require.NoError(t, cluster.SetupMaster(o))
	require.Equal(t, "2", generation(clustertest.Fork(t)))
	clustertest.Await(t, online, "online")
	require.NoError(t, w.OSProcess().Kill())
	successor := clustertest.Await(t, online, "online")
	require.Equal(t, w.Slot(), successor.Slot())
	require.Equal(t, "1", generation(successor), "the slot's own")
}

// TestRespawn: a worker that dies is replaced in its slot, whatever it died of,
// and the first time at once; one whose end was asked for, from either side, is
// not.
func TestRespawn(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	for name, c := range map[string]struct {
		end      func(t *testing.T, w *cluster.Process)
		respawns bool
		exit     string // Code, Signal, Voluntary
	}{
		"crash": {func(t *testing.T, w *cluster.Process) {
			clustertest.Tell(t, w, clustertest.Order{Cmd: "exit", Code: 3})
		}, true, "3 <nil> false"},
		"exit 0":        {func(t *testing.T, w *cluster.Process) { clustertest.Tell(t, w, clustertest.Order{Cmd: "exit"}) }, true, "0 <nil> false"},
		"killed":        {func(t *testing.T, w *cluster.Process) { require.NoError(t, w.OSProcess().Kill()) }, true, clustertest.System.Killed + " false"},
		"SIGTERM to it": {func(t *testing.T, w *cluster.Process) { clustertest.Kill(t, w.PID(), syscall.SIGTERM) }, true, "0 <nil> false"},
		"Kill":          {func(t *testing.T, w *cluster.Process) { require.NoError(t, w.Kill()) }, false, clustertest.System.Killed + " true"},
		"Kill SIGTERM":  {func(t *testing.T, w *cluster.Process) { require.NoError(t, w.Kill(syscall.SIGTERM)) }, false, "0 <nil> true"},
		"Disconnect": {func(t *testing.T, w *cluster.Process) {
			require.NoError(t, w.Disconnect(clustertest.Within(t, clustertest.Patience)))
		}, false, "0 <nil> true"},
		"its Disconnect": {func(t *testing.T, w *cluster.Process) { clustertest.Tell(t, w, clustertest.Order{Cmd: "disconnect"}) }, false, "0 <nil> true"},
		"its Kill":       {func(t *testing.T, w *cluster.Process) { clustertest.Tell(t, w, clustertest.Order{Cmd: "kill"}) }, false, "0 <nil> true"},
		"listened, exit 0": {func(t *testing.T, w *cluster.Process) {
			clustertest.Ask[string](t, w, clustertest.Order{Cmd: "listen"})
			clustertest.Tell(t, w, clustertest.Order{Cmd: "exit"})
		}, true, "0 <nil> false"},
	} {
		if strings.Contains(name, "SIGTERM") && !clustertest.System.Term {
			continue
		}
		t.Run(name, func(t *testing.T) {
			clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Workers: 2})
			online, dead := clustertest.Onlines(t), clustertest.Deaths(t)
			require.NoError(t, cluster.AutoFork())
			w := clustertest.Await(t, online, "online")
			other := clustertest.Await(t, online, "online")
			c.end(t, w)
			d := clustertest.Await(t, dead, "death")
			require.Same(t, w, d.Worker)
			require.Equal(t, c.exit, fmt.Sprint(d.Exit.Code, d.Exit.Signal, d.Exit.Voluntary))
			require.Equal(t, d.Exit.Voluntary, w.ExitedAfterDisconnect())
			require.True(t, w.IsDead())
			require.NotNil(t, d.Exit.State)
			require.ErrorIs(t, w.Kill(), cluster.ErrClosed)
			require.ErrorIs(t, w.Send(1), cluster.ErrClosed)
			require.NoError(t, w.Disconnect(clustertest.Within(t, clustertest.Patience)), "it is gone, as asked")
			if c.respawns {
				successor := clustertest.Await(t, online, "online")
				require.Equal(t, w.Slot(), successor.Slot())
				require.Greater(t, successor.ID(), other.ID())
				return
			}
			// A successor of other comes after any of w would have.
			require.NoError(t, other.OSProcess().Kill())
			require.Equal(t, other.Slot(), clustertest.Await(t, online, "online").Slot())
			require.Len(t, cluster.Workers(), 1)
		})
	}
}

// TestAutoForkLeavesNone: when the last worker cannot be started, AutoFork says
// so and no worker is left; it works again at once.
func TestAutoForkLeavesNone(t *testing.T) {
	o, spoil, repair := clustertest.Spoilable(t)
	var once sync.Once
	o.Workers = 3
	o.Output = func(w *cluster.Process) (stdout, stderr io.Writer) {
		if w.Slot() == 2 {
			once.Do(spoil)
		}
		return nil, nil
	}
	clustertest.WithMaster(t, clustertest.CommandWorker, o)
	dead, forks := clustertest.Deaths(t), make(chan *cluster.Process, 10)
	t.Cleanup(cluster.OnFork(func(w *cluster.Process) { forks <- w }))
	require.ErrorIs(t, cluster.AutoFork(), os.ErrNotExist)
	require.Empty(t, cluster.Workers())
	for range 2 {
		clustertest.Await(t, forks, "fork")
		require.True(t, clustertest.Await(t, dead, "death").Exit.Voluntary)
	}
	repair()
	require.NoError(t, cluster.AutoFork())
	require.Len(t, cluster.Workers(), 3)
}

// TestWorkerNotYetStarted: Options.Output gets a worker that has no process
// yet; what can be done with it then is an error, and not a crash of the master.
func TestWorkerNotYetStarted(t *testing.T) {
	var early []error
	var seen *cluster.Process
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Output: func(w *cluster.Process) (stdout, stderr io.Writer) {
		seen = w
		early = []error{w.Kill(), w.Disconnect(context.Background())}
		w.OSProcess()
		return nil, nil
	}})
	w := clustertest.Fork(t)
	require.Same(t, w, seen)
	for _, err := range early {
		require.ErrorIs(t, err, cluster.ErrClosed)
	}
	require.False(t, w.ExitedAfterDisconnect())
	clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about"})

	// A worker that could not be started is dead, for those who saw it.
	o := cluster.Settings()
	o.Exec = filepath.Join(clustertest.TempDir(t), "not executable")
	require.NoError(t, os.WriteFile(o.Exec, []byte("text"), 0o644))
	require.NoError(t, cluster.SetupMaster(o))
	_, err := cluster.Fork()
	require.Error(t, err)
	require.NotSame(t, w, seen)
	require.True(t, seen.IsDead())
	require.ErrorIs(t, seen.Kill(), cluster.ErrClosed)
	require.NoError(t, seen.Disconnect(clustertest.Within(t, clustertest.Patience)))
	require.ErrorIs(t, seen.Send(1), cluster.ErrClosed)
}

// TestDisconnectInOutput: a Disconnect does not wait for the fork that calls it,
// and the fork is refused then.
func TestDisconnectInOutput(t *testing.T) {
	var stop error
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Workers: 2, Output: func(w *cluster.Process) (stdout, stderr io.Writer) {
		if w.Slot() != 0 {
			stop = cluster.Disconnect(clustertest.Within(t, clustertest.Patience))
		}
		return nil, nil
	}})
	_, err := cluster.Fork()
	require.NoError(t, err, "the Disconnect was over")
	require.NoError(t, stop)
	clustertest.StopAll(t)
	require.ErrorIs(t, cluster.AutoFork(), cluster.ErrClosed, "its slots are gone")
	require.NoError(t, stop)
	require.Empty(t, cluster.Workers())
}

// TestExitText: an Exit prints what happened.
func TestExitText(t *testing.T) {
	require.Equal(t, "exit status 3 after 1.5s", cluster.Exit{Code: 3, Uptime: 1500e6}.String())
	require.Equal(t, "signal: killed after 1m0s", cluster.Exit{Code: -1, Signal: syscall.SIGKILL, Uptime: 60e9}.String())
}

// TestScaleOfProcesses: workers come and go as Scale says, the highest slot
// first; the new ones share the cores with those that there are.
func TestScaleOfProcesses(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Workers: 1})
	online, dead := clustertest.Onlines(t), clustertest.Deaths(t)
	procs := func(w *cluster.Process) int {
		return clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about"}).MaxProcs
	}
	require.NoError(t, cluster.AutoFork())
	first := clustertest.Await(t, online, "online")
	require.Equal(t, 8, procs(first))
	require.ErrorContains(t, cluster.Scale(-1), "negative")

	require.NoError(t, cluster.Scale(4))
	slots := make(map[int]*cluster.Process)
	for range 3 {
		w := clustertest.Await(t, online, "online")
		slots[w.Slot()] = w
		require.Equal(t, 2, procs(w))
	}
	require.Len(t, slots, 3)
	require.Equal(t, 4, cluster.Settings().Workers)
	require.Equal(t, 4, cluster.Stats().Target)
	require.Equal(t, 2, cluster.Settings().MaxProcs)
	require.NoError(t, cluster.SetupMaster(cluster.Settings()), "freezes nothing")

	require.NoError(t, cluster.Scale(2))
	require.Equal(t, 4, cluster.Settings().MaxProcs)
	for range 2 {
		d := clustertest.Await(t, dead, "death")
		require.GreaterOrEqual(t, d.Worker.Slot(), 2)
		require.Equal(t, cluster.ReasonScale, d.Exit.Reason)
		require.Zero(t, d.Exit.Code, "drained")
		require.True(t, d.Exit.Voluntary)
	}
	require.Equal(t, []*cluster.Process{first, slots[1]}, cluster.Workers())

	require.NoError(t, slots[1].Kill())
	require.Equal(t, cluster.ReasonKill, clustertest.Await(t, dead, "death").Exit.Reason)
	require.NoError(t, cluster.Scale(2))
	require.Equal(t, 1, clustertest.Await(t, online, "online").Slot(), "an emptied slot is filled again")
}

// TestScaleToZero: the address stays open, a connection waits, and is served
// when there is a worker again.
func TestScaleToZero(t *testing.T) {
	address := clustertest.UnusedAddress(t, "tcp", "")
	clustertest.WithMaster(t, clustertest.Troublemaker, cluster.Options{Workers: 2, Env: []string{"ADDRESS=" + address}})
	listening, dead := clustertest.Listenings(t), clustertest.Deaths(t)
	require.NoError(t, cluster.AutoFork())
	for range 2 {
		clustertest.Await(t, listening, "listening")
	}
	require.NoError(t, cluster.Scale(0))
	for range 2 {
		clustertest.Await(t, dead, "death")
	}
	require.Empty(t, cluster.Workers())
	require.NoError(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)), "of nothing, for those to come")
	s := cluster.Stats()
	require.Empty(t, s.Workers)
	require.Len(t, s.Listeners, 1)
	answers := make(chan string, 1)
	go func() {
		answer, err := clustertest.Get("http://" + address)
		if err != nil {
			answer = err.Error()
		}
		answers <- answer
	}()
	if clustertest.System.Backlog {
		clustertest.Eventually(t, func() bool { return cluster.Stats().Listeners[0].Backlog == 1 }, "a connection that waits")
	}
	require.NoError(t, cluster.Scale(1))
	w := clustertest.Await(t, listening, "listening")
	require.Equal(t, strconv.Itoa(w.PID()), clustertest.Await(t, answers, "answer"))
	http.DefaultClient.CloseIdleConnections()
}
