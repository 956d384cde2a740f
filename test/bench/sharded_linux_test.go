package bench_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// baseReuse is a process of its own with a socket of its own at the address that it reads.
var baseReuse = clustertest.Program("base reuseport", func() {
	address, err := io.ReadAll(os.NewFile(3, "address"))
	clustertest.Must(err)
	ln, err := reusePort.Listen(context.Background(), "tcp4", string(address))
	clustertest.Must(err)
	os.Stdout.WriteString("!")
	greet(ln)
})

var reusePort = net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
	c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return err
}}

// baseReuseGroup starts n such processes and returns where they listen.
func baseReuseGroup(b *testing.B, n int) string {
	b.Helper()
	hold, err := reusePort.Listen(b.Context(), "tcp4", "127.0.0.1:0") // a port that is theirs
	require.NoError(b, err)
	address := hold.Addr().String()
	for range n {
		r, w, err := os.Pipe()
		require.NoError(b, err)
		io.WriteString(w, address)
		w.Close()
		out := startBase(b, baseReuse, r)
		r.Close()
		_, err = io.ReadFull(out, make([]byte, 1))
		require.NoError(b, err)
	}
	require.NoError(b, hold.Close())
	return address
}

// BenchmarkSharded is new connections per second to workers with the scheduling Sharded.
// The baselines are as many processes started by hand, each with a socket of its own
// (SO_REUSEPORT): 0.98 of it at least; and workers with the scheduling Shared: 1.0.
func BenchmarkSharded(b *testing.B) {
	for _, n := range []int{2, 8} {
		b.Run(fmt.Sprintf("%dReuseport", n), func(b *testing.B) {
			workers, base := listenWorkers(b, n, cluster.Sharded)[0], baseReuseGroup(b, n)
			compare(b, "conn/s",
				func() float64 { return connectionRate(b, workers) },
				func() float64 { return connectionRate(b, base) })
		})
		b.Run(fmt.Sprintf("%dShared", n), func(b *testing.B) {
			addrs := listenWorkers(b, n, cluster.Sharded, cluster.Shared)
			compare(b, "conn/s",
				func() float64 { return connectionRate(b, addrs[0]) },
				func() float64 { return connectionRate(b, addrs[1]) })
		})
	}
}

// benchBoth is a worker that greets connections at two addresses, each with a scheduling
// of its own.
var benchBoth = clustertest.Program("bench both", func() {
	for i, s := range []cluster.Scheduling{cluster.Scheduling(clustertest.Atoi(os.Getenv("FIRST"))), cluster.Scheduling(clustertest.Atoi(os.Getenv("SECOND")))} {
		if s == 0 {
			continue
		}
		ln, err := cluster.ListenConfig{Scheduling: s}.Listen(context.Background(), "tcp4", fmt.Sprintf("127.0.0.%d:0", i+1))
		clustertest.Must(err)
		go greet(ln)
	}
	<-cluster.Context().Done()
	select {}
})

// listenWorkers starts n workers and returns where they listen, for each of at most two
// schedulings.
func listenWorkers(b *testing.B, n int, all ...cluster.Scheduling) []string {
	b.Helper()
	env := []string{fmt.Sprintf("FIRST=%d", all[0])}
	if len(all) > 1 {
		env = append(env, fmt.Sprintf("SECOND=%d", all[1]))
	}
	clustertest.WithMaster(b, benchBoth, cluster.Options{Workers: n, Env: env})
	addrs := make(chan string, 2*n)
	b.Cleanup(cluster.OnListening(func(_ *cluster.Process, addr net.Addr) { addrs <- addr.String() }))
	require.NoError(b, cluster.AutoFork())
	found := make([]string, len(all))
	for range n * len(all) {
		a := clustertest.Await(b, addrs, "listener")
		found[a[len("127.0.0.")]-'1'] = a
	}
	return found
}

// accepting tells by a byte in which worker it was accepted.
var benchWho = clustertest.Program("bench who", func() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	for {
		c, err := ln.Accept()
		clustertest.Must(err)
		go func() {
			c.Write([]byte{byte(cluster.Worker.Slot())})
			c.Read(make([]byte, 16))
			c.Close()
		}()
	}
})

// BenchmarkSpread is how many times as many connections the worker with the most has as
// the one with the fewest, of 100,000 (with -short 5,000) of 64 clients to 8 workers.
func BenchmarkSpread(b *testing.B) {
	for _, s := range []cluster.Scheduling{cluster.Sharded, cluster.Shared, cluster.RoundRobin} {
		b.Run(s.String(), func(b *testing.B) {
			const workers, clients = 8, 64
			total := 100_000
			if testing.Short() {
				total = 5_000
			}
			clustertest.WithMaster(b, benchWho, cluster.Options{Workers: workers, Scheduling: s})
			ready, addrs := make(chan bool, workers), make(chan string, workers)
			b.Cleanup(cluster.OnReady(func(*cluster.Process) { ready <- true }))
			b.Cleanup(cluster.OnListening(func(_ *cluster.Process, addr net.Addr) { addrs <- addr.String() }))
			require.NoError(b, cluster.AutoFork())
			for range workers {
				clustertest.Await(b, ready, "worker")
			}
			addr := clustertest.Await(b, addrs, "address")
			var count [workers]atomic.Int64
			var left atomic.Int64
			left.Store(int64(total))
			var all sync.WaitGroup
			b.ResetTimer()
			for range clients {
				all.Go(func() {
					buf := make([]byte, 1)
					for left.Add(-1) >= 0 {
						c, err := net.Dial("tcp", addr)
						if err != nil {
							b.Error(err)
							return
						}
						if _, err := io.ReadFull(c, buf); err != nil {
							b.Error(err)
						}
						count[buf[0]].Add(1)
						c.(*net.TCPConn).SetLinger(0)
						c.Close()
					}
				})
			}
			all.Wait()
			fewest, most := count[0].Load(), count[0].Load()
			for i := range count {
				fewest, most = min(fewest, count[i].Load()), max(most, count[i].Load())
			}
			b.ReportMetric(float64(most)/float64(max(1, fewest)), "max/min")
		})
	}
}
