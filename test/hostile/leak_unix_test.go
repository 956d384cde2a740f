//go:build unix

package hostile_test

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"sync"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// echoScript is a worker that is cheap to start: a shell that speaks as much of
// the protocol as a node worker that sends back what it gets, and exits when it
// is told to disconnect.
const echoScript = `printf '{"cmd":"NODE_CLUSTER","act":"online","seq":0}\n' >&3
while read -r line <&3; do
	case $line in
	*disconnect*) exit 0 ;;
	*exit*) exit 1 ;;
	*) printf '%s\n' "$line" >&3 ;;
	esac
done`

// echoes are the options for such workers.
func echoes() cluster.Options {
	return cluster.Options{Exec: "/bin/sh", Args: []string{"-c", echoScript}}
}

// TestForksLeakNothing: fork after fork, whatever the workers die of, leaves no
// descriptor, goroutine, zombie or memory. CLUSTER_LONG=1 makes it 10 000.
func TestForksLeakNothing(t *testing.T) {
	rounds := 10 // of 20 forks
	if clustertest.Long() {
		rounds = 500
	}
	o := echoes()
	o.Output = func(*cluster.Process) (stdout, stderr io.Writer) { return clustertest.FailingWriter{}, nil } // a pipe each
	clustertest.WithMaster(t, clustertest.CommandWorker, o)
	dead, said := clustertest.Deaths(t), make(chan *cluster.Process, 100)
	t.Cleanup(cluster.OnMessage(func(w *cluster.Process, _ cluster.Message) { said <- w }))
	forks := 0
	round := func() {
		const workers = 20
		for range workers {
			w := clustertest.Fork(t)
			require.NoError(t, w.Send("hello", func(error) {}))
			forks++
		}
		for range workers / 2 { // the others die while they start, and may have said it too
			clustertest.Await(t, said, "echo")
		}
		for i, w := range cluster.Workers() {
			switch i % 4 {
			case 0:
				require.NoError(t, w.Send("exit"))
			case 1:
				require.NoError(t, w.OSProcess().Kill())
			case 2:
				w.Kill()
			}
		}
		clustertest.StopAll(t)
		for range workers {
			clustertest.Await(t, dead, "death")
		}
		for len(said) > 0 {
			<-said
		}
	}
	// The first rounds fill the pools that stay.
	for range rounds / 2 {
		round()
	}
	quiet := settled(t)
	for range rounds - rounds/2 {
		round()
	}
	after := settled(t)
	require.Equal(t, 20*rounds, forks)
	require.LessOrEqual(t, after.Goroutines, quiet.Goroutines)
	require.LessOrEqual(t, after.FDs, quiet.FDs)
	require.LessOrEqual(t, len(after.Children), len(quiet.Children))
	require.Less(t, after.heap, quiet.heap+64<<10, "bytes in use after garbage collection, %d forks later", forks/2)
}

// settlement is a census of a master at rest, with its memory.
type settlement struct {
	clustertest.Counts
	heap uint64
}

// settled waits until nothing but the test itself runs, as far as it ever gets.
func settled(t *testing.T) settlement {
	t.Helper()
	clustertest.Eventually(t, func() bool { return len(clustertest.Census().Children) == 0 }, "the end of all children")
	var s settlement
	// What ends after the death of a worker (its goroutines) ends soon.
	last := clustertest.Census()
	stable := 0
	clustertest.Eventually(t, func() bool {
		now := clustertest.Census()
		if now.Goroutines == last.Goroutines && now.FDs == last.FDs {
			stable++
		} else {
			stable = 0
		}
		last = now
		return stable == 20
	}, "a master at rest")
	s.Counts = last
	s.heap = leastHeap()
	return s
}

// leastHeap is the bytes in use when collecting has nothing left to find: pools
// give up what they hold with the second collection, finalizers run some time
// after one, and what they held goes with the next.
func leastHeap() uint64 {
	least := uint64(math.MaxUint64)
	for same := 0; same < 5; same++ {
		runtime.GC()
		var m runtime.MemStats
		if runtime.ReadMemStats(&m); m.HeapAlloc < least {
			least, same = m.HeapAlloc, 0
		}
	}
	return least
}

// TestFiveHundredWorkers: a large cluster is forked, talks, and is
// disconnected, gracefully.
func TestFiveHundredWorkers(t *testing.T) {
	const workers = 500
	clustertest.WithMaster(t, clustertest.CommandWorker, echoes())
	dead, said := clustertest.Deaths(t), make(chan string, workers)
	t.Cleanup(cluster.OnMessage(func(w *cluster.Process, m cluster.Message) { said <- m.String() }))
	for range workers {
		clustertest.Fork(t)
	}
	require.Len(t, cluster.Workers(), workers)
	cluster.EachWorker(func(w *cluster.Process) { require.NoError(t, w.Send(fmt.Sprint("to ", w.ID()))) })
	heard := make(map[string]bool)
	for range workers {
		heard[clustertest.Await(t, said, "echo")] = true
	}
	require.Len(t, heard, workers)
	clustertest.StopAll(t)
	for range workers {
		d := clustertest.Await(t, dead, "death")
		require.Zero(t, d.Exit.Code, "%v", d.Exit)
		require.True(t, d.Exit.Voluntary)
	}
	require.Empty(t, cluster.Workers())
}

// TestForksAtOnce: Fork may be called from many goroutines; ids are unique, and
// every worker is told of once.
func TestForksAtOnce(t *testing.T) {
	const workers = 40
	clustertest.WithMaster(t, clustertest.CommandWorker, echoes())
	forks, dead := make(chan int, workers), clustertest.Deaths(t)
	t.Cleanup(cluster.OnFork(func(w *cluster.Process) { forks <- w.ID() }))
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			w, err := cluster.Fork()
			if err != nil {
				t.Error(err)
			} else if w.PID() == 0 {
				t.Error("no pid")
			}
		})
	}
	all.Wait()
	ids := make(map[int]bool)
	for range workers {
		ids[clustertest.Await(t, forks, "fork")] = true
	}
	require.Len(t, ids, workers)
	clustertest.StopAll(t)
	for range workers {
		clustertest.Await(t, dead, "death")
	}
	require.Empty(t, forks)
	require.Empty(t, dead)
}
