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
	dump os.Signal // makes a worker print its stacks and exit
	now  time.Time // of the turn under way
	held bool      // no fork is begun: see Hold
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

// AutoFork fills as many slots as the settings say, all or none. If there are workers, it
// does nothing. The outcome is Answered.
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

// ScaleBy changes the number of slots by step, down to one at the lowest. Of two calls at
// once the second starts from the outcome of the first. The outcome is Answered.
func (m *Machine) ScaleBy(now time.Time, call, step int) {
	m.now = now
	defer m.settle()
	m.open(opening{For: forScale, Call: call, Step: step})
}

// Reload begins a reload. If one is under way, it asks for one more after that, so that a
// deployment which was made meanwhile is not missed. The outcome is Answered.
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

// Stop drains all workers and ends the supervision. Its end is Stopped. A call during a
// stop joins that.
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

// StopNow kills the workers that are left, if the stop that the call waits for is under
// way.
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

// Next returns the time at which Advance is to be called, or zero if nothing waits for a
// time.
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

// Advance does everything whose time has come.
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

// A worker may have acted in time although its deadline has passed: after this process,
// or the machine, was stopped, timers run before readers do. So a deadline that is looked
// at late is looked at again after a moment. This ends after some looks, for a process
// that is always late.
const (
	lateAfter    = 100 * time.Millisecond // a look later than this is a late one
	againAfter   = 250 * time.Millisecond // until the next look
	maxLateLooks = 8
)

// lookAgain puts the deadline off if this look at it is a late one. It reports whether it
// has.
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

// settle ends a turn: the forks that were decided in it begin. They do not begin earlier,
// since a later decision of the same turn may supersede them.
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

// open has the host open a program for the purpose of o. It returns the ID of its
// generation.
func (m *Machine) open(o opening) int {
	m.st.Last.Generation++
	o.Generation = m.st.Last.Generation
	m.st.Openings = append(m.st.Openings, o)
	m.host.Open(o.Generation, o.For == forReload)
	return o.Generation
}

// Opened is the answer to Host.Open: the settings in force, and whether the program is open.
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
