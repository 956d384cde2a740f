package supervise

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The defaults of the settings, as the tests expect them.
const (
	backoffReset    = 30 * time.Second
	backoffMax      = 15 * time.Second
	backoffJitter   = 0.2
	maxBootFailures = 5
	startTimeout    = 60 * time.Second
	shutdownTimeout = 30 * time.Second

	dumpSignal = syscall.SIGTERM // there is no other on every system
	killed     = -1              // the status of a worker that SIGKILL has ended
	killedText = "signal: killed"
)

// withDefaults fills in what the options of the root package would.
func withDefaults(s Settings) Settings {
	s.StartTimeout = cmp.Or(s.StartTimeout, startTimeout)
	s.ShutdownTimeout = cmp.Or(s.ShutdownTimeout, shutdownTimeout)
	s.MaxBootFailures = cmp.Or(s.MaxBootFailures, maxBootFailures)
	b := &s.Backoff
	b.Min = cmp.Or(b.Min, 100*time.Millisecond)
	b.Max = cmp.Or(b.Max, max(backoffMax, b.Min))
	b.Factor = cmp.Or(b.Factor, 2)
	b.Reset = cmp.Or(b.Reset, backoffReset)
	b.Jitter = cmp.Or(b.Jitter, backoffJitter)
	s.Watchdog.Interval = cmp.Or(s.Watchdog.Interval, 5*time.Second)
	s.Watchdog.Timeout = cmp.Or(s.Watchdog.Timeout, 60*time.Second)
	s.Recycle.Jitter = cmp.Or(s.Recycle.Jitter, 0.2)
	s.Recycle.MinAge = cmp.Or(s.Recycle.MinAge, 10*time.Second)
	return s
}

// fakeCluster is a Machine and a host without processes: the test says when a
// worker is online, ready or dead, and what time it is. What the host answers comes
// in a turn of its own, right after that in which it was asked.
type fakeCluster struct {
	t   testing.TB
	m   *Machine
	now time.Time

	settings Settings // in force
	mark     string   // of the program that lies there now
	missing  error    // why it cannot be opened
	programs map[int]*program

	answers []func()
	busy    bool
	trips   bool // write and restore the state after every turn
	pulsing bool // the turn under way is a heartbeat, and nothing else so far

	all    []*proc // ever ordered, oldest first
	forks  []*proc // that no test has taken yet
	start  func(o Order) error
	slow   []func() // forks that hang, if slowly
	slowly bool

	signals  []os.Signal
	pulse    Pulse // what the workers say when they are pinged
	mute     bool  // they do not answer
	deaf     bool  // they cannot be pinged
	calls    []*call
	results  []Result
	troubles []error // reported about workers
	run      *fakeRun
}

// program is what was opened for a generation.
type program struct {
	settings Settings
	mark     string
	open     bool
}

// proc is a worker as the events show it.
type proc struct {
	n          *fakeCluster
	id, place  int
	generation int
	order      Order
	born       bool
	state      State
	voluntary  bool
	gone       bool
	exits      []Exit
	last       Worker // as it was when it died
	signals    []os.Signal
	pings      int
	drains     []time.Duration
	silent     bool
	pulse      *Pulse
}

// call is one whose outcome is answered.
type call struct {
	n      *fakeCluster
	id     int
	over   bool
	err    error
	worker int
	killed []int
}

var epoch = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// newFake makes a cluster without workers. At the end of the test it is stopped.
func newFake(t testing.TB, s Settings) *fakeCluster {
	t.Helper()
	n := &fakeCluster{t: t, now: epoch, settings: withDefaults(s), programs: make(map[int]*program), trips: true}
	n.m = New(n, dumpSignal, 1)
	t.Cleanup(func() {
		if !t.Failed() {
			n.stop()
		}
	})
	return n
}

// in runs one turn, and those of what the host answers.
func (n *fakeCluster) in(turn func(m *Machine)) {
	n.t.Helper()
	turn(n.m)
	if n.trips && !n.pulsing {
		n.roundTrip()
	}
	n.pulsing = false
	if n.busy {
		return
	}
	n.busy = true
	defer func() { n.busy = false }()
	for len(n.answers) > 0 {
		answer := n.answers[0]
		n.answers = n.answers[1:]
		answer()
	}
}

