package supervise

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What the tests do with a fakeCluster.

// fork waits for the next fork, and returns it and how long it took.
func (n *fakeCluster) fork() (*proc, time.Duration) {
	n.t.Helper()
	begun := n.now
	n.until(func() bool { return len(n.forks) > 0 }, "nothing is forked")
	p := n.forks[0]
	n.forks = n.forks[1:]
	return p, n.now.Sub(begun)
}

// none checks that nothing is forked for d.
func (n *fakeCluster) none(d time.Duration) {
	n.t.Helper()
	n.sleep(d)
	require.Empty(n.t, n.forks)
}

// failing makes the forks from now on fail, or not with nil.
func (n *fakeCluster) failing(err error) { n.start = func(Order) error { return err } }

func (n *fakeCluster) happened(p *proc, what Happening) {
	n.in(func(m *Machine) { m.Happened(n.now, p.id, what) })
}

func (n *fakeCluster) online(p *proc) { n.happened(p, ComesOnline) }

func (n *fakeCluster) ready(p *proc) {
	n.happened(p, ComesOnline)
	n.happened(p, GetsReady)
}

// die makes p exit with the status. A negative status stands for a SIGKILL.
func (n *fakeCluster) die(p *proc, status int) {
	e := Exit{Code: status}
	if status < 0 {
		e.Signal = "killed"
	}
	n.in(func(m *Machine) { m.Exited(n.now, p.id, e) })
}

// end lets p die and returns why it did.
func (n *fakeCluster) end(p *proc, status int) Exit {
	n.t.Helper()
	n.die(p, status)
	return p.exit()
}

func (p *proc) exit() Exit {
	p.n.t.Helper()
	require.Len(p.n.t, p.exits, 1)
	return p.exits[0]
}

// list are the workers whose processes exist, by number.
func (n *fakeCluster) list() (all []*proc) {
	for _, p := range n.all {
		if p.born && !p.gone {
			all = append(all, p)
		}
	}
	return all
}

// stop ends the cluster: what is left dies at once.
func (n *fakeCluster) stop() {
	n.in(func(m *Machine) { m.Stop(n.now, n.newCall().id) })
	for _, p := range n.list() {
		n.die(p, killed)
	}
}

// disconnect begins a stop.
func (n *fakeCluster) disconnect() *call {
	c := n.newCall()
	n.in(func(m *Machine) { m.Stop(n.now, c.id) })
	return c
}

func (n *fakeCluster) beginAutoFork() *call {
	c := n.newCall()
	n.in(func(m *Machine) { m.AutoFork(n.now, c.id) })
	return c
}

func (n *fakeCluster) autoFork() error { return n.beginAutoFork().outcome() }

func (n *fakeCluster) scale(workers int) error {
	c := n.newCall()
	n.in(func(m *Machine) { m.Scale(n.now, c.id, workers) })
	return c.outcome()
}

func (n *fakeCluster) scaleBy(step int) {
	n.in(func(m *Machine) { m.ScaleBy(n.now, 0, step) })
}

func (n *fakeCluster) beginFork() *call {
	c := n.newCall()
	n.in(func(m *Machine) { m.Fork(n.now, c.id, nil) })
	return c
}

func (n *fakeCluster) forkOne() (*proc, error) {
	c := n.beginFork()
	if err := c.outcome(); err != nil {
		return nil, err
	}
	return n.proc(c.worker), nil
}

func (n *fakeCluster) reload() *call {
	c := n.newCall()
	n.in(func(m *Machine) { m.Reload(n.now, c.id) })
	return c
}

func (n *fakeCluster) restart(place int) *call {
	c := n.newCall()
	n.in(func(m *Machine) { Orders{m}.Restart(n.now, c.id, place) })
	return c
}

func (n *fakeCluster) vacate(place int) (worker int, err error) {
	n.in(func(m *Machine) { worker, err = Orders{m}.Vacate(n.now, place) })
	return worker, err
}

