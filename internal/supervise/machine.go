package supervise

import (
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
)

// Machine supervises the workers of a cluster. Its methods belong to one goroutine.
type Machine struct {
	st   state
	host Host
	dump os.Signal // makes a worker tell what it does, and exit
	now  time.Time // of the turn under way
	held bool      // nothing is begun
}

// New returns a Machine that has no workers. The seed decides the jitter.
func New(host Host, dump os.Signal, seed uint64) *Machine {
	m := &Machine{host: host, dump: dump}
	m.st.Dice.Seed = seed
	m.st.Generations = make(map[int]*generation)
	m.st.Workers = make(map[int]*Worker)
	m.st.Exits = make(map[Reason]int)
	return m
}

// ---- calls

// Fork starts one worker that nothing replaces. The outcome is Answered.
func (m *Machine) Fork(now time.Time, call int, env []string) {
	m.now = now
	defer m.settle()
	m.open(opening{For: forFork, Call: call, Env: env})
}

// AutoFork fills as many slots as the settings say, all or none, unless there are
// workers. The outcome is Answered.
func (m *Machine) AutoFork(now time.Time, call int) {
	m.now = now
	defer m.settle()
	m.open(opening{For: forAutoFork, Call: call})
}

// Scale changes the number of slots. The outcome is Answered.
func (m *Machine) Scale(now time.Time, call, workers int) {
	m.now = now
	defer m.settle()
	m.open(opening{For: forScale, Call: call, Workers: workers})
}

// ScaleBy changes the number of slots by so many, down to one at the lowest. Two
// calls at once see each other's outcome. It is Answered.
func (m *Machine) ScaleBy(now time.Time, call, step int) {
	m.now = now
	defer m.settle()
	m.open(opening{For: forScale, Call: call, Step: step})
}

// Reload begins a reload, or asks for one more after that under way: a deployment
// made meanwhile must not be missed. The outcome is Answered.
func (m *Machine) Reload(now time.Time, call int) {
	m.now = now
	defer m.settle()
	switch {
	case m.st.Stop != nil:
		m.answer(call, callError("Reload", errs.Closed))
	case !m.st.keeps():
		m.answer(call, fmt.Errorf("cluster: Reload: %w: AutoFork keeps none", errs.NoWorkers))
	default:
		m.st.ReloadAsked = append(m.st.ReloadAsked, call)
		m.prepareReload()
	}
}

// Drain orders one worker to end. It reports whether that worker runs.
func (m *Machine) Drain(now time.Time, worker int) bool {
	m.now = now
	defer m.settle()
	w := m.worker(worker)
	if w != nil {
		w.drainFor(ReasonDrain)
	}
	return w != nil
}

// Stop drains all and ends the supervision. Its end is Stopped; a stop under way is
// shared.
func (m *Machine) Stop(now time.Time, call int) {
	m.now = now
	defer m.settle()
	if m.st.Stop != nil {
		m.st.Stop.Calls = append(m.st.Stop.Calls, call)
		return
	}
	m.st.Stop = &stop{Calls: []int{call}}
	m.dropSlots(errs.Closed)
	for _, w := range m.st.running() {
		w.drainFor(ReasonStop)
	}
}

// StopNow kills what is left of the stop that the call waits for.
func (m *Machine) StopNow(now time.Time, call int) {
	m.now = now
	defer m.settle()
	if s := m.st.Stop; s != nil && slices.Contains(s.Calls, call) {
		s.Now = true
		for _, w := range m.st.running() {
			w.killForStop()
		}
	}
}

// Hurry shortens the drain of all workers.
func (m *Machine) Hurry(now time.Time, timeout time.Duration) {
	m.now = now
	defer m.settle()
	for _, w := range m.st.running() {
		w.drain(timeout)
	}
}

// SetEnding says whether a Run is about to return: nothing is forked then, since it
// would be left behind.
func (m *Machine) SetEnding(ending bool) { m.st.Ending = ending }

// ---- time

