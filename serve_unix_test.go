//go:build unix

package cluster_test

import (
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// A worker that is told to stop before it has listened exits with 0 too, whether the master or
// another process tells it.
func TestDrainBeforeListening(t *testing.T) {
	clustertest.WithMaster(t, late, cluster.Options{})
	rec, dead := lines(t), clustertest.Deaths(t)
	for range 5 {
		w := clustertest.Fork(t)
		rec.Until(t, "up")
		require.NoError(t, w.Disconnect(t.Context()))
		require.Equal(t, 0, clustertest.Await(t, dead, "death").Exit.Code)
		w = clustertest.Fork(t)
		rec.Until(t, "up")
		require.NoError(t, w.OSProcess().Signal(syscall.SIGTERM))
		require.Equal(t, 0, clustertest.Await(t, dead, "death").Exit.Code)
	}
}

// SIGTERM to one worker lets it finish and exit with 0, though nobody asked the
// master; another takes its place.
func TestServeSigtermToWorker(t *testing.T) {
	t.Parallel()
	for _, mode := range webModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p, addr := startWeb(t, mode)
			slow := fetch(1, "http://"+addr+"/slow")
			pid := clustertest.Atoi(p.Expect("begun"))
			require.NoError(t, syscall.Kill(pid, syscall.SIGTERM))
			f := clustertest.Await(t, slow, "answer")
			require.NoError(t, f.err)
			require.Len(t, f.body, fullBody)
			require.Equal(t, strconv.Itoa(pid)+" 0 <nil> false", p.Expect("death"))
			require.Equal(t, addr, p.Expect("listening"))
			_, err := clustertest.Get("http://" + addr)
			require.NoError(t, err)
			p.Signal(syscall.SIGTERM)
			require.Equal(t, 0, p.Exit())
		})
	}
}

// Processes that are stopped for a while in the middle of a drain, with their
// machine perhaps, answer what was sent to them meanwhile.
func TestServeStoppedInADrain(t *testing.T) {
	t.Parallel()
	for _, mode := range webModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			for !testStoppedInADrain(t, mode) {
				t.Log("too late: once more")
			}
		})
	}
}

// testStoppedInADrain reports whether it stopped them in time: on a busy machine the
// drain may have closed the connections before.
func testStoppedInADrain(t *testing.T, mode string) bool {
	p, addr := startWeb(t, mode)
	answers := make(chan error, 300)
	var clients []*client
	for range cap(answers) {
		c, err := dialHTTP(addr)
		require.NoError(t, err)
		defer c.c.Close()
		_, _, err = c.do("GET", "/", nil)
		require.NoError(t, err)
		clients = append(clients, c)
	}
	begin := time.Now()
	p.Signal(syscall.SIGTERM)
	p.Expect("draining")
	p.Expect("draining")
	require.NoError(t, syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGSTOP))
	if time.Since(begin) > idleTime/2 {
		return false
	}
	for _, c := range clients {
		go func() {
			_, _, err := c.do("GET", "/", nil)
			answers <- err
		}()
	}
	time.Sleep(4 * time.Second) // the span is the measure: longer than a drain waits for idle connections
	require.NoError(t, syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGCONT))
	for range clients {
		require.NoError(t, clustertest.Await(t, answers, "answer"))
	}
	require.Equal(t, 0, p.Exit())
	p.GroupEmpty()
	return true
}
