package cluster_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestStatsAtEachStep: every value is true at every step of a cluster's life.
func TestStatsAtEachStep(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	address := clustertest.UnusedAddress(t, "tcp", "")
	before := cluster.Stats()
	clustertest.WithMaster(t, clustertest.Troublemaker, cluster.Options{Workers: 2, Env: []string{"ADDRESS=" + address}, Watchdog: cluster.Watchdog{Interval: clustertest.Tick}})
	require.Equal(t, os.Getpid(), before.PID)
	require.Zero(t, before.Target)
	require.Empty(t, before.Workers)
	require.Empty(t, before.Listeners)

	ups, dead := make(chan *cluster.Process, 100), clustertest.Deaths(t)
	t.Cleanup(cluster.Handle("up", func(w *cluster.Process, _ clustertest.Up) { ups <- w }))
	begun := time.Now()
	require.NoError(t, cluster.AutoFork())
	bySlot := make(map[int]*cluster.Process)
	for range 2 {
		w := clustertest.Await(t, ups, "worker")
		bySlot[w.Slot()] = w
	}
	// A connection that is open, beside one that was.
	_, err := clustertest.Get("http://" + address)
	require.NoError(t, err)
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, bySlot[0].Send("a message"))
	var s cluster.Snapshot
	clustertest.Eventually(t, func() bool {
		s = cluster.Stats()
		return s.Workers[0].Accepted+s.Workers[1].Accepted == 2 && s.Workers[0].Active+s.Workers[1].Active == 1
	}, "heartbeats that tell of the connections")

	require.Equal(t, 2, s.Target)
	require.Greater(t, s.Uptime, before.Uptime)
	require.Greater(t, s.Generation, before.Generation)
	require.Len(t, s.Workers, 2)
	for i, w := range s.Workers {
		p := bySlot[i]
		require.Equal(t, []int{i, p.ID(), p.PID()}, []int{w.Slot, w.ID, w.PID})
		require.Equal(t, "ready", w.State)
		require.Equal(t, s.Generation, w.Generation)
		require.InDelta(t, begun.Unix(), w.Started, 60)
		require.Positive(t, w.ReadyAfter)
		require.Less(t, w.ReadyAfter, cluster.Seconds(time.Since(begun)))
		require.Zero(t, w.Restarts)
		require.Empty(t, w.LastExit)
		require.EqualValues(t, 1, w.MessagesIn, "up")
		require.EqualValues(t, 1-i, w.MessagesOut)
		require.Zero(t, w.Queue)
		require.Less(t, w.HeartbeatAge, cluster.Seconds(time.Since(begun)))
		if clustertest.System.Memory {
			require.Greater(t, w.RSS, int64(1<<20))
			require.Less(t, w.RSS, int64(1<<31))
		}
		// Wine tells of each process what the one that asks has used.
		require.Less(t, w.CPU, cluster.Seconds(time.Hour))
	}
	require.Len(t, s.Listeners, 1)
	l := s.Listeners[0]
	require.Equal(t, []string{"tcp", address}, []string{l.Network, l.Address})
	require.Zero(t, l.Backlog)
	if clustertest.System.Backlog {
		require.Positive(t, l.Limit)
	}

	// What a stopped worker has not read.
	clustertest.Pause(t, bySlot[1].PID())
	require.NoError(t, bySlot[1].Send(string(make([]byte, 1<<20))))
	clustertest.Eventually(t, func() bool { return cluster.Stats().Workers[1].Queue > 1<<19 }, "a queue")
	age := cluster.Stats().Workers[1].HeartbeatAge
	clustertest.Eventually(t, func() bool { return cluster.Stats().Workers[1].HeartbeatAge > age+cluster.Seconds(clustertest.Tick) }, "an older heartbeat")
	clustertest.Kill(t, bySlot[1].PID(), syscall.SIGKILL)
	clustertest.Await(t, dead, "death")
	next := clustertest.Await(t, ups, "successor")
	s = cluster.Stats()
	w := s.Workers[1]
	require.Equal(t, next.PID(), w.PID)
	require.Equal(t, 1, w.Restarts)
	require.Contains(t, w.LastExit, clustertest.System.KilledText)
	require.Equal(t, before.Exits[cluster.ReasonCrash]+1, s.Exits[cluster.ReasonCrash])

	// A slot without a worker.
	require.NoError(t, next.Kill())
	clustertest.Await(t, dead, "death")
	s = cluster.Stats()
	require.Equal(t, cluster.WorkerStats{Slot: 1, State: "off", Generation: s.Generation, Restarts: 1, LastExit: s.Workers[1].LastExit}, s.Workers[1])
	require.Equal(t, before.Exits[cluster.ReasonKill]+1, s.Exits[cluster.ReasonKill])

	c.Close() // or the drain waits for it
	require.NoError(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)))
	s = cluster.Stats()
	require.Equal(t, cluster.ReloadStats{Replaced: 2, Took: s.Reload.Took}, s.Reload)
	require.Positive(t, s.Reload.Took)
	require.NotEqual(t, bySlot[0].PID(), s.Workers[0].PID)
	require.Equal(t, before.Exits[cluster.ReasonReload]+1, s.Exits[cluster.ReasonReload])

	// A plain Fork has no slot.
	plain := clustertest.Fork(t)
	clustertest.Await(t, ups, "plain worker")
	s = cluster.Stats()
	require.Equal(t, 2, s.Target)
	require.Equal(t, []int{-1, plain.PID()}, []int{s.Workers[0].Slot, s.Workers[0].PID})

	clustertest.StopAll(t)
	s = cluster.Stats()
	require.Zero(t, s.Target)
	require.Empty(t, s.Workers)
	require.Empty(t, s.Listeners)
	require.Equal(t, before.Exits[cluster.ReasonStop]+3, s.Exits[cluster.ReasonStop])
}