// roundTrip goes on with a Machine that was written and restored.
func (n *fakeCluster) roundTrip() {
	written, err := json.Marshal(n.m)
	if err != nil {
		n.t.Fatal(err)
	}
	if n.m, err = Restore(n, dumpSignal, written); err != nil {
		n.t.Fatal(err)
	}
}

// later is what the host answers.
func (n *fakeCluster) later(turn func(m *Machine)) {
	n.answers = append(n.answers, func() { n.in(turn) })
}

// sleep lets time pass.
func (n *fakeCluster) sleep(d time.Duration) {
	n.t.Helper()
	for end := n.now.Add(d); ; {
		next := n.m.Next()
		if next.IsZero() || next.After(end) {
			n.now = end
			return
		}
		n.advance(next)
	}
}

func (n *fakeCluster) advance(to time.Time) {
	if to.After(n.now) {
		n.now = to
	}
	n.pulsing = true
	n.in(func(m *Machine) { m.Advance(n.now) })
}

// until lets time pass until something is so, for an hour at most.
func (n *fakeCluster) until(is func() bool, what string) {
	n.t.Helper()
	for end := n.now.Add(time.Hour); !is(); {
		next := n.m.Next()
		if next.IsZero() || next.After(end) {
			n.t.Fatal(what)
		}
		n.advance(next)
	}
}

// ---- the host

func (n *fakeCluster) Open(generation int, _ bool) {
	n.pulsing = false
	p := &program{settings: n.settings, mark: n.mark, open: n.missing == nil}
	n.programs[generation] = p
	err := n.missing
	n.later(func(m *Machine) { m.Opened(n.now, generation, p.settings, err) })
}

func (n *fakeCluster) Release(generation int) {
	n.pulsing = false
	require.True(n.t, n.programs[generation].open, "released twice")
	n.programs[generation].open = false
}

func (n *fakeCluster) Start(o Order) {
	n.pulsing = false
	p := &proc{n: n, id: o.Worker, place: o.Place, generation: o.Generation, order: o}
	n.all = append(n.all, p)
	end := func() {
		var err error
		if n.start != nil {
			err = n.start(o)
		}
		if err != nil {
			n.in(func(m *Machine) { m.StartFailed(n.now, o.Worker, err) })
			return
		}
		p.born = true
		n.forks = append(n.forks, p)
		n.in(func(m *Machine) { m.Started(n.now, o.Worker, 1000+o.Worker, n.now) })
	}
	if n.slowly {
		n.slow = append(n.slow, end)
	} else {
		n.answers = append(n.answers, end)
	}
}

// hurry ends the forks that hang.
func (n *fakeCluster) hurry() {
	n.slowly = false
	slow := n.slow
	n.slow = nil
	for _, end := range slow {
		end()
	}
}

func (n *fakeCluster) Signal(worker int, sig os.Signal) error {
	n.pulsing = false
	p := n.proc(worker)
	n.signals, p.signals = append(n.signals, sig), append(p.signals, sig)
	return nil
}

func (n *fakeCluster) Ping(worker int) bool {
	p := n.proc(worker)
	p.pings++
	pulse := n.pulse
	if p.pulse != nil {
		pulse = *p.pulse
	}
	if !n.mute && !n.deaf && !p.silent {
		n.later(func(m *Machine) {
			n.pulsing = true
			m.Beat(n.now, worker, pulse)
		})
	}
	return !n.deaf
}

func (n *fakeCluster) Drain(worker int, timeout time.Duration) {
	n.pulsing = false
	p := n.proc(worker)
	p.drains = append(p.drains, timeout)
}

func (n *fakeCluster) HandOver(int)         {}
func (n *fakeCluster) LastWords(int) string { return "" }
func (n *fakeCluster) Resident(int) int64   { return 0 }

