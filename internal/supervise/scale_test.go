package supervise

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Scaling, over the state of the slots.

// TestScaleUpDuringReload: new slots begin with what has proven itself, and the
// reload comes to them; when it fails they are as the other old ones.
func TestScaleUpDuringReload(t *testing.T) {
	for _, ok := range []bool{true, false} {
		t.Run(fmt.Sprintf("ready %v", ok), func(t *testing.T) {
			n, all := filled(t, Settings{Workers: 1})
			done := n.reload()
			next := n.started()
			require.NoError(t, n.scale(2))
			added := n.started()
			require.Equal(t, []int{0, 1}, []int{next.Slot(), added.Slot()})
			require.Equal(t, all[0].generation, added.generation)
			n.ready(added)
			if !ok {
				n.die(next, 1)
				require.Error(t, done.outcome())
				n.none(time.Hour)
				require.Equal(t, 2, n.serving())
				return
			}
			n.ready(next)
			n.die(all[0], 0)
			n.replaced(added, 0)
			require.NoError(t, done.outcome())
			n.none(time.Hour)
		})
	}
}

// TestScaleDownDuringReload: a slot that is removed is skipped, at every step of
// its replacement; but the reload is not done while an old worker of it drains.
func TestScaleDownDuringReload(t *testing.T) {
	t.Run("not begun", func(t *testing.T) {
		n, all := filled(t, Settings{Workers: 2})
		done := n.reload()
		require.NoError(t, n.scale(1))
		require.Equal(t, Draining, all[1].State())
		n.replaced(all[0], 0)
		n.none(time.Second)
		require.False(t, done.over, "old code may answer yet")
		require.Equal(t, ReasonScale, n.end(all[1], 0).Reason)
		require.NoError(t, done.outcome())
		n.none(time.Hour)
	})
	t.Run("starting", func(t *testing.T) {
		n, all := filled(t, Settings{Workers: 2})
		done := n.reload()
		n.replaced(all[0], 0)
		next := n.started()
		require.NoError(t, n.scale(1))
		require.Equal(t, []os.Signal{os.Kill}, n.signals, "the replacement")
		require.Equal(t, Draining, all[1].State())
		require.Equal(t, ReasonReload, n.end(next, killed).Reason)
		require.False(t, done.over)
		require.Equal(t, ReasonScale, n.end(all[1], 0).Reason)
		require.NoError(t, done.outcome())
		n.none(time.Hour)
	})
	t.Run("draining", func(t *testing.T) {
		n, all := filled(t, Settings{Workers: 1})
		done := n.reload()
		next := n.started()
		n.ready(next)
		require.NoError(t, n.scale(0))
		require.NoError(t, n.scale(1))
		added := n.started()
		n.ready(added)
		require.Equal(t, next.generation, added.generation, "it has proven itself")
		require.Equal(t, ReasonScale, n.end(next, 0).Reason)
		require.False(t, done.over, "old code may answer yet")
		require.Equal(t, ReasonReload, n.end(all[0], 0).Reason)
		require.NoError(t, done.outcome())
		n.none(time.Hour)
	})
}

// TestAutoForkMeetsScaleAndReload: an AutoFork that forks while the slots are
// scaled away, or reloaded, takes what was decided for no failure.
func TestAutoForkMeetsScaleAndReload(t *testing.T) {
	for name, meet := range map[string]func(n *fakeCluster){
		"scale":  func(n *fakeCluster) { n.in(func(m *Machine) { m.Scale(n.now, 0, 1) }) },
		"reload": func(n *fakeCluster) { n.reload() },
	} {
		t.Run(name, func(t *testing.T) {
			n := newFake(t, Settings{Workers: 3})
			n.slowly = true
			forked := n.beginAutoFork()
			meet(n)
			n.hurry()
			require.NoError(t, forked.outcome())
			live := slices.DeleteFunc(n.list(), func(p *proc) bool { return p.voluntary })
			want := 3
			if name == "scale" {
				want = 1
			}
			require.Len(t, live, want)
		})
	}
}

