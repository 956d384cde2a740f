package cluster_test

import (
	"net/http"
	"runtime"
	"strconv"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestScaleOfProcesses: workers come and go as Scale says, the highest slot
// first; the new ones share the cores with those that there are.
func TestScaleOfProcesses(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Workers: 1})
	online, dead := clustertest.Onlines(t), clustertest.Deaths(t)
	procs := func(w *cluster.Process) int {
		return clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about"}).MaxProcs
	}
	require.NoError(t, cluster.AutoFork())
	first := clustertest.Await(t, online, "online")
	require.Equal(t, 8, procs(first))
	require.ErrorContains(t, cluster.Scale(-1), "negative")

	require.NoError(t, cluster.Scale(4))
	slots := make(map[int]*cluster.Process)
	for range 3 {
		w := clustertest.Await(t, online, "online")
		slots[w.Slot()] = w
		require.Equal(t, 2, procs(w))
	}
	require.Len(t, slots, 3)
	require.Equal(t, 4, cluster.Settings().Workers)
	require.Equal(t, 4, cluster.Stats().Target)
	require.Equal(t, 2, cluster.Settings().MaxProcs)
	require.NoError(t, cluster.SetupMaster(cluster.Settings()), "freezes nothing")

	require.NoError(t, cluster.Scale(2))
	require.Equal(t, 4, cluster.Settings().MaxProcs)
	for range 2 {
		d := clustertest.Await(t, dead, "death")
		require.GreaterOrEqual(t, d.Worker.Slot(), 2)
		require.Equal(t, cluster.ReasonScale, d.Exit.Reason)
		require.Zero(t, d.Exit.Code, "drained")
		require.True(t, d.Exit.Voluntary)
	}
	require.Equal(t, []*cluster.Process{first, slots[1]}, cluster.Workers())

	require.NoError(t, slots[1].Kill())
	require.Equal(t, cluster.ReasonKill, clustertest.Await(t, dead, "death").Exit.Reason)
	require.NoError(t, cluster.Scale(2))
	require.Equal(t, 1, clustertest.Await(t, online, "online").Slot(), "an emptied slot is filled again")
}

// TestScaleToZero: the address stays open, a connection waits, and is served
// when there is a worker again.
func TestScaleToZero(t *testing.T) {
	address := clustertest.UnusedAddress(t, "tcp", "")
	clustertest.WithMaster(t, clustertest.Troublemaker, cluster.Options{Workers: 2, Env: []string{"ADDRESS=" + address}})
	listening, dead := clustertest.Listenings(t), clustertest.Deaths(t)
	require.NoError(t, cluster.AutoFork())
	for range 2 {
		clustertest.Await(t, listening, "listening")
	}
	require.NoError(t, cluster.Scale(0))
	for range 2 {
		clustertest.Await(t, dead, "death")
	}
	require.Empty(t, cluster.Workers())
	require.NoError(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)), "of nothing, for those to come")
	s := cluster.Stats()
	require.Empty(t, s.Workers)
	require.Len(t, s.Listeners, 1)
	answers := make(chan string, 1)
	go func() {
		answer, err := clustertest.Get("http://" + address)
		if err != nil {
			answer = err.Error()
		}
		answers <- answer
	}()
	if clustertest.System.Backlog {
		clustertest.Eventually(t, func() bool { return cluster.Stats().Listeners[0].Backlog == 1 }, "a connection that waits")
	}
	require.NoError(t, cluster.Scale(1))
	w := clustertest.Await(t, listening, "listening")
	require.Equal(t, strconv.Itoa(w.PID()), clustertest.Await(t, answers, "answer"))
	http.DefaultClient.CloseIdleConnections()
}
