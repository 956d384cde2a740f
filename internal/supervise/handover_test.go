package supervise

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What is seen too soon, and what is seen too late.

const readyFor = 500 * time.Millisecond

// TestReplacementIsHeld: the old worker drains when the new one has been ready for
// ReadyFor, and stays if the new one dies before.
func TestReplacementIsHeld(t *testing.T) {
	n, all := filled(t, Settings{Workers: 2, ReadyFor: readyFor})
	done := n.reload()
	next := n.started()
	n.ready(next)
	n.sleep(readyFor - time.Millisecond)
	require.Equal(t, Ready, all[0].State())
	n.sleep(time.Millisecond)
	require.Equal(t, Draining, all[0].State())
	n.die(all[0], 0)

	next = n.started()
	n.ready(next)
	n.sleep(readyFor / 2)
	n.die(next, 1)
	require.ErrorContains(t, done.outcome(), "the new worker of slot 1 ended before it was up for 500ms (ReadyFor): exit status 1")
	n.none(time.Hour)
	require.Equal(t, Ready, all[1].State())
	require.Equal(t, 1, n.results[0].Replaced)
	require.Equal(t, 2, n.serving())
}

// TestHeldUntilItIsReady: a replacement that was enough when it was online must be
// ready, in time, once its predecessor is.
func TestHeldUntilItIsReady(t *testing.T) {
	n, all := born(t, Settings{Workers: 1, ReadyFor: readyFor})
	n.online(all[0])
	done := n.reload()
	next := n.started()
	n.online(next)
	n.ready(all[0])
	n.sleep(2 * readyFor)
	require.Equal(t, Ready, all[0].State())
	n.sleep(startTimeout)
	require.ErrorContains(t, done.outcome(), "not ready within")
	require.Equal(t, Ready, all[0].State())
	n.die(next, killed)
}

// TestNewWorkerDiesInAReload: what one new worker dies of, the next ones will: the
// reload goes no further, in whichever slot that was.
func TestNewWorkerDiesInAReload(t *testing.T) {
	begin := func(t *testing.T) (n *fakeCluster, old []*proc, first *proc, done *call) {
		n, old = filled(t, Settings{Workers: 3, ReadyFor: readyFor})
		done = n.reload()
		first = n.started()
		n.ready(first)
		n.sleep(readyFor)
		require.Equal(t, Draining, old[0].State())
		return n, old, first, done
	}
	failed := func(n *fakeCluster, done *call, replaced int) {
		t.Helper()
		require.ErrorContains(t, done.outcome(), "the new worker of slot 0 ended during the reload: exit status 1")
		require.Equal(t, replaced, n.results[0].Replaced)
	}
	t.Run("its predecessor drains", func(t *testing.T) {
		n, old, first, done := begin(t)
		n.die(first, 1)
		require.False(t, done.over, "old code may answer yet")
		n.ready(n.started())
		n.die(old[0], 0)
		failed(n, done, 1)
		n.none(time.Hour)
	})
	t.Run("the next slot's is on its way", func(t *testing.T) {
		n, old, first, done := begin(t)
		n.die(old[0], 0)
		second := n.started()
		n.die(first, 1)
		failed(n, done, 1)
		require.Equal(t, ReasonReload, n.end(second, killed).Reason)
		require.Equal(t, Ready, old[1].State())
	})
	for name, end := range map[string]func(n *fakeCluster, p *proc){
		"SIGTERM": func(n *fakeCluster, p *proc) {
			n.happened(p, DrainsByItself)
			n.die(p, 0)
		},
		"Kill": func(n *fakeCluster, p *proc) {
			require.NoError(t, n.kill(p))
			n.die(p, killed)
		},
	} {
		t.Run("unless by "+name, func(t *testing.T) {
			n, old, first, done := begin(t)
			end(n, first)
			n.die(old[0], 0)
			require.False(t, done.over)
			n.forget()
		})
	}
}

// TestTimeCountsWhereTheProcessRan: a deadline that passed while the process was
// stopped is looked at again, since what the worker did meanwhile is read later
// than the clock.
func TestTimeCountsWhereTheProcessRan(t *testing.T) {
	o := Settings{Workers: 1, StartTimeout: 2 * time.Second, Watchdog: Watchdog{Timeout: 10 * time.Second}}
	stopped := func(n *fakeCluster) { n.advance(n.m.Next().Add(3 * time.Second)) }
	t.Run("start", func(t *testing.T) {
		n, all := born(t, o)
		stopped(n)
		require.Empty(t, n.signals)
		n.online(all[0])
		n.sleep(time.Minute)
		require.Empty(t, n.signals)
	})
	t.Run("start that hangs", func(t *testing.T) {
		n, all := born(t, o)
		stopped(n)
		n.sleep(time.Second)
		require.Len(t, n.signals, 1)
		n.die(all[0], killed)
	})
	t.Run("drain", func(t *testing.T) {
		n, all := filled(t, o)
		stop := n.disconnect()
		n.sleep(4 * time.Second) // between the heartbeats
		n.advance(all[0].worker().KillAt.Add(time.Second))
		require.Empty(t, n.signals)
		require.False(t, n.end(all[0], 0).CutOff)
		require.NoError(t, stop.outcome())
	})
	t.Run("heartbeat", func(t *testing.T) {
		n, all := filled(t, o)
		n.mute = true
		n.until(func() bool { return all[0].worker().Watch.Misses == 1 }, "no miss")
		stopped(n)
		require.Empty(t, n.signals)
		n.mute = false
		n.in(func(m *Machine) { m.Beat(n.now, all[0].id, Pulse{}) })
		n.sleep(time.Minute)
		require.Empty(t, n.signals)
	})
	t.Run("never in time", func(t *testing.T) {
		n, all := born(t, o)
		for range 20 {
			n.advance(n.m.Next().Add(time.Second))
		}
		require.Contains(t, n.signals, syscall.SIGKILL)
		n.die(all[0], killed)
	})
}