func (n *fakeCluster) respawn(place int) (worker int, err error) {
	n.in(func(m *Machine) { worker, err = Orders{m}.Respawn(n.now, place) })
	return worker, err
}

func (n *fakeCluster) kill(p *proc) error { return n.send(p, os.Kill, false) }

func (n *fakeCluster) send(p *proc, sig os.Signal, probe bool) (err error) {
	n.in(func(m *Machine) { err = m.Kill(n.now, p.id, sig, probe) })
	return err
}

func (n *fakeCluster) drain(p *proc) {
	n.in(func(m *Machine) { m.Drain(n.now, p.id) })
}

func (n *fakeCluster) full(p *proc) { n.happened(p, IsFull) }

func (n *fakeCluster) stats() Snapshot { return n.m.Snapshot(n.now) }

// slot is what the slot i looks like.
func (n *fakeCluster) slot(i int) slot { return *n.m.st.Slots[i] }

// serving counts the workers that serve.
func (n *fakeCluster) serving() (serving int) {
	for _, p := range n.list() {
		if p.State() == Ready {
			serving++
		}
	}
	return serving
}

// near checks a delay that has jitter.
func near(t *testing.T, want, got time.Duration) {
	t.Helper()
	slack := time.Duration(float64(want) * backoffJitter)
	require.GreaterOrEqual(t, got, want-slack)
	require.LessOrEqual(t, got, want+slack)
}

// born makes a cluster whose workers are forked.
func born(t testing.TB, s Settings) (n *fakeCluster, all []*proc) {
	t.Helper()
	n = newFake(t, s)
	require.NoError(t, n.autoFork())
	for range s.Workers {
		p, _ := n.fork()
		all = append(all, p)
	}
	return n, all
}

// filled makes a cluster whose workers are all ready.
func filled(t testing.TB, s Settings) (n *fakeCluster, all []*proc) {
	t.Helper()
	n, all = born(t, s)
	for _, p := range all {
		n.ready(p)
	}
	return n, all
}

// started checks that one worker is forked at once, and none beside it.
func (n *fakeCluster) started() *proc {
	n.t.Helper()
	p, took := n.fork()
	require.Zero(n.t, took)
	require.Empty(n.t, n.forks)
	return p
}

// replaced makes a replacement come up and its predecessor end. It returns the replacement and
// the exit of the predecessor.
func (n *fakeCluster) replaced(old *proc, status int) (next *proc, e Exit) {
	n.t.Helper()
	next = n.started()
	require.Equal(n.t, old.Slot(), next.Slot())
	n.ready(next)
	require.Equal(n.t, Draining, old.State())
	return next, n.end(old, status)
}

// recycled is replaced for whichever slot comes next, once each.
func (n *fakeCluster) recycled(all []*proc, status int, seen map[int]bool) (next *proc, e Exit) {
	n.t.Helper()
	next = n.started()
	require.False(n.t, seen[next.Slot()])
	seen[next.Slot()] = true
	n.ready(next)
	return next, n.end(all[next.Slot()], status)
}

// emptySlot makes the only slot empty, in one of the ways in which it can be.
var emptySlot = map[string]func(n *fakeCluster, p *proc){
	"backing off": func(n *fakeCluster, p *proc) {
		for range 6 {
			n.die(p, 1)
			p, _ = n.fork()
			n.ready(p)
		}
		n.die(p, 1)
	},
	"fork fails": func(n *fakeCluster, p *proc) {
		n.failing(errors.New("no more processes"))
		n.die(p, 1)
		n.sleep(time.Minute)
		n.failing(nil)
		require.Empty(n.t, n.forks)
	},
	"stopped": func(n *fakeCluster, p *proc) {
		n.kill(p)
		n.die(p, killed)
	},
	"resigned": func(n *fakeCluster, p *proc) { n.die(p, ExitNoRestart) },
}
