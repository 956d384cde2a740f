package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The defaults of the options, as the tests expect them.
const (
	backoffReset    = 30 * time.Second
	backoffMax      = 15 * time.Second
	backoffJitter   = 0.2
	maxBootFailures = 5
)

// nursery is a master whose children are not processes: the test says when one
// is online, ready or dead. Time is the bubble's.
type nursery struct {
	t     *testing.T
	m     *master
	forks chan *Process

	mu    sync.Mutex
	fail  error // of the forks from now on
	kills []os.Signal
	pings map[*Process]int
	pulse pulse // what the workers say when they are pinged
	mute  bool  // they do not answer
	deaf  bool  // they cannot be pinged
}

// exits are real process states, made before the bubble, by exit status.
type exits map[int]*os.ProcessState

func realExits(t *testing.T) exits {
	t.Helper()
	all, err := endedProcesses()
	require.NoError(t, err)
	return all
}

// endedProcesses runs this binary for each: as the program failing, and, for
// that which is killed, hanging.
var endedProcesses = sync.OnceValues(func() (exits, error) {
	all := make(exits)
	for _, code := range []int{0, 1, 2, ExitNoRestart, -1} {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "CLUSTER_TEST_PROGRAM=failing", fmt.Sprint("EXIT=", code))
		if code < 0 {
			c.Env = append(c.Env, "CLUSTER_TEST_HANG=1")
		}
		if err := c.Start(); err != nil {
			return nil, err
		}
		if code < 0 {
			c.Process.Kill()
		}
		c.Wait()
		all[code] = c.ProcessState
	}
	return all, nil
})

func newNursery(t *testing.T, o Options) *nursery {
	t.Helper()
	n := &nursery{t: t, m: newMaster(), forks: make(chan *Process, 100), pings: make(map[*Process]int)}
	n.m.start = func(p *Process, env []string) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.fail != nil {
			return n.fail
		}
		p.child.started = time.Now()
		n.forks <- p
		return nil
	}
	n.m.kill = func(p *Process, sig os.Signal) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.kills = append(n.kills, sig)
		return nil
	}
	n.m.ping = func(p *Process) bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.pings[p]++
		if !n.mute && !n.deaf {
			answer, _ := json.Marshal(n.pulse)
			n.m.post(func() { n.m.beaten(p, answer) })
		}
		return !n.deaf
	}
	require.NoError(t, n.m.setup(o))
	return n
}

// fork waits for the next fork, and returns it and how long it took.
func (n *nursery) fork() (*Process, time.Duration) {
	n.t.Helper()
	begun := time.Now()
	select {
	case p := <-n.forks:
		synctest.Wait()
		return p, time.Since(begun)
	case <-time.After(time.Hour):
		n.t.Fatal("nothing is forked")
		return nil, 0
	}
}

// none checks that nothing is forked for d.
func (n *nursery) none(d time.Duration) {
	n.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	require.Empty(n.t, n.forks)
}

// killed are the signals sent so far, to any worker.
func (n *nursery) killed() []os.Signal {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.kills)
}

// failing makes the forks from now on fail, or not with nil.
func (n *nursery) failing(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fail = err
}

func (n *nursery) online(p *Process) { n.m.call(func() { n.m.online(p) }) }
func (n *nursery) ready(p *Process)  { n.m.call(func() { n.m.online(p); n.m.ready(p) }) }
func (n *nursery) die(p *Process, state *os.ProcessState) {
	n.m.call(func() { n.m.exited(p, state) })
}

// stop ends the cluster: what is left dies at once.
func (n *nursery) stop() {
	n.m.call(func() { n.m.beginStop() })
	for _, p := range n.m.list() {
		n.die(p, nil)
	}
	synctest.Wait()
}

// near checks a delay that has jitter.
func near(t *testing.T, want, got time.Duration) {
	t.Helper()
	slack := time.Duration(float64(want) * backoffJitter)
	require.GreaterOrEqual(t, got, want-slack)
	require.LessOrEqual(t, got, want+slack)
}

