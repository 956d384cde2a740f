package supervise

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/errs"
)

// TestRestart: the new worker of the slot is up before the old one drains, and the
// order is answered when that is gone.
func TestRestart(t *testing.T) {
	n, all := filled(t, Settings{Workers: 2})
	first, second := all[0], all[1]
	c := n.restart(1)
	next, _ := n.fork()
	require.Equal(t, 1, next.place)
	require.Equal(t, second.generation, next.generation)
	n.online(next)
	n.ready(next)
	n.until(func() bool { return second.State() == Draining }, "the old worker is not drained")
	require.False(t, c.over)
	require.Equal(t, ReasonRestart, n.end(second, 0).Reason)
	require.True(t, c.over)
	require.NoError(t, c.err)
	require.Equal(t, Ready, first.State())
	require.Equal(t, 0, n.slot(1).Failures)
}

// TestRestartFillsAnEmptySlot: one that was emptied on purpose, and one that waits
// for its backoff.
func TestRestartFillsAnEmptySlot(t *testing.T) {
	for _, how := range []string{"vacated", "backing off"} {
		n, all := filled(t, Settings{Workers: 1, Backoff: Backoff{Min: time.Hour, Max: time.Hour}})
		p := all[0]
		if how == "vacated" {
			id, err := n.vacate(0)
			require.NoError(t, err)
			require.Equal(t, p.id, id)
			require.Equal(t, ReasonDrain, n.end(p, 0).Reason)
			n.none(time.Hour)
		} else {
			n.die(p, 1)
			p = n.started()
			n.die(p, 1)
			n.none(time.Minute)
		}
		c := n.restart(0)
		next := n.started()
		n.ready(next)
		n.until(func() bool { return c.over }, how)
		require.NoError(t, c.err)
		require.Equal(t, next.id, n.slot(0).Current)
		require.Equal(t, slotLive, n.slot(0).Mode)
		n.none(2 * time.Hour)
	}
}

// TestRestartFails: the old worker stays, and an empty slot stays empty.
func TestRestartFails(t *testing.T) {
	n, all := filled(t, Settings{Workers: 1})
	old := all[0]
	c := n.restart(0)
	next, _ := n.fork()
	n.die(next, 3)
	require.ErrorContains(t, c.outcome(), "exit status 3")
	require.Equal(t, Ready, old.State())

	n.vacate(0)
	n.end(old, 0)
	c = n.restart(0)
	next, _ = n.fork()
	n.die(next, 3)
	require.ErrorContains(t, c.outcome(), "exit status 3")
	n.none(time.Hour)
	require.ErrorIs(t, n.restart(7).outcome(), errs.NoWorkers)
}

// TestRestartWaits: for the reload under way, which it does not stop; and one that
// is not up gives way to a reload, and comes after it.
func TestRestartWaits(t *testing.T) {
	n, all := filled(t, Settings{Workers: 1})
	first := all[0]
	restart := n.restart(0)
	given, _ := n.fork()
	reload := n.reload()
	require.True(t, given.voluntary)
	n.die(given, killed)
	second := n.started()
	n.ready(second)
	n.until(func() bool { return first.State() == Draining }, "no reload")
	require.False(t, restart.over)
	n.die(first, 0)
	require.NoError(t, reload.outcome())
	third := n.started()
	n.ready(third)
	n.until(func() bool { return second.State() == Draining }, "no restart")
	n.die(second, 0)
	require.NoError(t, restart.outcome())
	require.Equal(t, third.id, n.slot(0).Current)
}

// TestRestartsEndWithTheSlot: with Scale, with a stop, and when the slot is emptied.
func TestRestartsEndWithTheSlot(t *testing.T) {
	for name, end := range map[string]func(n *fakeCluster){
		"scale":  func(n *fakeCluster) { n.scale(1) },
		"stop":   func(n *fakeCluster) { n.disconnect() },
		"vacate": func(n *fakeCluster) { n.vacate(1) },
	} {
		n, _ := filled(t, Settings{Workers: 2})
		under, waits := n.restart(1), n.restart(1)
		next, _ := n.fork()
		end(n)
		for _, c := range []*call{under, waits} {
			require.True(t, c.over, name)
			require.ErrorIs(t, c.err, errs.Closed, name)
		}
		require.True(t, next.voluntary, name)
	}
}

// TestVacate: the slot stays empty though nothing was there to end, and a fork that
// was under way is for nothing.
func TestVacate(t *testing.T) {
	n, all := filled(t, Settings{Workers: 1, Backoff: Backoff{Min: time.Minute, Max: time.Minute}})
	n.die(all[0], 1)
	n.die(n.started(), 1)
	id, err := n.vacate(0)
	require.NoError(t, err)
	require.Zero(t, id)
	n.none(time.Hour)
	require.Equal(t, "off", n.stats().Empty[0].Mode)

	require.NoError(t, n.scale(1))
	p := n.started()
	n.ready(p)
	n.sleep(time.Hour)
	n.slowly = true
	n.die(p, 0)
	n.sleep(time.Second)
	n.vacate(0)
	n.hurry()
	late, _ := n.fork()
	require.Equal(t, ReasonDrain, n.end(late, killed).Reason)
	n.none(time.Hour)
	_, err = n.vacate(1)
	require.ErrorIs(t, err, errs.NoWorkers)
}

// TestRespawn: the worker is killed, and another one is there at once, however often
// that happens: it is no crash.
func TestRespawn(t *testing.T) {
	n := newFake(t, Settings{Workers: 1, Backoff: Backoff{Min: time.Hour, Max: time.Hour}})
	require.NoError(t, n.autoFork())
	for range maxBootFailures + 1 {
		p, wait := n.fork()
		require.Zero(t, wait)
		n.online(p)
		id, err := n.respawn(0)
		require.NoError(t, err)
		require.Equal(t, p.id, id)
		e := n.end(p, killed)
		require.Equal(t, ReasonKill, e.Reason)
		require.False(t, e.Voluntary)
	}
	require.NoError(t, n.m.GaveUp())
	n.started()
	n.vacate(0)
	n.end(n.list()[0], 0)
	_, err := n.respawn(0)
	require.ErrorIs(t, err, errs.NoWorkers)
}
