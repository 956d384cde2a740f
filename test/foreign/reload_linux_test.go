package foreign_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestReload: it takes the program that lies there now, and a crash before it that
// which lay there at the fork. No request is lost.
func TestReload(t *testing.T) {
	path := filepath.Join(clustertest.TempDir(t), "program")
	put := func(name string) {
		b, err := os.ReadFile(filepath.Join(bin, name))
		require.NoError(t, err)
		clustertest.WriteProgram(t, path+".new", b)
		require.NoError(t, os.Rename(path+".new", path))
	}
	put("guest")
	o := guest()
	o.Exec, o.Workers = path, 2
	clustertest.WithMaster(t, "none", o)
	ends := deaths(t)
	require.NoError(t, cluster.AutoFork())
	for _, w := range cluster.Workers() {
		until(t, w, cluster.Ready)
	}
	put("newer")
	require.NoError(t, cluster.Workers()[0].OSProcess().Kill())
	require.Equal(t, cluster.ReasonCrash, clustertest.Await(t, ends, "death").Reason)
	clustertest.Eventually(t, func() bool { return len(cluster.Workers()) == 2 }, "a successor")
	for _, w := range cluster.Workers() {
		until(t, w, cluster.Ready)
		target, err := os.Stat("/proc/" + strconv.Itoa(w.PID()) + "/exe")
		require.NoError(t, err)
		now, err := os.Stat(path)
		require.NoError(t, err)
		require.False(t, os.SameFile(target, now), "a worker of the old version")
	}

	at := address(t)
	var asked, failed atomic.Int64
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: clustertest.Patience}
		for {
			select {
			case <-stop:
				return
			default:
			}
			asked.Add(1)
			if resp, err := c.Get("http://" + at + "/pid"); err != nil {
				failed.Add(1)
			} else {
				resp.Body.Close()
			}
		}
	}()
	require.NoError(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)))
	close(stop)
	<-stopped
	require.Zero(t, failed.Load(), "of %d", asked.Load())
	require.Equal(t, "2", ask[string](t, "/version"))
	for _, w := range cluster.Workers() {
		require.Equal(t, cluster.Ready, w.State())
	}
}

// TestReloadOtherSockets: the address of before ends with its workers.
func TestReloadOtherSockets(t *testing.T) {
	dir := clustertest.TempDir(t)
	o := guest()
	o.ReadyAfter, o.ReadyFor = 50*time.Millisecond, -1
	o.Sockets = []cluster.Socket{{Network: "unix", Address: filepath.Join(dir, "a")}, {Network: "unix", Address: filepath.Join(dir, "b")}}
	clustertest.WithMaster(t, "none", o)
	require.NoError(t, cluster.AutoFork())
	only(t)
	o.Sockets = o.Sockets[1:]
	require.NoError(t, cluster.SetupMaster(o))
	require.NoError(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)))
	require.FileExists(t, filepath.Join(dir, "b"))
	clustertest.Eventually(t, func() bool { return len(cluster.Stats().Listeners) == 1 }, "the end of an address")
	require.NoFileExists(t, filepath.Join(dir, "a"))
}

// TestReloadFails: the old worker stays when the new one dies.
func TestReloadFails(t *testing.T) {
	o := guest()
	clustertest.WithMaster(t, "none", o)
	require.NoError(t, cluster.AutoFork())
	w := only(t)
	o.Args, o.ReadyAfter = []string{"-die", "4"}, 30*time.Second
	require.NoError(t, cluster.SetupMaster(o))
	require.ErrorContains(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)), "exit status 4")
	require.Equal(t, []*cluster.Process{w}, cluster.Workers())
	require.Equal(t, w.PID(), ask[int](t, "/pid"))
}

// TestRecycled by age and by size.
func TestRecycled(t *testing.T) {
	for name, limit := range map[string]cluster.Recycle{"age": {Age: time.Millisecond}, "memory": {Memory: 1}} {
		t.Run(name, func(t *testing.T) {
			o := guest()
			o.ReadyAfter, o.ReadyFor, o.Recycle = 50*time.Millisecond, -1, limit
			o.Recycle.MinAge, o.Watchdog.Interval = time.Millisecond, 50*time.Millisecond
			clustertest.WithMaster(t, "none", o)
			ends := deaths(t)
			require.NoError(t, cluster.AutoFork())
			require.Equal(t, cluster.ReasonRecycle, clustertest.Await(t, ends, "death").Reason)
		})
	}
}

// orphans is a master that somebody kills. It tells the pids of its workers.
var orphans = clustertest.Program("foreign orphans", func() {
	o := guest("-ready")
	o.Workers, o.ManualReady, o.Output = 2, true, nil
	clustertest.Must(cluster.SetupMaster(o))
	cluster.OnOnline(func(w *cluster.Process) {
		for w.State() < cluster.Ready { // of which nothing else tells
			time.Sleep(time.Millisecond)
		}
		os.Stdout.WriteString("ready " + strconv.Itoa(w.PID()) + "\n")
	})
	clustertest.Must(cluster.Run(context.Background()))
})

// TestMasterKilled: its workers are asked to end.
func TestMasterKilled(t *testing.T) {
	p := clustertest.Start(t, orphans)
	pids := map[string]bool{p.Expect("ready "): true, p.Expect("ready "): true}
	p.Signal(syscall.SIGKILL)
	for len(pids) > 0 {
		delete(pids, p.Expect("terminated "))
	}
	p.Exit()
}

// TestRunStops: a service that is stopped ends with 0.
func TestRunStops(t *testing.T) {
	p := clustertest.Start(t, orphans)
	pids := []string{p.Expect("ready "), p.Expect("ready ")}
	p.Signal(syscall.SIGTERM)
	require.Zero(t, p.Exit(), p.Output())
	for _, pid := range pids {
		require.NoFileExists(t, "/proc/"+pid)
	}
}
