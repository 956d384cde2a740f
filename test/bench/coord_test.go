//go:build unix

package bench_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// Package coord, each verb beside what one would write with messages.

// coordRun tells a bench worker what to do, and how many times.
type coordRun struct {
	Cmd   string `json:"cmd"`
	What  string
	Times int
}

// benchCoord is a worker that measures what it is asked to, in microseconds each.
var benchCoord = clustertest.Program("bench coord", func() {
	s, l := coord.Open("bench"), coord.NewLimiter("bench", 1e9, 1e9)
	ctx := context.Background()
	coord.Subscribe("bench", func(count) {})
	clustertest.Must(s.Set(ctx, "key", []byte("some value"), 0))
	cluster.OnMessage(func(*cluster.Process, cluster.Message) {})
	cluster.Respond("coord", func(w *cluster.Process, r coordRun) (us float64, err error) {
		do := map[string]func(i int){
			"get": func(int) {
				if val, ok, err := s.Get(ctx, "key"); !ok || string(val) != "some value" {
					panic(fmt.Sprint(ok, err))
				}
			},
			"request": func(i int) {
				var reply count
				clustertest.Must(w.Request(ctx, benchCount(i), &reply))
			},
			"allow": func(int) {
				if ok, _, err := l.Allow(ctx, "hot"); !ok {
					panic(fmt.Sprint("refused: ", err))
				}
			},
		}[r.What]
		return benchEach(r.Times, do)(), nil
	})
	<-cluster.Context().Done()
	select {}
})

// coordWorkers forks n of them.
func coordWorkers(b *testing.B, n int) []*cluster.Process {
	clustertest.WithMaster(b, benchCoord, cluster.Options{})
	b.Cleanup(cluster.OnRequest(func(_ *cluster.Process, m cluster.Message) (any, error) {
		var c count
		err := m.Decode(&c)
		return c, err
	}))
	for range n {
		_, err := cluster.Fork()
		require.NoError(b, err)
	}
	for _, w := range cluster.Workers() {
		measure(b, w, "get", 1)
	}
	return cluster.Workers()
}

// measure makes a worker do something a number of times, and returns how long one time took.
func measure(b *testing.B, w *cluster.Process, what string, times int) (us float64) {
	require.NoError(b, w.Request(context.Background(), coordRun{"coord", what, times}, &us))
	return us
}

// BenchmarkStoreGet is the time of a Store.Get in a worker. The baseline is a
// Request to the master's Respond. The ratio is 1.0 at most: the reader of the channel answers
// a Get itself.
func BenchmarkStoreGet(b *testing.B) {
	const trips = 3000
	w := coordWorkers(b, 1)[0]
	compare(b, "us", func() float64 { return measure(b, w, "get", trips) }, func() float64 { return measure(b, w, "request", trips) })
}

// BenchmarkPublish is the time of a Publish that 8 workers hear. The baseline is a
// Send to each of them. The ratio is 1.2 at most: a message is encoded once.
func BenchmarkPublish(b *testing.B) {
	const times = 200
	workers := coordWorkers(b, 8)
	rest := func() {
		for _, w := range workers {
			require.NoError(b, w.SendContext(context.Background(), benchCount(0)))
		}
	}
	compare(b, "us", func() float64 {
		defer rest()
		return benchEach(times, func(i int) { require.NoError(b, coord.Publish("bench", benchCount(i))) })()
	}, func() float64 {
		defer rest()
		return benchEach(times, func(i int) {
			for _, w := range workers {
				require.NoError(b, w.Send(benchCount(i)))
			}
		})()
	})
}

// BenchmarkLimiter is how many millions of calls of Allow for one key two workers make in a
// second, together: 5 at least.
func BenchmarkLimiter(b *testing.B) {
	const times = 1_000_000
	workers := coordWorkers(b, 2)
	var rates []float64
	rounds(b, 5, func() {
		each := make(chan float64, len(workers))
		begun := time.Now()
		for _, w := range workers {
			go func() { each <- measure(b, w, "allow", times) }()
		}
		for range workers {
			<-each
		}
		rates = append(rates, float64(times*len(workers))/1e6/time.Since(begun).Seconds())
	})
	b.ReportMetric(median(rates), "M/s")
}

