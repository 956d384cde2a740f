//go:build unix

package fleet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// unit is a member with two workers. They tell the master that they are there, and
// when they go; each answers "pid".
var unit = clustertest.Program("unit", func() {
	late := os.Getenv("LATE") != ""
	cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) { fmt.Println("dead", w.PID(), e) })
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2, ReadyFor: -1}))
	if late {
		clustertest.Must(cluster.AutoFork())
	}
	o := Options{URL: os.Getenv("URL"), Name: os.Getenv("NAME"), Node: os.Getenv("NODE"), Orders: true}
	set := quick
	set.join = clustertest.Patience
	f, err := join(o, set)
	clustertest.Must(err)
	if cluster.IsMaster() {
		Respond(f, "hello", func(pid int) (int, error) {
			fmt.Println("hello", pid)
			return 0, nil
		})
		Subscribe(f, "bye", func(pid int) { fmt.Println("bye", pid) })
	} else {
		Respond(f, "pid", func(int) (int, error) { return os.Getpid(), nil })
		cluster.OnShutdown(func(context.Context) error { return f.Publish("bye", os.Getpid()) })
	}
	if !late {
		clustertest.Must(cluster.AutoFork())
	}
	if cluster.IsWorker() {
		for {
			err := f.Request(context.Background(), f.Node(), "hello", os.Getpid(), nil)
			if err == nil {
				break
			}
			if !errors.Is(err, nats.ErrNoResponders) { // the master is not so far
				clustertest.Must(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	clustertest.Must(cluster.ListenAndServe("127.0.0.1:0", http.NotFoundHandler()))
})

// hellos waits for n workers.
func hellos(p *clustertest.Proc, n int) (pids []string) {
	for range n {
		pids = append(pids, p.Expect("hello "))
	}
	return pids
}

// TestEmbeddedServer: workers are told where the embedded server is, whether the
// master joins before it forks or after. What a worker says at its end arrives, and
// nothing is left.
func TestEmbeddedServer(t *testing.T) {
	t.Parallel()
	for _, late := range []string{"", "1"} {
		dir := clustertest.TempDir(t)
		p := clustertest.Start(t, unit, "NAME=embedded", "LATE="+late, "TMPDIR="+dir)
		pids := hellos(p, 2)
		p.Terminate()
		for _, pid := range pids {
			require.Contains(t, p.Output(), "bye "+pid+"\n")
			require.Contains(t, p.Output(), "dead "+pid+" exit status 0")
		}
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

// TestOrders: members reload, scale and stop one after another; the order of one that
// is not known, takes none or fails ends it.
func TestOrders(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	boss := member(t, quick, Options{URL: s.URL, Node: "boss"})
	units := make(map[string]*clustertest.Proc)
	pids := make(map[string][]string)
	for _, node := range []string{"u1", "u2"} {
		units[node] = clustertest.Start(t, unit, "NAME="+boss.Name(), "NODE="+node, "URL="+s.URL)
	}
	for node, p := range units {
		pids[node] = hellos(p, 2)
	}
	awaitNodes(t, boss, "boss", "u1", "u2")
	ctx := long(t)
	both := Roll{Nodes: []string{"u2", "u1"}}
	var answered int
	require.NoError(t, boss.Request(ctx, "u1", "pid", 0, &answered))
	require.Contains(t, pids["u1"], strconv.Itoa(answered))

	_, err := boss.Reload(ctx, Roll{})
	require.ErrorIs(t, err, ErrOrders)
	require.ErrorContains(t, err, "boss")
	_, err = boss.Reload(ctx, Roll{Nodes: []string{"u1", "u3"}})
	require.ErrorContains(t, err, "u3")
	ended, cancel := context.WithCancel(ctx)
	cancel()
	res, err := boss.Reload(ended, both)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, Result{Failed: map[string]error{}, Left: both.Nodes}, res)

	var steps []string
	both.Progress = func(node string, done bool, err error) { steps = append(steps, fmt.Sprint(node, done, err)) }
	res, err = boss.Reload(ctx, both)
	require.NoError(t, err)
	require.Equal(t, Result{Done: both.Nodes, Failed: map[string]error{}}, res)
	require.Equal(t, []string{"u2false <nil>", "u2true <nil>", "u1false <nil>", "u1true <nil>"}, steps)
	both.Progress = nil
	for node, p := range units {
		for _, pid := range hellos(p, 2) {
			require.NotContains(t, pids[node], pid)
		}
		clustertest.Eventually(t, func() bool {
			out := p.Output()
			return strings.Contains(out, "bye "+pids[node][0]+"\n") && strings.Contains(out, "bye "+pids[node][1]+"\n")
		}, "what the old ones say")
	}
	both.Parallel = 2
	res, err = boss.Scale(ctx, 3, both)
	require.NoError(t, err)
	require.ElementsMatch(t, both.Nodes, res.Done)
	for _, p := range units {
		hellos(p, 1)
	}
	both.Parallel = 0
	var failure error
	both.Progress = func(_ string, _ bool, err error) { failure = err }
	res, err = boss.Scale(ctx, -1, both)
	require.ErrorContains(t, err, `scale of "u2"`)
	require.Equal(t, err, failure)
	both.Progress = nil
	require.Equal(t, []string{"u1"}, res.Left)
	require.Error(t, res.Failed["u2"])

	res, err = boss.Stop(ctx, both)
	require.NoError(t, err)
	require.Equal(t, both.Nodes, res.Done)
	for _, p := range units {
		require.Zero(t, p.Exit())
		p.GroupEmpty()
	}
	awaitNodes(t, boss, "boss")
}

// TestLostDuringOrder: the order of a member that is killed meanwhile ends.
func TestLostDuringOrder(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	boss := member(t, beating, Options{URL: s.URL, Node: "boss"})
	victim := member(t, beating, Options{URL: s.URL, Node: "victim"})
	begun, end := make(chan struct{}, 1), make(chan struct{})
	defer close(end)
	_, err := victim.responders.answer(victim.me.orderSubject("victim"), func([]byte) (any, error) {
		begun <- struct{}{}
		<-end
		return nil, nil
	})
	require.NoError(t, err)
	require.NoError(t, victim.Conn().Flush())
	awaitNodes(t, boss, "boss", "victim")
	result := make(chan error, 1)
	go func() { result <- boss.orders.order(clustertest.Within(t, time.Hour), "victim", order{Verb: "reload"}) }()
	clustertest.Await(t, begun, "the order")
	victim.abandon()
	require.ErrorIs(t, clustertest.Await(t, result, "the end of the order"), errLost)
}

// TestNothingLeft: a member that leaves leaves no goroutine and no descriptor, and so
// does one that could not join.
func TestNothingLeft(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	one, err := joinAs(t, quick, Options{Node: "one"}) // what exists once in a process is there
	require.NoError(t, err)
	require.NoError(t, one.Close())
	clustertest.CheckLeaks(t)
	s := startServer(t)
	set := quick
	set.join = time.Second
	for range 3 {
		f, err := joinAs(t, quickly, Options{URL: s.URL, Node: "a"})
		require.NoError(t, err)
		stop := Subscribe(f, "x", func(int) {})
		Respond(f, "x", func(int) (int, error) { return 0, nil })
		require.NoError(t, f.Request(t.Context(), "", "x", 0, nil))
		_, err = joinAs(t, set, Options{URL: s.URL, Node: "a"})
		require.ErrorIs(t, err, ErrNameTaken)
		stop()
		_, unlock, err := f.Lock(t.Context(), "x")
		require.NoError(t, err)
		unlock()
		require.NoError(t, f.Once(t.Context(), "x", func(context.Context) error { return nil }))
		led := make(chan struct{})
		f.Lead("x", func(ctx context.Context) error {
			close(led)
			<-ctx.Done()
			return nil
		})
		clustertest.Await(t, led, "the lead")
		require.NoError(t, f.Close())
		alone, err := joinAs(t, quick, Options{Node: "a"})
		require.NoError(t, err)
		require.NoError(t, alone.Close())
	}
}

// leading is a member with two workers, one of which may lead.
var leading = clustertest.Program("leading", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2, ReadyFor: -1}))
	clustertest.Must(cluster.AutoFork())
	set := quickly
	set.join = clustertest.Patience
	f, err := join(Options{URL: os.Getenv("URL"), Name: os.Getenv("NAME"), Node: os.Getenv("NODE")}, set)
	clustertest.Must(err)
	f.Lead("job", func(ctx context.Context) error {
		fmt.Printf("leads %d %d\n", os.Getpid(), Fence(ctx))
		<-ctx.Done()
		fmt.Println("led", os.Getpid())
		return nil
	})
	clustertest.Must(cluster.ListenAndServe("127.0.0.1:0", http.NotFoundHandler()))
})

// TestLeaderDies: when a worker that leads is killed another one of its member leads,
// when a member is stopped or killed another one; a member that goes on ends what it
// led. Fences grow.
func TestLeaderDies(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	var last uint64
	start := func(node string) *clustertest.Proc {
		return clustertest.Start(t, leading, "NAME=leading", "NODE="+node, "URL="+s.URL)
	}
	leads := func(p *clustertest.Proc) (pid int) {
		for {
			var fence uint64
			_, err := fmt.Sscan(p.Expect("leads "), &pid, &fence)
			require.NoError(t, err)
			if fence > last { // else it has lost and had the lease before, under load
				last = fence
				return pid
			}
		}
	}
	a := start("a")
	first := leads(a)
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	leads(a)
	b := start("b")
	require.NoError(t, syscall.Kill(-a.Cmd.Process.Pid, syscall.SIGSTOP))
	leads(b)
	require.NoError(t, syscall.Kill(-a.Cmd.Process.Pid, syscall.SIGCONT))
	a.Expect("led ")
	require.NoError(t, syscall.Kill(-b.Cmd.Process.Pid, syscall.SIGKILL))
	leads(a)
	a.Terminate()
}
