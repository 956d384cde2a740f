package supervise

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestReadyAfter: a worker that cannot say when it is ready is so when it has been
// online for so long. One that dies before has failed to start, and a replacement that
// does leaves its predecessor in place.
func TestReadyAfter(t *testing.T) {
	settings := Settings{Workers: 1, ManualReady: true, ReadyAfter: time.Second}
	n, all := born(t, settings)
	p := all[0]
	n.online(p)
	n.sleep(time.Second - 1)
	require.Equal(t, Online, p.State())
	n.sleep(1)
	require.Equal(t, Ready, p.State())

	done := n.reload()
	next := n.started()
	n.online(next)
	n.sleep(time.Second - 1)
	n.die(next, 1)
	require.ErrorContains(t, done.outcome(), "ended before it was up")
	require.Equal(t, Ready, p.State())

	done = n.reload()
	next = n.started()
	n.online(next)
	n.sleep(time.Second)
	require.Equal(t, Draining, p.State())
	n.die(p, 0)
	require.NoError(t, done.outcome())
}

// TestReadyAfterLoop: a program that never lives so long does not work.
func TestReadyAfterLoop(t *testing.T) {
	n := newFake(t, Settings{Workers: 1, ManualReady: true, ReadyAfter: time.Second})
	run := n.beginRun()
	for range maxBootFailures {
		p, _ := n.fork()
		n.online(p)
		n.sleep(time.Second / 2)
		n.die(p, 1)
	}
	require.True(t, run.over)
}

// TestAskedToEnd: the signal that asks a program to end may end one that does not catch it. That
// is no crash, whoever sent the signal.
func TestAskedToEnd(t *testing.T) {
	n, all := filled(t, Settings{Workers: 1})
	n.sleep(cleanAfter)
	asked := Exit{Code: -1, Signal: "terminated", Asked: true}
	for range 3 {
		n.in(func(m *Machine) { m.Exited(n.now, all[0].id, asked) })
		require.Equal(t, ReasonDrain, all[0].exit().Reason)
		p, took := n.fork()
		require.Zero(t, took)
		n.ready(p)
		n.sleep(cleanAfter)
		all[0] = p
	}
	n.in(func(m *Machine) { m.Exited(n.now, all[0].id, Exit{Code: -1, Signal: "terminated"}) })
	require.Equal(t, ReasonCrash, all[0].exit().Reason, "of a program that catches it")
}
