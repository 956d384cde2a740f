package cluster

import (
	"encoding/json"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The watchdog, over the state of the slots.

// TestWatchdog: a worker that does not answer within the timeout is reported,
// asked for its goroutines, killed, and replaced as one that crashed. One ping
// at most is on its way to it.
func TestWatchdog(t *testing.T) {
	exit := realExits(t)
	for _, dumps := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			errs := make(chan error, 100)
			defer OnError(func(_ *Process, err error) { errs <- err })()
			n, all := filled(t, Options{Workers: 2})
			defer n.stop()
			time.Sleep(500 * time.Second)
			synctest.Wait()
			require.Equal(t, 100, n.pinged(all[0]))
			n.set(func() { n.mute = true })
			stop := make(chan bool)
			go func() { // the other one answers on
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Second):
						n.in(func(m *master) { m.beaten(all[1], json.RawMessage("{}")) })
					}
				}
			}()
			defer close(stop)
			time.Sleep(65*time.Second - 1)
			synctest.Wait()
			require.Empty(t, n.killed())
			require.Equal(t, 101, n.pinged(all[0]), "nothing queues")
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			require.Equal(t, []os.Signal{dumpSignal}, n.killed())
			require.ErrorIs(t, outcome(t, errs), ErrStalled)
			require.Empty(t, errs)
			if !dumps {
				time.Sleep(5 * time.Second)
				synctest.Wait()
				require.Equal(t, []os.Signal{dumpSignal, os.Kill}, n.killed())
			}
			e := n.end(all[0], exit[2])
			require.Equal(t, ReasonStall, e.Reason)
			require.False(t, e.Voluntary)
			require.Equal(t, 0, n.started().Slot())
			time.Sleep(time.Minute)
			require.Equal(t, Ready, all[1].State())
		})
	}
}

// TestWatchdogCountsTicks: a master that was stopped for long finds one tick
// missed, whatever the clock says, and kills nobody.
func TestWatchdogCountsTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _ := filled(t, Options{Workers: 3})
		defer n.stop()
		for range 20 {
			time.Sleep(5 * time.Second)
			n.m.post(func() { time.Sleep(10 * time.Minute) }) // as SIGSTOP does
			synctest.Wait()
			time.Sleep(10*time.Minute + time.Second)
			synctest.Wait()
			require.Empty(t, n.killed())
		}
	})
}

// TestWatchdogLeavesAlone: those that start, those that drain, those that cannot
// be asked, and all when it is off.
func TestWatchdogLeavesAlone(t *testing.T) {
	exit := realExits(t)
	for name, c := range map[string]struct {
		o     Options
		state func(n *nursery, p *Process)
	}{
		"starting": {Options{StartTimeout: time.Hour}, func(*nursery, *Process) {}},
		"draining": {Options{ShutdownTimeout: time.Hour}, func(n *nursery, p *Process) {
			n.ready(p)
			time.Sleep(30 * time.Second)
			n.set(func() { n.mute = true })
			time.Sleep(30 * time.Second)
			go n.m.disconnectWorker(n.t.Context(), p)
		}},
		"node": {Options{}, func(n *nursery, p *Process) { n.set(func() { n.deaf = true }); n.ready(p) }},
		"off":  {Options{Watchdog: Watchdog{Timeout: -1}}, func(n *nursery, p *Process) { n.ready(p) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNursery(t, c.o)
				p, err := n.m.forkOne(nil)
				require.NoError(t, err)
				n.set(func() { n.mute = name != "draining" })
				c.state(n, p)
				time.Sleep(30 * time.Minute)
				synctest.Wait()
				require.Empty(t, n.killed())
				n.die(p, exit[0])
				n.stop()
			})
		})
	}
}

// TestFailedCheckIsReported: once for each error, and kills nobody.
func TestFailedCheckIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error, 100)
		defer OnError(func(_ *Process, err error) { errs <- err })()
		n, _ := filled(t, Options{Workers: 1})
		defer n.stop()
		for _, text := range []string{"no database", "no database", "", "no database", "no disk"} {
			n.set(func() { n.pulse = pulse{Accepted: 7, Active: 3, Error: text} })
			time.Sleep(5 * time.Second)
			synctest.Wait()
			w := n.m.stats().Workers[0]
			require.Equal(t, text, w.Check)
			require.Equal(t, []int64{7, 3}, []int64{w.Accepted, w.Active})
			require.Zero(t, w.HeartbeatAge)
		}
		n.none(time.Hour)
		require.Empty(t, n.killed())
		for _, text := range []string{"no database", "no database", "no disk"} {
			require.ErrorContains(t, outcome(t, errs), text)
		}
		require.Empty(t, errs)
	})
}

// TestStallDuringReload: an old worker that stalls while its replacement starts
// does not hold up the reload; a new one that stalls before it is ready fails it.
func TestStallDuringReload(t *testing.T) {
	exit := realExits(t)
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 1, StartTimeout: time.Hour})
		defer n.stop()
		n.set(func() { n.mute = true })
		done := n.reload()
		next := n.started()
		time.Sleep(70 * time.Second)
		require.Equal(t, ReasonStall, n.end(all[0], exit[2]).Reason)
		n.none(time.Second)
		n.ready(next)
		require.NoError(t, outcome(t, done))
	})
	synctest.Test(t, func(t *testing.T) {
		n, all := filled(t, Options{Workers: 1, StartTimeout: time.Hour, Watchdog: Watchdog{Timeout: 10 * time.Second}})
		defer n.stop()
		n.set(func() { n.mute = true })
		done := n.reload()
		next := n.started()
		n.online(next)
		for range 5 {
			time.Sleep(5 * time.Second)
			n.in(func(m *master) { m.beaten(all[0], json.RawMessage("{}")) })
		}
		require.Equal(t, ReasonStall, n.end(next, exit[2]).Reason)
		require.Error(t, outcome(t, done))
		require.Equal(t, Ready, all[0].State())
	})
}
