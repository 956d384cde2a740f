//go:build unix && !race

package admin

import (
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A scrape of 8 workers with 500 series each may cost the master 25 ms of CPU time, and
// leave less than 1 MiB. The test fails at three times as much, of the best of several tries:
// a machine that does other things makes each of them dearer.
const (
	scrapeCPU  = 25 * time.Millisecond
	scrapeKept = 1 << 20
	costTries  = 20
)

// TestScrapeCost: reading, merging and writing what the workers answer stays within that. It is
// not parallel, since it counts what this process uses.
func TestScrapeCost(t *testing.T) {
	body := answerOf500(t)
	scrapeOf8(t, body) // what is made once
	best, before := time.Hour, heap()
	for range costTries {
		began := cpuTime(t)
		scrapeOf8(t, body)
		best = min(best, cpuTime(t)-began)
	}
	kept := heap() - before
	t.Logf("CPU time %v, %d bytes kept", best, kept)
	require.Less(t, best, 3*scrapeCPU)
	require.Less(t, kept, int64(3*scrapeKept))
}

// cpuTime is what this process has used.
func cpuTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// heap is what is in use, in bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
