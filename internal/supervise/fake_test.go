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
// in a turn of its own, right after that in which it was asked. After every turn but
// mere heartbeats the state is written as JSON, and the test goes on with what is
// restored from it.
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
	traced   bool  // a debugger has them
	examines bool  // somebody looks at a stalled one, and answers by Examined
	frozen   bool  // nothing ends them
	undead   []int // pids that a stop could not end
	calls    []*call
	results  []Result
	troubles []error // reported about workers
	silences []Silent
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
	n := &fakeCluster{t: t, now: epoch, settings: withDefaults(s), programs: make(map[int]*program)}
	n.m = New(n, dumpSignal, 1)
	t.Cleanup(func() {
		if !t.Failed() {
			n.stop()
		}
	})
	return n
}

// in runs one turn, and the turns of what the host answers.
func (n *fakeCluster) in(turn func(m *Machine)) {
	n.t.Helper()
	turn(n.m)
	if !n.pulsing {
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
func (n *fakeCluster) Traced(int) bool      { return n.traced }
func (n *fakeCluster) Examine(int) bool     { return n.examines }

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
		n.undead = e.Undead
	case Outlives:
		if n.frozen {
			n.later(func(m *Machine) { m.Exited(n.now, e.Worker, Exit{Code: killed, Undead: true}) })
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
	case Silent:
		n.silences = append(n.silences, e)
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

// number returns the number of p's generation.
func (p *proc) number() int { return p.n.m.st.Generations[p.generation].Number }