// TestScale: up forks into new slots, down drains the highest, whatever the
// slots are at; the number wanted, and that with which later workers share the
// cores, follow.
func TestScale(t *testing.T) {
	n, all := filled(t, Settings{Workers: 2})
	require.Equal(t, 2, all[0].order.Workers)
	require.NoError(t, n.scale(4))
	for i := 2; i < 4; i++ {
		p, _ := n.fork()
		require.Equal(t, i, p.Slot())
		require.Equal(t, 4, p.order.Workers)
		n.ready(p)
		all = append(all, p)
	}
	require.Equal(t, 4, n.settings.Workers)
	require.NoError(t, n.scale(1))
	require.Equal(t, Ready, all[0].State())
	for _, p := range all[1:] {
		require.Equal(t, Draining, p.State())
		e := n.end(p, 0)
		require.Equal(t, ReasonScale, e.Reason)
		require.True(t, e.Voluntary)
	}
	n.none(time.Hour)
	n.die(all[0], 1)
	p := n.started()
	require.Equal(t, 1, p.order.Workers)
	require.Equal(t, 1, n.stats().Target)
	require.NoError(t, n.scale(1))
	n.none(time.Hour)
}

// TestScaleToNothing: the addresses stay; what is forked when there are workers
// again is what ran last, after a reload meanwhile what is there now.
func TestScaleToNothing(t *testing.T) {
	n, all := filled(t, Settings{Workers: 1})
	done := n.reload()
	p, _ := n.replaced(all[0], 0)
	require.NoError(t, done.outcome())
	require.NoError(t, n.scale(0))
	n.die(p, 0)
	n.none(time.Hour)
	require.NoError(t, n.autoFork()) // none are wanted
	n.none(time.Hour)
	require.Zero(t, n.settings.Workers)
	require.NoError(t, n.scale(1))
	again := n.started()
	require.Equal(t, p.generation, again.generation)
	require.NoError(t, n.scale(0))
	n.die(again, 0)
	require.NoError(t, n.reload().outcome())
	require.NoError(t, n.scale(2))
	for range 2 {
		p, _ = n.fork()
		require.Equal(t, 3, p.number())
	}
	require.Equal(t, 3, n.stats().Generation)
}

// TestScaleFillsEmptySlots: those that Kill, Disconnect or ExitNoRestart emptied
// are filled again; those that wait for their backoff go on waiting.
func TestScaleFillsEmptySlots(t *testing.T) {
	for name, empty := range emptySlot {
		t.Run(name, func(t *testing.T) {
			n, all := filled(t, Settings{Workers: 2})
			empty(n, all[0])
			live := n.slot(0).Mode == slotLive
			require.NoError(t, n.scale(2))
			p, took := n.fork()
			require.Equal(t, 0, p.Slot())
			require.Equal(t, live, took > 0)
			n.none(time.Hour)
		})
	}
}

// TestScaleLeavesToReload: an empty slot that a reload is filling is not filled
// by Scale as well.
func TestScaleLeavesToReload(t *testing.T) {
	for name, empty := range emptySlot {
		t.Run(name, func(t *testing.T) {
			n, all := filled(t, Settings{Workers: 2})
			empty(n, all[0])
			done := n.reload()
			next := n.started()
			require.NoError(t, n.scale(2))
			n.none(30 * time.Second)
			n.ready(next)
			n.replaced(all[1], 0)
			require.NoError(t, done.outcome())
			require.Equal(t, next.id, n.slot(0).Current)
		})
	}
}

// TestScaleRetriesForks: a worker that cannot be started is an error of Scale,
// and is tried again.
func TestScaleRetriesForks(t *testing.T) {
	n, _ := filled(t, Settings{Workers: 1})
	broken := errors.New("no more processes")
	n.failing(broken)
	require.ErrorIs(t, n.scale(2), broken)
	n.failing(nil)
	p, _ := n.fork()
	require.Equal(t, 1, p.Slot())
}

// TestScaleIsCounted: two signals in a row count twice, and none goes below one,
// or from nothing to one.
func TestScaleIsCounted(t *testing.T) {
	n, _ := filled(t, Settings{Workers: 1})
	target := func() int { return n.stats().Target }
	for range 3 {
		n.scaleBy(1)
	}
	require.Equal(t, 4, target())
	for range 10 {
		n.scaleBy(-1)
	}
	require.Equal(t, 1, target())
	require.NoError(t, n.scale(0))
	n.scaleBy(-1)
	require.Equal(t, 0, target())
	n.scaleBy(1)
	require.Equal(t, 1, target())
}