// Next is when Advance is to be called, or zero if nothing waits for a time.
func (m *Machine) Next() (next time.Time) {
	earliest := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	for _, w := range m.st.Workers {
		for _, d := range w.deadlines() {
			earliest(*d.at)
		}
	}
	for _, s := range m.st.Slots {
		earliest(s.RetryAt)
	}
	return next
}

// Advance does what is due.
func (m *Machine) Advance(now time.Time) {
	m.now = now
	defer m.settle()
	for {
		var due deadline
		var of *Worker
		for _, w := range m.st.running() {
			for _, d := range w.deadlines() {
				if !d.at.IsZero() && !d.at.After(now) && (of == nil || d.at.Before(*due.at)) {
					due, of = d, w
				}
			}
		}
		if of == nil {
			return
		}
		if of.lookAgain(due.at) {
			continue
		}
		*due.at = time.Time{}
		due.passed(of)
	}
}

// What a worker did in time may not have been read yet when its deadline passes:
// after the process, or the machine, was stopped, timers run before readers do. So
// a deadline that is looked at late is looked at again. A process that is never in
// time goes on all the same.
const (
	lateAfter    = 100 * time.Millisecond
	againAfter   = 250 * time.Millisecond
	maxLateLooks = 8
)

// lookAgain puts the deadline off if it is looked at too late to tell.
func (w *Worker) lookAgain(at *time.Time) bool {
	if w.m.now.Sub(*at) < lateAfter || w.LateLooks >= maxLateLooks {
		w.LateLooks = 0
		return false
	}
	w.LateLooks++
	*at = w.m.now.Add(againAfter)
	return true
}

// ---- within a turn

// settle ends a turn: what was decided in it and can begin, begins. That is not
// done at once, since what is decided later in the same turn may supersede it.
func (m *Machine) settle() {
	for m.beginNext() {
	}
	m.checkStopped()
	m.st.forget()
}

// beginNext begins one fork, if one is due.
func (m *Machine) beginNext() bool {
	if m.held {
		return false
	}
	if r := m.st.Replacing; r != nil && !r.Begun {
		r.begin()
		return true
	}
	for _, s := range m.st.Slots {
		if !s.RetryAt.IsZero() && !s.RetryAt.After(m.now) {
			s.retry()
			return true
		}
	}
	return slices.ContainsFunc(slices.Clone(m.st.Fills), (*fill).next)
}

// worker returns a worker whose process exists, or nil.
func (m *Machine) worker(id int) *Worker {
	if w := m.st.Workers[id]; w != nil && !w.Forking {
		return w
	}
	return nil
}

func (m *Machine) answer(call int, err error) {
	if call != 0 {
		m.host.Tell(Answered{Call: call, Err: err})
	}
}

// open has a program looked up for what the opening says.
func (m *Machine) open(o opening) int {
	m.st.Last.Generation++
	o.Generation = m.st.Last.Generation
	m.st.Openings = append(m.st.Openings, o)
	m.host.Open(o.Generation, o.For == forReload)
	return o.Generation
}

// Opened is the outcome of Open: the settings in force, and the program unless
// there is an error.
func (m *Machine) Opened(now time.Time, id int, settings Settings, err error) {
	m.now = now
	defer m.settle()
	i := slices.IndexFunc(m.st.Openings, func(o opening) bool { return o.Generation == id })
	if i < 0 {
		return
	}
	o := m.st.Openings[i]
	m.st.Openings = slices.Delete(m.st.Openings, i, i+1)
	g := &generation{ID: id, Settings: settings, Open: err == nil}
	if err == nil {
		m.st.Generations[id] = g
	}
	switch o.For {
	case forFork:
		o.fork(m, g, err)
	case forAutoFork:
		o.autoFork(m, g, err)
	case forScale:
		o.scale(m, g, err)
	case forReload:
		o.reload(m, g, err)
	}
}

// release closes g's program if nothing is to be forked from it any more.
func (m *Machine) release(id int) {
	if g := m.st.Generations[id]; g != nil && g.Open && !m.st.needed(g) {
		g.Open = false
		m.host.Release(id)
	}
}
