package cluster_test

import (
	"net"
	"strconv"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// idle listens on a free port and waits to be drained.
var idle = clustertest.Program("idle", func() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	<-cluster.Context().Done()
	ln.Close()
	select {}
})

// TestLifeOfAWorker sees every event of one worker, once and in order, and its
// state at each.
func TestLifeOfAWorker(t *testing.T) {
	clustertest.WithMaster(t, idle, cluster.Options{})
	rec := clustertest.NewRecorder()
	t.Cleanup(cluster.OnFork(func(w *cluster.Process) { rec.Add("fork %d", w.ID()) }))
	t.Cleanup(cluster.OnOnline(func(w *cluster.Process) { rec.Add("online %v", w.State() >= cluster.Online) }))
	t.Cleanup(cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
		rec.Add("listening %s %v %v", addr.Network(), addr.(*net.TCPAddr).Port > 0, w.State() == cluster.Ready)
	}))
	t.Cleanup(cluster.OnDisconnect(func(w *cluster.Process) { rec.Add("disconnect %v", w.IsConnected()) }))
	t.Cleanup(cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) {
		rec.Add("death %d %v voluntary=%v dead=%v", e.Code, e.Signal, e.Voluntary, w.IsDead())
	}))

	w, err := cluster.Fork()
	require.NoError(t, err)
	rec.Until(t, "listening")
	require.Equal(t, cluster.Ready, w.State())
	require.Equal(t, -1, w.Slot())
	require.Equal(t, []*cluster.Process{w}, cluster.Workers())
	require.NoError(t, w.Disconnect(t.Context()))
	rec.Until(t, "death")
	require.Empty(t, cluster.Workers())
	require.Equal(t, []string{
		"fork " + strconv.Itoa(w.ID()), "online true", "listening tcp true true", "disconnect false",
		"death 0 <nil> voluntary=true dead=true",
	}, rec.All())
}
