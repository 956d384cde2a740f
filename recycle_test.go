package cluster_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestRecycledWorker: a worker that has accepted so many connections, is so old,
// or so large, is drained once its replacement is up.
func TestRecycledWorker(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		r     cluster.Recycle
		cause func(t *testing.T, w clustertest.Event)
	}{
		"connections": {cluster.Recycle{Connections: 5}, func(t *testing.T, w clustertest.Event) {
			for range 5 {
				_, err := clustertest.Get("http://127.0.0.1:" + w.Rest[0])
				require.NoError(t, err)
			}
		}},
		"age":    {cluster.Recycle{Age: 2 * time.Second}, func(*testing.T, clustertest.Event) {}},
		"memory": {cluster.Recycle{Memory: 200 << 20}, func(t *testing.T, w clustertest.Event) { clustertest.Kill(t, w.PID, clustertest.SigPoke) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.r.Jitter, c.r.MinAge = -1, 1
			p, ups := clustertest.Supervise(t, clustertest.Supervision{Workers: 1, Recycle: c.r, Watchdog: cluster.Watchdog{Interval: clustertest.Tick}, Env: []string{"TROUBLE=memory"}})
			c.cause(t, ups[0])
			// The replacement is ready when the worker dies, whichever of the two
			// says so first.
			old := strconv.Itoa(ups[0].PID)
			ends := p.All("up 0 ", "dead 0 "+old+" "+string(cluster.ReasonRecycle), "census dead "+old+" ")
			require.NotEqual(t, old, strings.Fields(ends[0])[0])
			_, ready := census(ends[2])
			require.Positive(t, ready)
			p.Terminate()
		})
	}
}

// TestRecyclingTakesTurns: of workers that are due together one at a time is
// replaced, and none before its replacement is up.
func TestRecyclingTakesTurns(t *testing.T) {
	t.Parallel()
	const workers = 3
	p, ups := clustertest.Supervise(t, clustertest.Supervision{Workers: workers, Recycle: cluster.Recycle{Age: 2 * time.Second, Jitter: -1, MinAge: 1}})
	gone := make(map[int]bool)
	for range workers {
		pid, rest, _ := strings.Cut(p.Expect("census dead "), " ")
		gone[clustertest.Atoi(pid)] = true
		_, ready := census(rest)
		require.GreaterOrEqual(t, ready, workers, "when %s dies", pid)
	}
	for _, w := range ups {
		require.True(t, gone[w.PID])
	}
	p.Terminate()
	for line := range strings.Lines(p.Output()) {
		if strings.HasPrefix(line, "census ") {
			f := strings.Fields(line)
			alive := clustertest.Atoi(f[len(f)-2])
			require.LessOrEqual(t, alive, workers+1, line)
		}
		if pid, ok := strings.CutPrefix(line, "dead "); ok && gone[clustertest.Atoi(strings.Fields(pid)[1])] {
			require.Contains(t, line, string(cluster.ReasonRecycle))
		}
	}
}

// census reads how many workers there are and how many of them are ready.
func census(text string) (alive, ready int) {
	f := strings.Fields(text)
	return clustertest.Atoi(f[0]), clustertest.Atoi(f[1])
}
