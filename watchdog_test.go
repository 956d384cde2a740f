package cluster_test

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
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
		"stopped":      {nil, sigStop, ""},
		"spins":        {[]string{"TROUBLE=spin", "GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=1"}, sigPoke, "[running]"},
		"check blocks": {[]string{"TROUBLE=check blocks"}, sigPoke, "cluster_test.blockedCheck"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, ups := supervise(t, supervision{Workers: 1, Env: c.env, Watchdog: cluster.Watchdog{Interval: tick, Timeout: 3 * time.Second}})
			kill(t, ups[0].pid, c.hang)
			require.Contains(t, p.expect("error"), cluster.ErrStalled.Error())
			p.dead(ups[0].pid, cluster.ReasonStall)
			next := p.event("up")
			require.NotEqual(t, ups[0].pid, next.pid)
			p.terminate()
			if system.dump {
				require.Equal(t, c.dump != "", strings.Contains(p.output(), "SIGQUIT"), "a stopped worker cannot dump")
				require.Contains(t, p.output(), c.dump)
			}
		})
	}
}

// TestFailingCheck: it is reported, and shown by Stats, and kills nobody.
func TestFailingCheck(t *testing.T) {
	t.Parallel()
	p, ups := supervise(t, supervision{Workers: 1, Env: []string{"TROUBLE=check fails"}, Watchdog: cluster.Watchdog{Interval: tick, Timeout: 5 * time.Second}})
	kill(t, ups[0].pid, sigPoke)
	require.Contains(t, p.expect("error"), "the database is down")
	for range 10 { // more than the timeout's worth of questions would take none along
		s := p.stats()
		require.Equal(t, "the database is down", s.Workers[0].Check)
		require.Equal(t, ups[0].pid, s.Workers[0].PID)
	}
	p.terminate()
	require.NotContains(t, p.output(), "stall")
}

// TestBusyWorker: one that computes on all its cores, collects garbage all the
// time and serves beside it answers the master, late as it may be.
func TestBusyWorker(t *testing.T) {
	t.Parallel()
	p, ups := supervise(t, supervision{Workers: 1, Env: []string{"TROUBLE=busy", "GOMAXPROCS=1"}, Watchdog: cluster.Watchdog{Interval: tick}})
	kill(t, ups[0].pid, sigPoke)
	for range 5 {
		begun := time.Now()
		answer, err := get("http://127.0.0.1:" + ups[0].rest[0])
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(ups[0].pid), answer)
		eventually(t, func() bool {
			w := p.stats().Workers[0]
			return w.PID == ups[0].pid && w.HeartbeatAge < cluster.Seconds(time.Since(begun))
		}, "a heartbeat of a busy worker")
	}
	p.signal(syscall.SIGKILL) // it is too busy to drain at once
	p.exit()
	p.groupEmpty()
	require.NotContains(t, p.output(), "stall")
}

// TestPausedMaster: one that was stopped for longer than the timeout kills
// nobody when it goes on.
func TestPausedMaster(t *testing.T) {
	t.Parallel()
	p, ups := supervise(t, supervision{Workers: 2, Watchdog: cluster.Watchdog{Interval: tick, Timeout: 2 * time.Second}})
	p.signal(sigStop)
	time.Sleep(3 * time.Second) // nothing tells that time has passed but time
	p.signal(sigCont)
	eventually(t, func() bool {
		s := p.stats()
		return s.Workers[0].HeartbeatAge < cluster.Seconds(time.Second) && s.Workers[1].HeartbeatAge < cluster.Seconds(time.Second)
	}, "heartbeats")
	for i, w := range p.stats().Workers {
		require.Equal(t, ups[i].pid, w.PID)
	}
	p.terminate()
	require.NotContains(t, p.output(), "stall")
}
