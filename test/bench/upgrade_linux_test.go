package bench_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

const (
	benchPlain      = "CLUSTER_BENCH_PLAIN" // the process ends where main calls AutoFork
	upgradedWorkers = 4
)

// benchUpgraded is a master whose workers ask it something all the time. At SigPoke it is
// replaced by the same program, which tells how long an answer took at most meanwhile.
var benchUpgraded = clustertest.Program("bench upgraded", func() {
	if cluster.IsWorker() {
		askAlways()
		return
	}
	var asked [1 + upgradedWorkers]atomic.Int64 // by id
	cluster.Respond("count", func(w *cluster.Process, c count) (count, error) {
		asked[w.ID()].Add(1)
		return c, nil
	})
	cluster.OnReady(func(*cluster.Process) { fmt.Println("ready") })
	cluster.OnUpgraded(func(err error) {
		clustertest.Must(err)
		go tellLongest(asked[1:])
	})
	c := make(chan os.Signal, 1)
	clustertest.Notify(c)
	go func() {
		for range c {
			go cluster.Upgrade(context.Background())
		}
	}()
	if os.Getenv(benchPlain) != "" {
		fmt.Println("starts")
		os.Exit(0)
	}
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: upgradedWorkers}))
	clustertest.Must(cluster.Run(context.Background()))
})

// askAlways asks the master, and keeps the longest time that an answer took until somebody
// asks for that.
func askAlways() {
	var longest atomic.Int64
	cluster.Respond("longest", func(*cluster.Process, count) (int64, error) { return longest.Swap(0), nil })
	clustertest.Must(cluster.Worker.Ready())
	for n := 0; ; n++ {
		began := time.Now()
		var answer count
		if cluster.Worker.Request(cluster.Context(), benchCount(n), &answer) != nil {
			break // the end
		}
		longest.Store(max(longest.Load(), int64(time.Since(began))))
		time.Sleep(time.Millisecond)
	}
	<-cluster.Context().Done()
	select {}
}

// tellLongest asks the workers when each has asked again since it had an answer from this
// program.
func tellLongest(asked []atomic.Int64) {
	for i := range asked {
		for asked[i].Load() < 2 {
			time.Sleep(time.Millisecond)
		}
	}
	var most int64
	for _, w := range cluster.Workers() {
		var longest int64
		clustertest.Must(w.Request(context.Background(), count{"longest", 0}, &longest))
		most = max(most, longest)
	}
	fmt.Println("longest", time.Duration(most))
}

// BenchmarkUpgrade is how long a master gives its four workers no answer while it is replaced,
// against a start of the same program up to AutoFork. The first contains the second: the goal
// is a bound of the difference.
func BenchmarkUpgrade(b *testing.B) {
	p := clustertest.Start(b, benchUpgraded)
	for range upgradedWorkers {
		p.Expect("ready")
	}
	var more []float64
	pause, start := 0.0, 0.0
	compare(b, "ms", func() float64 {
		p.Signal(clustertest.SigPoke)
		longest, err := time.ParseDuration(p.Expect("longest "))
		require.NoError(b, err)
		pause = milliseconds(longest)
		return pause
	}, func() float64 {
		start = milliseconds(plainStart(b))
		more = append(more, pause-start)
		return start
	})
	b.ReportMetric(median(more[1:]), "ms-more") // the first pair warms up
	p.Terminate()
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// plainStart is how long a process takes from fork to AutoFork.
func plainStart(b *testing.B) time.Duration {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), clustertest.ProgramEnv+"="+benchUpgraded, benchPlain+"=1")
	out, err := c.StdoutPipe()
	require.NoError(b, err)
	began := time.Now()
	require.NoError(b, c.Start())
	_, err = out.Read(make([]byte, 10))
	took := time.Since(began)
	require.NoError(b, err)
	require.NoError(b, c.Wait())
	return took
}
