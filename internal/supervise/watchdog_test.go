package supervise

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The watchdog, over the state of the slots.

// TestWatchdog: a worker that does not answer within the timeout is reported,
// asked for its goroutines, killed, and replaced as one that crashed. One ping
// at most is on its way to it.
func TestWatchdog(t *testing.T) {
	for _, dumps := range []bool{true, false} {
		t.Run(fmt.Sprintf("dumps %v", dumps), func(t *testing.T) {
			n, all := filled(t, Settings{Workers: 2})
			n.sleep(500 * time.Second)
			require.Equal(t, 100, all[0].pings)
			all[0].silent = true
			n.sleep(65*time.Second - 1)
			require.Empty(t, n.signals)
			require.Equal(t, 101, all[0].pings, "nothing queues")
			n.sleep(time.Nanosecond)
			require.Equal(t, []os.Signal{dumpSignal}, n.signals)
			require.Len(t, n.troubles, 1)
			require.ErrorContains(t, n.troubles[0], "stalled")
			if !dumps {
				n.sleep(5 * time.Second)
				require.Equal(t, []os.Signal{dumpSignal, os.Kill}, n.signals)
			}
			e := n.end(all[0], 2)
			require.Equal(t, ReasonStall, e.Reason)
			require.False(t, e.Voluntary)
			require.Equal(t, 0, n.started().Slot())
			n.sleep(time.Minute)
			require.Equal(t, Ready, all[1].State())
		})
	}
}

// TestStallIsExamined: a stalled worker is not ended while somebody looks at it, but for no more
// than a bounded time. Half way to the end of its timeout the host hears that it is silent.
func TestStallIsExamined(t *testing.T) {
	for _, answers := range []bool{true, false} {
		t.Run(fmt.Sprintf("answers %v", answers), func(t *testing.T) {
			n, all := filled(t, Settings{Workers: 1})
			n.examines = true
			all[0].silent = true
			n.sleep(34 * time.Second)
			require.Empty(t, n.silences)
			n.sleep(time.Second)
			require.Equal(t, []Silent{{all[0].id, 30 * time.Second}}, n.silences)
			n.sleep(30 * time.Second)
			require.Len(t, n.troubles, 1)
			require.Len(t, n.silences, 1)
			require.Empty(t, n.signals, "it is looked at")
			if answers {
				n.in(func(m *Machine) { Orders{m}.Examined(n.now, all[0].id) })
			} else {
				n.sleep(examineTime)
			}
			require.Equal(t, []os.Signal{dumpSignal}, n.signals)
			n.in(func(m *Machine) { Orders{m}.Examined(n.now, all[0].id) })
			n.sleep(stallGrace - 1)
			require.Equal(t, []os.Signal{dumpSignal}, n.signals)
			n.sleep(time.Nanosecond)
			require.Equal(t, []os.Signal{dumpSignal, os.Kill}, n.signals)
			require.Equal(t, ReasonStall, n.end(all[0], 2).Reason)
			n.in(func(m *Machine) { Orders{m}.Examined(n.now, all[0].id) })
			n.started()
		})
	}
}

// TestWatchdogCountsTicks: a master that was stopped for long finds one tick
// missed, whatever the clock says, and kills nobody.
func TestWatchdogCountsTicks(t *testing.T) {
	n, _ := filled(t, Settings{Workers: 3})
	for range 20 {
		n.sleep(5 * time.Second)
		n.now = n.now.Add(10 * time.Minute) // as SIGSTOP does
		n.sleep(time.Second)
		require.Empty(t, n.signals)
	}
}

// TestWatchdogLeavesAlone: those that start, those that drain, those that cannot
// be asked, and all when it is off.
func TestWatchdogLeavesAlone(t *testing.T) {
	for name, c := range map[string]struct {
		o     Settings
		state func(n *fakeCluster, p *proc)
	}{
		"starting": {Settings{StartTimeout: time.Hour}, func(*fakeCluster, *proc) {}},
		"draining": {Settings{ShutdownTimeout: time.Hour}, func(n *fakeCluster, p *proc) {
			n.ready(p)
			n.sleep(30 * time.Second)
			n.mute = true
			n.sleep(30 * time.Second)
			n.drain(p)
		}},
		"node": {Settings{}, func(n *fakeCluster, p *proc) { n.deaf = true; n.ready(p) }},
		"off":  {Settings{Watchdog: Watchdog{Timeout: -1}}, func(n *fakeCluster, p *proc) { n.ready(p) }},
	} {
		t.Run(name, func(t *testing.T) {
			n := newFake(t, c.o)
			p, err := n.forkOne()
			require.NoError(t, err)
			n.mute = name != "draining"
			c.state(n, p)
			n.sleep(30 * time.Minute)
			require.Empty(t, n.signals)
			n.die(p, 0)
			n.stop()
		})
	}
}

// TestFailedCheckIsReported: once for each error, and kills nobody.
func TestFailedCheckIsReported(t *testing.T) {
	n, _ := filled(t, Settings{Workers: 1})
	for _, text := range []string{"no database", "no database", "", "no database", "no disk"} {
		n.pulse = Pulse{Accepted: 7, Active: 3, Error: text}
		n.sleep(5 * time.Second)
		w := n.stats().Workers[0].Worker
		require.Equal(t, text, w.Watch.Pulse.Error)
		require.Equal(t, []int64{7, 3}, []int64{w.Watch.Pulse.Accepted, w.Watch.Pulse.Active})
		require.Equal(t, n.now, w.Watch.Beat)
	}
	n.none(time.Hour)
	require.Empty(t, n.signals)
	require.Len(t, n.troubles, 3)
	for i, text := range []string{"no database", "no database", "no disk"} {
		require.ErrorContains(t, n.troubles[i], text)
	}
}

// TestStallDuringReload: an old worker that stalls while its replacement starts
// does not hold up the reload; a new one that stalls before it is ready fails it.
func TestStallDuringReload(t *testing.T) {
	t.Run("the old one", func(t *testing.T) {
		n, all := filled(t, Settings{Workers: 1, StartTimeout: time.Hour})
		n.mute = true
		done := n.reload()
		next := n.started()
		n.sleep(70 * time.Second)
		require.Equal(t, ReasonStall, n.end(all[0], 2).Reason)
		n.none(time.Second)
		n.ready(next)
		require.NoError(t, done.outcome())
	})
	t.Run("the new one", func(t *testing.T) {
		n, all := filled(t, Settings{Workers: 1, StartTimeout: time.Hour, Watchdog: Watchdog{Timeout: 10 * time.Second}})
		n.mute = true
		done := n.reload()
		next := n.started()
		n.online(next)
		for range 5 {
			n.sleep(5 * time.Second)
			n.in(func(m *Machine) { m.Beat(n.now, all[0].id, Pulse{}) })
		}
		require.Equal(t, ReasonStall, n.end(next, 2).Reason)
		require.Error(t, done.outcome())
		require.Equal(t, Ready, all[0].State())
	})
}