// born makes a cluster whose workers are forked.
func born(t *testing.T, o Options) (n *nursery, all []*Process) {
	t.Helper()
	n = newNursery(t, o)
	require.NoError(t, n.m.autoFork())
	for range o.Workers {
		p, _ := n.fork()
		all = append(all, p)
	}
	return n, all
}

// filled makes a cluster of which all workers are ready.
func filled(t *testing.T, o Options) (n *nursery, all []*Process) {
	t.Helper()
	n, all = born(t, o)
	for _, p := range all {
		n.ready(p)
	}
	return n, all
}

// reload begins a Reload and returns its outcome.
func (n *nursery) reload() <-chan error {
	done := make(chan error, 1)
	go func() { done <- n.m.reloadWorkers(context.Background()) }()
	synctest.Wait()
	return done
}

// outcome waits for what comes over c.
func outcome[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Hour):
		t.Fatal("no outcome")
		panic("unreachable")
	}
}

// end lets p die and returns why it did.
func (n *nursery) end(p *Process, state *os.ProcessState) Exit {
	n.t.Helper()
	exits := make(chan Exit, 1)
	p.OnExit(func(_ *Process, e Exit) { exits <- e })
	n.die(p, state)
	synctest.Wait()
	return outcome(n.t, exits)
}

// in runs fn where the state may be looked at.
func (n *nursery) in(fn func(m *master)) { n.m.call(func() { fn(n.m) }) }

// slot is what the slot i looks like.
func (n *nursery) slot(i int) (s slot) {
	n.in(func(m *master) { s = *m.slots[i] })
	return s
}

// counts the workers that serve.
func (n *nursery) serving() (serving int) {
	for _, p := range n.m.list() {
		if p.State() == Ready {
			serving++
		}
	}
	return serving
}

// started checks that one worker is forked at once, and none beside it.
func (n *nursery) started() *Process {
	n.t.Helper()
	p, took := n.fork()
	require.Zero(n.t, took)
	require.Empty(n.t, n.forks)
	return p
}

// replaced lets a replacement come up and its predecessor go, of whom it
// returns the exit.
func (n *nursery) replaced(old *Process, state *os.ProcessState) (next *Process, e Exit) {
	n.t.Helper()
	next = n.started()
	require.Equal(n.t, old.Slot(), next.Slot())
	n.ready(next)
	require.Equal(n.t, Draining, old.State())
	return next, n.end(old, state)
}

// emptySlot makes the only slot empty, in one of the ways in which it can be.
var emptySlot = map[string]func(n *nursery, p *Process, exit exits){
	"backing off": func(n *nursery, p *Process, exit exits) {
		for range 6 {
			n.die(p, exit[1])
			p, _ = n.fork()
			n.ready(p)
		}
		n.die(p, exit[1])
	},
	"fork fails": func(n *nursery, p *Process, exit exits) {
		n.failing(errors.New("no more processes"))
		n.die(p, exit[1])
		synctest.Wait()
		time.Sleep(time.Minute)
		n.failing(nil)
		synctest.Wait()
		require.Empty(n.t, n.forks)
	},
	"off": func(n *nursery, p *Process, exit exits) { n.m.killWorker(p); n.die(p, exit[-1]) },
	"out": func(n *nursery, p *Process, exit exits) { n.die(p, exit[ExitNoRestart]) },
}

// recycled is replaced for whichever slot comes next, once each.
func (n *nursery) recycled(all []*Process, state *os.ProcessState, seen map[int]bool) (next *Process, e Exit) {
	n.t.Helper()
	next = n.started()
	require.False(n.t, seen[next.Slot()])
	seen[next.Slot()] = true
	n.ready(next)
	return next, n.end(all[next.Slot()], state)
}

// set changes how the workers answer.
func (n *nursery) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

func (n *nursery) pinged(p *Process) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pings[p]
}
