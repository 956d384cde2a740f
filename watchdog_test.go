package cluster_test

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestHungWorker: one that is stopped, that spins with its channel unread, or of
// which a check does not return, is found, asked for its goroutines, and
// replaced.
func TestHungWorker(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env  []string
		hang syscall.Signal
		dump string
	}{
		"stopped":      {nil, clustertest.SigStop, ""},
		"spins":        {[]string{"TROUBLE=spin", "GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=1"}, clustertest.SigPoke, "[running]"},
		"check blocks": {[]string{"TROUBLE=check blocks"}, clustertest.SigPoke, "cluster_test.blockedCheck"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, ups := clustertest.Supervise(t, clustertest.Supervision{Workers: 1, Env: c.env, Watchdog: cluster.Watchdog{Interval: clustertest.Tick, Timeout: 3 * time.Second}})
			clustertest.Kill(t, ups[0].PID, c.hang)
			require.Contains(t, p.Expect("error"), cluster.ErrStalled.Error())
			p.Dead(ups[0].PID, cluster.ReasonStall)
			next := p.Event("up")
			require.NotEqual(t, ups[0].PID, next.PID)
			p.Terminate()
			if clustertest.System.Dump {
				require.Equal(t, c.dump != "", strings.Contains(p.Output(), "SIGQUIT"), "a stopped worker cannot dump")
				require.Contains(t, p.Output(), c.dump)
			}
		})
	}
}

// TestFailingCheck: it is reported, and shown by Stats, and kills nobody.
func TestFailingCheck(t *testing.T) {
	t.Parallel()
	p, ups := clustertest.Supervise(t, clustertest.Supervision{Workers: 1, Env: []string{"TROUBLE=check fails"}, Watchdog: cluster.Watchdog{Interval: clustertest.Tick, Timeout: 5 * time.Second}})
	clustertest.Kill(t, ups[0].PID, clustertest.SigPoke)
	require.Contains(t, p.Expect("error"), "the database is down")
	for range 10 { // more than the timeout's worth of questions would take none along
		s := p.Stats()
		require.Equal(t, "the database is down", s.Workers[0].Check)
		require.Equal(t, ups[0].PID, s.Workers[0].PID)
	}
	p.Terminate()
	require.NotContains(t, p.Output(), "stall")
}

// TestBusyWorker: one that computes on all its cores, collects garbage all the
// time and serves beside it answers the master, late as it may be.
func TestBusyWorker(t *testing.T) {
	t.Parallel()
	p, ups := clustertest.Supervise(t, clustertest.Supervision{Workers: 1, Env: []string{"TROUBLE=busy", "GOMAXPROCS=1"}, Watchdog: cluster.Watchdog{Interval: clustertest.Tick}})
	clustertest.Kill(t, ups[0].PID, clustertest.SigPoke)
	for range 5 {
		begun := time.Now()
		answer, err := clustertest.Get("http://127.0.0.1:" + ups[0].Rest[0])
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(ups[0].PID), answer)
		clustertest.Eventually(t, func() bool {
			w := p.Stats().Workers[0]
			return w.PID == ups[0].PID && w.HeartbeatAge < cluster.Seconds(time.Since(begun))
		}, "a heartbeat of a busy worker")
	}
	p.Signal(syscall.SIGKILL) // it is too busy to drain at once
	p.Exit()
	p.GroupEmpty()
	require.NotContains(t, p.Output(), "stall")
}

// TestPausedMaster: one that was stopped for longer than the timeout kills
// nobody when it goes on.
func TestPausedMaster(t *testing.T) {
	t.Parallel()
	p, ups := clustertest.Supervise(t, clustertest.Supervision{Workers: 2, Watchdog: cluster.Watchdog{Interval: clustertest.Tick, Timeout: 2 * time.Second}})
	p.Signal(clustertest.SigStop)
	time.Sleep(3 * time.Second) // nothing tells that time has passed but time
	p.Signal(clustertest.SigCont)
	clustertest.Eventually(t, func() bool {
		s := p.Stats()
		return s.Workers[0].HeartbeatAge < cluster.Seconds(time.Second) && s.Workers[1].HeartbeatAge < cluster.Seconds(time.Second)
	}, "heartbeats")
	for i, w := range p.Stats().Workers {
		require.Equal(t, ups[i].PID, w.PID)
	}
	p.Terminate()
	require.NotContains(t, p.Output(), "stall")
}
