package supervise

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Processes that SIGKILL does not end: frozen by a cgroup, or waiting for a device.

// TestUndeadInStop: a stop ends without them, and tells which they are.
func TestUndeadInStop(t *testing.T) {
	n, all := filled(t, Settings{Workers: 2})
	n.frozen = true
	stop := n.disconnect()
	n.die(all[1], 0)
	n.sleep(shutdownTimeout + killTime - 1)
	require.False(t, stop.over)
	n.sleep(time.Nanosecond)
	require.True(t, stop.over)
	require.Equal(t, []int{all[0].id}, stop.killed)
	require.Equal(t, []int{1000 + all[0].id}, n.undead)
	require.ErrorContains(t, n.troubles[len(n.troubles)-1], "has not ended")
	e := all[0].exit()
	require.True(t, e.Undead)
	require.Contains(t, e.String(), "not ended by SIGKILL after")
	n.in(func(m *Machine) { m.Exited(n.now, all[0].id, Exit{Code: killed}) })
	require.Len(t, all[0].exits, 1, "its late end is nothing new")
}

// TestUndeadInReload: the next slot's turn does not come, and the error tells which
// process still may answer. The slot has its new worker.
func TestUndeadInReload(t *testing.T) {
	n, all := filled(t, Settings{Workers: 2})
	n.frozen = true
	done := n.reload()
	next := n.started()
	n.ready(next)
	require.Equal(t, Draining, all[0].State())
	err := done.outcome()
	require.ErrorContains(t, err, "pid 1001 has not ended")
	require.Equal(t, 1, n.results[0].Replaced)
	require.Equal(t, Ready, next.State())
	require.Equal(t, Ready, all[1].State())
}

// TestUndeadIsReplaced, as a worker that crashed.
func TestUndeadIsReplaced(t *testing.T) {
	n, all := filled(t, Settings{Workers: 1})
	n.frozen = true
	all[0].silent = true
	n.until(func() bool { return len(all[0].exits) > 0 }, "not given up")
	require.Equal(t, []os.Signal{dumpSignal, os.Kill}, n.signals)
	require.Equal(t, ReasonStall, all[0].exit().Reason)
	require.Equal(t, 0, n.started().Slot())
}

// TestDebuggedIsNotStalled: a worker that a debugger has stopped is not killed, and
// has the whole time again when that lets it go.
func TestDebuggedIsNotStalled(t *testing.T) {
	n, all := filled(t, Settings{Workers: 1})
	all[0].silent, n.traced = true, true
	n.sleep(time.Hour)
	require.Empty(t, n.signals)
	n.traced = false
	n.until(func() bool { return len(n.signals) > 0 }, "never found")
	require.Equal(t, []os.Signal{dumpSignal}, n.signals)
}

// TestNote of a worker's end is shown only of one that ended by itself before it was
// ready.
func TestNote(t *testing.T) {
	n, all := filled(t, Settings{Workers: 1})
	end := func(p *proc) string {
		n.in(func(m *Machine) { m.Exited(n.now, p.id, Exit{Note: "a note"}) })
		return p.exit().String()
	}
	require.NotContains(t, end(all[0]), "a note", "it was ready")
	next := n.started()
	require.Contains(t, end(next), "exit status 0 after 0s: a note")
	n.until(func() bool { return len(n.forks) > 0 }, "no other")
	next = n.started()
	n.drain(next)
	require.NotContains(t, end(next), "a note", "it was told to end")
}