// lockEnv names the file that the baseline of BenchmarkLeadMoves locks.
const lockEnv = "BENCH_LOCK"

// benchLeader is a candidate. It says when the master knows it, and when it leads.
var benchLeader = clustertest.Program("bench leader", func() {
	coord.Lead("bench", func(ctx context.Context) error {
		clustertest.Must(cluster.Worker.Send(count{"leads", cluster.Worker.ID()}))
		<-ctx.Done()
		return nil
	})
	_, _, err := coord.Open("bench").Get(context.Background(), "") // the master knows
	clustertest.Must(err)
	clustertest.Must(cluster.Worker.Send(count{"stands", cluster.Worker.ID()}))
	<-cluster.Context().Done()
	select {}
})

// baseLeader does the same with a lock on a file, and writes a byte when it has it.
var baseLeader = clustertest.Program("base leader", func() {
	f, err := os.OpenFile(os.Getenv(lockEnv), os.O_RDWR, 0)
	clustertest.Must(err)
	os.Stdout.Write([]byte("s"))
	clustertest.Must(syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	os.Stdout.Write([]byte("l"))
	select {}
})

// BenchmarkLeadMoves is the time from the death of the worker that leads until the
// next one's function runs and the master has its word. The baseline is a process that
// is killed with a lock on a file for which another one waits. Under 10 ms.
func BenchmarkLeadMoves(b *testing.B) {
	clustertest.WithMaster(b, benchLeader, cluster.Options{Backoff: cluster.Backoff{Reset: time.Nanosecond}})
	stands, leads := make(chan int, 1000), make(chan int, 1000)
	b.Cleanup(cluster.Handle("stands", func(_ *cluster.Process, c count) { stands <- c.N }))
	b.Cleanup(cluster.Handle("leads", func(_ *cluster.Process, c count) { leads <- c.N }))
	workers := make(map[int]*cluster.Process)
	fork := func() {
		w, err := cluster.Fork()
		require.NoError(b, err)
		workers[w.ID()] = w
		clustertest.Await(b, stands, "candidate")
	}
	fork()
	leader := clustertest.Await(b, leads, "leader")
	lead := func() float64 {
		fork()
		begun := time.Now()
		require.NoError(b, workers[leader].OSProcess().Kill())
		leader = clustertest.Await(b, leads, "leader")
		return time.Since(begun).Seconds() * 1e3
	}
	compare(b, "ms", lead, lockMoves(b))
}

// lockMoves measures the same for two processes and a file.
func lockMoves(b *testing.B) func() float64 {
	path := filepath.Join(b.TempDir(), "lock")
	require.NoError(b, os.WriteFile(path, nil, 0o600))
	expect := func(out *os.File, want string) {
		buf := make([]byte, 1)
		_, err := out.Read(buf)
		require.NoError(b, err)
		require.Equal(b, want, string(buf))
	}
	start := func(says string) (c *exec.Cmd, out *os.File) {
		c, out = baseProcess(b, baseLeader)
		c.Env = append(c.Env, lockEnv+"="+path)
		require.NoError(b, c.Start())
		c.Stdout.(*os.File).Close()
		for _, s := range says {
			expect(out, string(s))
		}
		return c, out
	}
	return func() float64 {
		holder, out := start("sl")
		defer out.Close()
		next, nextOut := start("s")
		defer nextOut.Close()
		time.Sleep(5 * time.Millisecond) // nothing tells when it waits for the lock
		begun := time.Now()
		require.NoError(b, holder.Process.Kill())
		expect(nextOut, "l")
		took := time.Since(begun)
		next.Process.Kill()
		holder.Wait()
		next.Wait()
		return took.Seconds() * 1e3
	}
}