// TestStatsAsJSON: the names are those that dashboards know, durations are seconds, a list
// without elements is [], and the JSON can be read again.
func TestStatsAsJSON(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Workers: 1})
	keys := func(v any) (names []string) {
		for k := range v.(map[string]any) {
			names = append(names, k)
		}
		return names
	}
	b, err := json.Marshal(cluster.Stats())
	require.NoError(t, err)
	require.Contains(t, string(b), `"workers":[],"listeners":[]`)
	online := clustertest.Onlines(t)
	require.NoError(t, cluster.AutoFork())
	clustertest.Ask[string](t, clustertest.Await(t, online, "online"), clustertest.Order{Cmd: "listen"})
	clustertest.Eventually(t, func() bool { return cluster.Stats().Workers[0].State == "ready" }, "ready")

	s := cluster.Stats()
	b, err = json.Marshal(s)
	require.NoError(t, err)
	var m map[string]any
	require.NoError(t, json.Unmarshal(b, &m))
	require.ElementsMatch(t, []string{"pid", "uptime", "generation", "target", "workers", "listeners", "exits", "reload", "coord"}, keys(m))
	require.ElementsMatch(t, []string{"slot", "id", "pid", "state", "generation", "started", "ready_after", "restarts", "last_exit", "accepted",
		"active", "messages_in", "messages_out", "queue", "heartbeat_age", "rss", "cpu", "name", "goroutines", "go_version", "version", "revision"}, keys(m["workers"].([]any)[0]))
	require.ElementsMatch(t, []string{"network", "address", "scheduling", "backlog", "limit"}, keys(m["listeners"].([]any)[0]))
	require.InDelta(t, time.Duration(s.Uptime).Seconds(), m["uptime"], 1e-6)

	var again cluster.Snapshot
	require.NoError(t, json.Unmarshal(b, &again))
	require.Equal(t, s, again)
}

// TestStatsDuringAll: a Snapshot that is taken while everything changes is consistent: it has no
// dead worker, none twice, and one line for each slot.
func TestStatsDuringAll(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	clustertest.WithMaster(t, clustertest.Troublemaker, cluster.Options{Workers: 3, ReadyFor: -1, Backoff: cluster.Backoff{Max: time.Millisecond, Min: time.Millisecond}})
	require.NoError(t, cluster.AutoFork())
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			s := cluster.Stats()
			slots, ids := make(map[int]int), make(map[int]bool)
			for _, w := range s.Workers {
				slots[w.Slot]++
				if w.ID != 0 && ids[w.ID] || w.State == "dead" || (w.PID == 0) != (w.ID == 0) {
					done <- errorOf(s)
					return
				}
				ids[w.ID] = true
			}
			for i := range s.Target {
				if slots[i] == 0 {
					done <- errorOf(s)
					return
				}
			}
		}
	}()
	for _, n := range []int{5, 2, 4} {
		require.NoError(t, cluster.Scale(n))
		cluster.Workers()[0].OSProcess().Kill()
		require.NoError(t, cluster.Reload(t.Context())) // of up to five, one by one, beside a busy core
	}
	close(stop)
	require.NoError(t, clustertest.Await(t, done, "end"))
}

func errorOf(s cluster.Snapshot) error {
	b, _ := json.Marshal(s)
	return fmt.Errorf("inconsistent: %s", b)
}