// Tell keeps what is shown of the workers, and checks the order of the reports.
func (n *fakeCluster) Tell(e Event) {
	n.pulsing = false
	switch e := e.(type) {
	case Answered:
		c := n.call(e.Call)
		c.over, c.err, c.worker = true, e.Err, e.Worker
	case Stopped:
		for _, id := range e.Calls {
			c := n.call(id)
			c.over, c.killed = true, e.Killed
		}
	case Forked:
		require.True(n.t, n.proc(e.Worker).born)
	case NotForked:
		n.proc(e.Worker).gone = true
	case Changed:
		p := n.proc(e.Worker)
		require.Greater(n.t, e.State, p.state, "the state only grows")
		p.state = e.State
	case Volunteered:
		n.proc(e.Worker).voluntary = e.Voluntary
	case Died:
		p := n.proc(e.Worker)
		require.Empty(n.t, p.exits, "it died twice")
		p.state, p.gone = Dead, true
		p.exits = append(p.exits, e.Exit)
	case Trouble:
		n.troubles = append(n.troubles, e.Err)
	case CheckFailed:
		n.troubles = append(n.troubles, e.Err)
	case Stalled:
		n.troubles = append(n.troubles, fmt.Errorf("worker %d: stalled", e.Worker))
	case Retargeted:
		n.settings.Workers = e.Workers
	case Reloaded:
		n.results = append(n.results, e.Result)
	case GaveUp:
		if r := n.run; r != nil && !r.over && r.err == nil {
			r.err = e.Err
			n.answers = append(n.answers, r.stop)
		}
	}
	if r := n.run; r != nil {
		r.tell(e)
	}
}

func (n *fakeCluster) proc(id int) *proc {
	for _, p := range slices.Backward(n.all) {
		if p.id == id {
			return p
		}
	}
	n.t.Fatalf("no worker %d", id)
	return nil
}

func (n *fakeCluster) call(id int) *call {
	c := n.calls[id-1]
	require.False(n.t, c.over, "answered twice")
	return c
}

func (n *fakeCluster) newCall() *call {
	c := &call{n: n, id: len(n.calls) + 1}
	n.calls = append(n.calls, c)
	return c
}

// outcome waits for it.
func (c *call) outcome() error {
	c.n.t.Helper()
	c.n.until(func() bool { return c.over }, "no outcome")
	return c.err
}

// fakeRun is what Run does beside the supervision.
type fakeRun struct {
	n    *fakeCluster
	auto *call
	end  *call // its stop
	err  error
	over bool
}

// beginRun begins a Run.
func (n *fakeCluster) beginRun() *fakeRun {
	r := &fakeRun{n: n, auto: n.newCall()}
	n.run = r
	n.in(func(m *Machine) { m.AutoFork(n.now, r.auto.id) })
	return r
}

// stop ends it.
func (r *fakeRun) stop() {
	if r.end != nil {
		return
	}
	r.end = r.n.newCall()
	r.n.in(func(m *Machine) {
		m.SetEnding(true)
		m.Stop(r.n.now, r.end.id)
	})
}

func (r *fakeRun) tell(e Event) {
	if s, is := e.(Stopped); is && r.end != nil && slices.Contains(s.Calls, r.end.id) {
		if r.err == nil && len(s.Killed) > 0 {
			r.err = errKilled
		}
		r.n.answers = append(r.n.answers, func() {
			r.n.in(func(m *Machine) { m.SetEnding(false) })
			r.over = true
		})
	}
}

var errKilled = errors.New("workers had to be killed")

// ---- a worker

func (p *proc) Slot() int    { return p.place }
func (p *proc) State() State { return p.state }
func (p *proc) IsDead() bool { return p.state == Dead }

// worker is what the Machine knows of it, or knew when it died.
func (p *proc) worker() *Worker {
	if w := p.n.m.st.Workers[p.id]; w != nil {
		return w
	}
	return new(Worker)
}

// number is that of its generation.
func (p *proc) number() int { return p.n.m.st.Generations[p.generation].Number }

// ---- what the tests do

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

// die lets p exit with the status; a negative one is that of SIGKILL.
func (n *fakeCluster) die(p *proc, status int) {
	e := Exit{Code: status}
	if status < 0 {
		e.Signal = "killed"
	}
	p.last = *p.worker()
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

// filled makes a cluster of which all workers are ready.
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

// replaced lets a replacement come up and its predecessor go, of whom it returns
// the exit.
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
