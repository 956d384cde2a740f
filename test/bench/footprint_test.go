//go:build unix

package bench_test

// What the package costs, each figure against a baseline that is measured in
// the same run. BENCHMARKS.md says what the ratios mean.

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// benchIdleMaster forks as many workers as it is told to, and prints what they cost the master.
var benchIdleMaster = clustertest.Program("bench idle master", func() {
	n := clustertest.Atoi(os.Getenv("CLUSTER_BENCH_WORKERS"))
	clustertest.Must(cluster.SetupMaster(cluster.Options{Env: []string{clustertest.ProgramEnv + "=" + benchHello}}))
	online := make(chan struct{}, n)
	cluster.OnOnline(func(*cluster.Process) { online <- struct{}{} })
	// What is made only once, with the first worker, is not counted.
	fork := func(n int) {
		for range n {
			_, err := cluster.Fork()
			clustertest.Must(err)
		}
		for range n {
			<-online
		}
	}
	fork(1)
	before := benchFootprint()
	fork(n)
	after := benchFootprint()
	fmt.Println("KiB/worker", float64(after.memory-before.memory)/1024/float64(n))
	fmt.Println("goroutines/worker", float64(after.goroutines-before.goroutines)/float64(n))
	clustertest.Must(cluster.Disconnect(context.Background()))
})

type usage struct{ memory, goroutines int }

// benchFootprint returns the resident memory plus the heap of this process. A part is counted
// twice, and nothing is left out.
func benchFootprint() usage {
	runtime.GC()
	runtime.GC()
	time.Sleep(100 * time.Millisecond) // for goroutines that are about to end
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	statm, err := os.ReadFile("/proc/self/statm")
	clustertest.Must(err)
	return usage{clustertest.Atoi(strings.Fields(string(statm))[1])*os.Getpagesize() + int(m.HeapAlloc+m.StackInuse), runtime.NumGoroutine()}
}

// BenchmarkIdleWorker is the memory (resident plus heap) and the goroutines
// that an idle worker costs the master, with 8, 64 and 256 of them. It has no
// baseline: it is to be flat, at most 100 KiB.
func BenchmarkIdleWorker(b *testing.B) {
	benchProc(b)
	for _, n := range []int{8, 64, 256} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var memory, goroutines []float64
			rounds(b, 3, func() {
				p := clustertest.Start(b, benchIdleMaster, "CLUSTER_BENCH_WORKERS="+strconv.Itoa(n))
				memory = append(memory, number(b, p.Expect("KiB/worker")))
				goroutines = append(goroutines, number(b, p.Expect("goroutines/worker")))
				require.Equal(b, 0, p.Exit())
			})
			b.ReportMetric(median(memory), "KiB/worker")
			b.ReportMetric(median(goroutines), "goroutines/worker")
		})
	}
}

func number(b *testing.B, s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	require.NoError(b, err)
	return f
}

// benchSharedMaster has two workers that accept on a shared socket.
var benchSharedMaster = clustertest.Program("bench shared master", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2, Env: []string{clustertest.ProgramEnv + "=" + benchAccept}}))
	var listening atomic.Int32
	cluster.OnListening(func(_ *cluster.Process, addr net.Addr) {
		if listening.Add(1) == 2 {
			fmt.Println("listening", addr)
		}
	})
	clustertest.Must(cluster.Run(context.Background()))
})

// BenchmarkMasterWakeups is how often the master is woken for each connection
// that its workers accept in Shared mode: it counts the voluntary context
// switches of all its threads. It has no baseline: it is to be 0.
func BenchmarkMasterWakeups(b *testing.B) {
	benchProc(b)
	const conns = 5000
	p := clustertest.Start(b, benchSharedMaster)
	addr := p.Expect("listening")
	buf := make([]byte, 1)
	connect := func() {
		c, err := net.Dial("tcp", addr)
		require.NoError(b, err)
		_, err = c.Read(buf)
		require.NoError(b, err)
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	var wakeups []float64
	rounds(b, 5, func() {
		// Until the master has come to rest: after a start the runtime's own
		// threads wake up a few times.
		for before := -1; before != benchSwitches(b, p.Cmd.Process.Pid); {
			before = benchSwitches(b, p.Cmd.Process.Pid)
			time.Sleep(300 * time.Millisecond)
		}
		before := benchSwitches(b, p.Cmd.Process.Pid)
		for range conns {
			connect()
		}
		wakeups = append(wakeups, float64(benchSwitches(b, p.Cmd.Process.Pid)-before)/conns)
	})
	b.ReportMetric(median(wakeups), "wakeups/conn")
	p.Signal(os.Interrupt)
	require.Equal(b, 0, p.Exit())
}

// benchSwitches is the voluntary context switches of all threads of a process.
func benchSwitches(b *testing.B, pid int) (n int) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	require.NoError(b, err)
	for _, t := range tasks {
		status, _ := os.ReadFile(t)
		for line := range strings.Lines(string(status)) {
			if v, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				n += clustertest.Atoi(strings.TrimSpace(v))
			}
		}
	}
	return n
}

func benchProc(b *testing.B) {
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		b.Skip("no /proc here")
	}
}
