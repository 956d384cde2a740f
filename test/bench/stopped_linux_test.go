package bench_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// BenchmarkStopped is how long 99 of 100 new connections take at most until they are
// greeted, in milliseconds, while one of four workers is stopped for five seconds: 1,000 a
// second begin, whatever has become of those before. The baseline is the same with none
// stopped: three times that and 10 ms at most. None may fail.
func BenchmarkStopped(b *testing.B) {
	const workers = 4
	span := 5 * time.Second
	if testing.Short() {
		span = time.Second
	}
	clustertest.WithMaster(b, benchWho, cluster.Options{Workers: workers, Scheduling: cluster.Sharded, Watchdog: cluster.Watchdog{Timeout: time.Hour}})
	ready, addrs := make(chan bool, workers), make(chan string, workers)
	b.Cleanup(cluster.OnReady(func(*cluster.Process) { ready <- true }))
	b.Cleanup(cluster.OnListening(func(_ *cluster.Process, addr net.Addr) { addrs <- addr.String() }))
	require.NoError(b, cluster.AutoFork())
	for range workers {
		clustertest.Await(b, ready, "worker")
	}
	addr, pid := clustertest.Await(b, addrs, "address"), cluster.Workers()[0].PID()
	var failed atomic.Int64
	none := func() float64 { return openLoop(addr, span, &failed) }
	one := func() float64 {
		clustertest.Kill(b, pid, syscall.SIGSTOP)
		defer clustertest.Kill(b, pid, syscall.SIGCONT)
		return openLoop(addr, span, &failed)
	}
	compareOf(b, 3, "p99-ms", one, none)
	b.ReportMetric(float64(failed.Load()), "failed")
}

// openLoop begins 1,000 connections a second and returns how long 99 of 100 took at most, in
// milliseconds, each from when it was due.
func openLoop(addr string, span time.Duration, failed *atomic.Int64) float64 {
	took := make([]float64, span/time.Millisecond)
	var all sync.WaitGroup
	begun := time.Now()
	for i := range took {
		due := begun.Add(time.Duration(i) * time.Millisecond)
		time.Sleep(time.Until(due))
		all.Go(func() {
			if err := greeted(addr); err != nil {
				failed.Add(1)
				fmt.Println("a connection has failed:", err)
			}
			took[i] = time.Since(due).Seconds() * 1e3
		})
	}
	all.Wait()
	slices.Sort(took)
	return took[len(took)*99/100]
}

// greeted connects and waits for the first byte.
func greeted(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.(*net.TCPConn).SetLinger(0)
	c.SetDeadline(time.Now().Add(clustertest.Patience))
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}
