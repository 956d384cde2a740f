package coord_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

var runs atomic.Int64

// unique is a name that no other run of the test has: what is done is done.
func unique(t *testing.T) string { return fmt.Sprint(t.Name(), runs.Add(1)) }

// waiters is how many wait for what is to be done once.
func waiters(name string) int {
	for _, o := range cluster.Stats().Coord.Onces {
		if o.Name == name {
			return o.Waiters
		}
	}
	return -1
}

// leadOf is what Stats says of a name. Worker is -1 if nobody leads.
func leadOf(name string) cluster.LeadStats {
	for _, l := range cluster.Stats().Coord.Leads {
		if l.Name == name {
			return l
		}
	}
	return cluster.LeadStats{Worker: -1}
}

// leads is who leads the name: a worker's id, 0 for the master, -1 for nobody.
func leads(name string) int { return leadOf(name).Worker }

// TestLeadAlone: in a process that has not forked fn runs here, until it is
// stopped, or done for good.
func TestLeadAlone(t *testing.T) {
	clustertest.CheckLeaks(t)
	name := unique(t)
	began, ended := make(chan string, 10), make(chan string, 10)
	fn := func(who string) func(context.Context) error {
		return func(ctx context.Context) error {
			began <- who
			<-ctx.Done()
			ended <- who
			return nil
		}
	}
	stopA := coord.Lead(name, fn("a"))
	require.Equal(t, "a", clustertest.Await(t, began, "begin"))
	require.True(t, coord.Leads(name))
	stopB := coord.Lead(name, fn("b"))
	require.Empty(t, began)
	stopA()
	require.Equal(t, "a", clustertest.Await(t, ended, "end"))
	require.Equal(t, "b", clustertest.Await(t, began, "begin"))
	stopB()
	stopB()
	require.Equal(t, "b", clustertest.Await(t, ended, "end"))
	require.False(t, coord.Leads(name))
	clustertest.Eventually(t, func() bool { return leads(name) == -1 }, "nobody leads")

	tries := make(chan int, 10)
	n := 0
	coord.Lead(name, func(context.Context) error {
		n++
		tries <- n
		if n < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	for want := 1; want <= 3; want++ {
		require.Equal(t, want, clustertest.Await(t, tries, "try"))
	}
	clustertest.Eventually(t, func() bool { l := leadOf(name); return l.Done && l.Candidates == 0 }, "it is done")
	coord.Lead(name, func(context.Context) error { tries <- 0; return nil })()
	require.Empty(t, tries)
}

// TestLeadGoexit: a function that ends its goroutine has failed.
func TestLeadGoexit(t *testing.T) {
	tries := make(chan int, 10)
	n := 0
	stop := coord.Lead(t.Name(), func(ctx context.Context) error {
		n++
		tries <- n
		if n == 1 {
			exit()
		}
		<-ctx.Done()
		return nil
	})
	defer stop()
	require.Equal(t, 1, clustertest.Await(t, tries, "try"))
	require.Equal(t, 2, clustertest.Await(t, tries, "try"))
}

// handsOver waits until one worker leads no more and another one (any, for nil) does.
// What two workers say may come in any order.
func handsOver(t *testing.T, said <-chan word, name string, from, to *cluster.Process) map[string]*cluster.Process {
	t.Helper()
	both := make(map[string]*cluster.Process)
	for range 2 {
		one := clustertest.Await(t, said, "word")
		both[strings.TrimSpace(one.what)] = one.w
	}
	require.Same(t, from, both["leads no more "+name])
	if to != nil {
		require.Same(t, to, both["leads "+name])
	}
	return both
}

// TestLeadMoves: one worker leads at a time, and another one when it is stopped,
// drained or killed; when it is done, nobody does.
func TestLeadMoves(t *testing.T) {
	clustertest.WithMaster(t, coordWorker, cluster.Options{})
	name := unique(t)
	said := words(t)
	w := forkAll(t, 4)
	for _, one := range w {
		ask(t, one, "lead", name)
	}
	require.Same(t, w[0], await(t, said, "leads "+name))
	require.Equal(t, w[0].ID(), leads(name))
	for i, one := range w {
		require.Equal(t, i == 0, ask(t, one, "", name, key("leads")).OK)
	}
	ask(t, w[0], "end", name, key("lead"))
	handsOver(t, said, name, w[0], w[1])
	require.NoError(t, w[1].OSProcess().Kill())
	require.Same(t, w[2], await(t, said, "leads "+name))
	require.NoError(t, w[2].Disconnect(t.Context()))
	handsOver(t, said, name, w[2], w[3])
	ask(t, w[0], "leaddone", name)
	ask(t, w[3], "end", name, key("lead"))
	handsOver(t, said, name, w[3], w[0])
	clustertest.Eventually(t, func() bool { return leads(name) == -1 }, "it is done")
	ask(t, w[3], "lead", name)
	ask(t, w[3], "lead", "other")
	require.Same(t, w[3], await(t, said, "leads other"), "nobody leads what is done")
}

// TestLeadIsSpread: who leads the fewest names gets the next.
func TestLeadIsSpread(t *testing.T) {
	clustertest.WithMaster(t, coordWorker, cluster.Options{})
	said := words(t)
	w := forkAll(t, 2)
	for _, name := range []string{"a", "b", "c", "d"} {
		ask(t, w[0], "lead", name)
	}
	for range 4 {
		require.Same(t, w[0], clustertest.Await(t, said, "leads").w)
	}
	for _, name := range []string{"e", "f"} {
		ask(t, w[1], "lead", name)
		ask(t, w[0], "lead", name)
		require.Same(t, w[1], await(t, said, "leads "+name))
	}
}

// TestLeadReload: during a reload the name moves once, to a new worker.
func TestLeadReload(t *testing.T) {
	clustertest.WithMaster(t, coordLeader, cluster.Options{Workers: 3, ReadyFor: -1})
	said := words(t)
	require.NoError(t, cluster.AutoFork())
	old := await(t, said, "leads job")
	clustertest.Eventually(t, func() bool { return leadOf("job").Candidates == 3 }, "all are candidates")
	require.NoError(t, cluster.Reload(t.Context()))
	both := handsOver(t, said, "job", old, nil)
	require.Contains(t, cluster.Workers(), both["leads job"])
	require.Empty(t, said, "it moves once")
}

// coordLeader leads from its start on.
var coordLeader = clustertest.Program("leader", func() {
	coord.Lead("job", func(ctx context.Context) error { return lead(ctx, "lead", "job") })
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	go ln.Accept()
	<-cluster.Context().Done()
	select {}
})

// TestLeadBeforeFork: what leads in the master has its context ended by the fork,
// and the workers follow when it has returned.
func TestLeadBeforeFork(t *testing.T) {
	began, ended, may := make(chan bool, 10), make(chan bool, 10), make(chan bool)
	stop := coord.Lead("job", func(ctx context.Context) error {
		began <- true
		<-ctx.Done()
		ended <- true
		<-may
		return nil
	})
	defer stop()
	clustertest.Await(t, began, "begin")
	clustertest.WithMaster(t, coordLeader, cluster.Options{})
	said := words(t)
	w := forkAll(t, 1)
	clustertest.Await(t, ended, "end")
	require.False(t, coord.Leads("job"))
	coord.Lead("other", func(context.Context) error { began <- true; return nil })
	clustertest.Eventually(t, func() bool { l := leadOf("job"); return l.Candidates == 1 && l.Worker == 0 }, "the worker waits for the master")
	require.Empty(t, said)
	close(may)
	require.Same(t, w[0], await(t, said, "leads job"))
	require.Empty(t, began)
}

// TestOnce: one runs it, and all return when it has succeeded.
func TestOnce(t *testing.T) {
	clustertest.WithMaster(t, coordWorker, cluster.Options{})
	name := unique(t)
	said := words(t)
	hangs, fails := forkAll(t, 1, "ONCE=hang")[0], forkAll(t, 1, "ONCE=fail")[0]
	w := forkAll(t, 2)
	ask(t, hangs, "once", name)
	await(t, said, "runs "+name)
	for i, one := range []*cluster.Process{fails, w[0], w[1]} {
		ask(t, one, "once", name)
		clustertest.Eventually(t, func() bool { return waiters(name) == i+1 }, "it waits")
	}
	require.NoError(t, hangs.OSProcess().Kill())
	require.Same(t, fails, await(t, said, "runs "+name))
	got := map[string]int{}
	for range 4 {
		got[clustertest.Await(t, said, "outcome").what]++
	}
	require.Equal(t, map[string]int{"once it fails " + name: 1, "runs " + name: 1, "once <nil> " + name: 2}, got)
	require.NoError(t, coord.Once(t.Context(), name, func(context.Context) error { return errors.New("again") }))
}

// TestOnceEndsWithContext: who waits gives up with ctx, and a panic is a failure.
func TestOnceEndsWithContext(t *testing.T) {
	name := unique(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	require.NoError(t, coord.Once(t.Context(), name, func(context.Context) error {
		err := coord.Once(ctx, name, func(context.Context) error { return nil })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		return nil
	}))
	require.Panics(t, func() { coord.Once(t.Context(), name+"2", func(context.Context) error { panic("no") }) })
	require.ErrorContains(t, coord.Once(t.Context(), name+"2", func(context.Context) error { return errors.New("second") }), "second")
}

// A nil function is refused where it is given.
func TestNilFunction(t *testing.T) {
	for name, call := range map[string]func(){
		"Lead":      func() { coord.Lead("x", nil) },
		"Once":      func() { coord.Once(t.Context(), "x", nil) },
		"Subscribe": func() { coord.Subscribe[int]("x", nil) },
	} {
		require.PanicsWithValue(t, "coord: "+name+": the function to call is nil", call)
	}
}
