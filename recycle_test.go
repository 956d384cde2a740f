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
			next := p.Event("up")
			require.NotEqual(t, ups[0].PID, next.PID)
			p.Dead(ups[0].PID, cluster.ReasonRecycle)
			p.Terminate()
			// Of what was said until then, the replacement came first.
			out := p.Output()
			require.Less(t, strings.Index(out, "up 0 "+strconv.Itoa(next.PID)), strings.Index(out, "dead 0 "+strconv.Itoa(ups[0].PID)))
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
		gone[p.Event("dead").PID] = true
	}
	for _, w := range ups {
		require.True(t, gone[w.PID])
	}
	p.Terminate()
	alive, serving := 0, 0
	for line := range strings.Lines(p.Output()) {
		switch kind, _, _ := strings.Cut(line, " "); kind {
		case "fork":
			alive++
		case "up":
			serving++
		case "dead":
			if strings.Contains(line, string(cluster.ReasonRecycle)) {
				require.Greater(t, serving, workers, line)
			}
			alive--
			serving--
		}
		require.LessOrEqual(t, alive, workers+1, line)
	}
}
