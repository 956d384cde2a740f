package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// world is a nursery in which nature takes its course: workers come up, drain
// and die as they are told, one event at a time, but for those that a scenario
// holds; and after each event all is checked that must hold at any time.
type world struct {
	*nursery
	exit   exits
	listen bool // its workers get ready; else they stay online, and prove nothing

	life   sync.Mutex // guards what the callbacks note
	all    []*Process // ever forked, oldest first
	deaths map[*Process][]Exit
	sent   map[*Process][]os.Signal
	silent map[*Process]bool
	pulses map[*Process]pulse
	forks  error // why none succeeds

	held    map[*Process]bool
	doomed  map[*Process]bool // die instead of coming up
	expect  map[*Process]Reason
	reloads []*reloadCall
	run     <-chan error // the outcome of Run, if it is under way
	stopRun context.CancelFunc

	seen   seen
	frozen int // workers when the stop began, plus 1
}

// reloadCall is one call of Reload.
type reloadCall struct {
	done   <-chan error
	over   bool
	err    error
	before bool // it was over before the next scenario began
}

// worldOptions are those of every world: a stall is found sooner than a slow
// start, and that sooner than a slow drain.
func worldOptions() Options {
	return Options{
		Workers: 3, StartTimeout: 10 * time.Minute, ShutdownTimeout: 20 * time.Minute, NoSignals: true,
		Watchdog: Watchdog{Interval: 5 * time.Second, Timeout: 10 * time.Second},
		Backoff:  Backoff{Min: time.Minute, Max: time.Minute, Jitter: -1},
		Recycle:  Recycle{Jitter: -1},
	}
}

// newWorld begins one with all its workers up, under Run if the scenarios need
// that.
func newWorld(t *testing.T, exit exits, o Options, listen, run bool) *world {
	w := &world{
		nursery: newNursery(t, o), exit: exit, listen: listen,
		deaths: make(map[*Process][]Exit), sent: make(map[*Process][]os.Signal), silent: make(map[*Process]bool), pulses: make(map[*Process]pulse),
		held: make(map[*Process]bool), doomed: make(map[*Process]bool), expect: make(map[*Process]Reason),
		seen: seen{slots: make(map[*slot]bool), gens: make(map[*generation]bool), draining: make(map[*Process]bool), retries: make(map[*time.Timer]*slot)},
	}
	w.m.start, w.m.kill, w.m.ping = w.start, w.note, w.ask
	if run {
		ctx, cancel := context.WithCancel(context.Background())
		w.stopRun = cancel
		done := make(chan error, 1)
		w.run = done
		go func() { done <- w.m.run(ctx) }()
	} else {
		require.NoError(t, w.m.autoFork())
	}
	w.settle()
	w.calm()
	time.Sleep(20 * time.Second) // past Recycle.MinAge, and what is a crash though clean
	w.settle()
	return w
}

// noSuchPID is above what any system gives: the state of a worker can be checked
// for it, and nothing is found in /proc.
const noSuchPID = 1 << 28

func (w *world) start(p *Process, env []string) error {
	w.life.Lock()
	defer w.life.Unlock()
	if w.forks != nil || marked(p, "fork") {
		return errors.Join(w.forks, errors.New("no more processes"))
	}
	_, done, err := p.child.gen.bin.forExec(workerChannelFD)
	if err != nil {
		return err
	}
	done()
	p.pid, p.child.started = noSuchPID+p.id, time.Now()
	p.OnExit(func(_ *Process, e Exit) {
		w.life.Lock()
		defer w.life.Unlock()
		w.deaths[p] = append(w.deaths[p], e)
	})
	w.all = append(w.all, p)
	return nil
}

func (w *world) note(p *Process, sig os.Signal) error {
	w.life.Lock()
	defer w.life.Unlock()
	w.sent[p] = append(w.sent[p], sig)
	return nil
}

func (w *world) ask(p *Process) bool {
	w.life.Lock()
	defer w.life.Unlock()
	if !w.silent[p] {
		answer, _ := json.Marshal(w.pulses[p])
		w.m.post(func() { w.m.beaten(p, answer) })
	}
	return true
}

// with changes what the callbacks look at.
func (w *world) with(change func()) {
	w.life.Lock()
	defer w.life.Unlock()
	change()
}

func (w *world) forked() (all []*Process) {
	w.with(func() { all = slices.Clone(w.all) })
	return all
}

// marked reports whether p's generation was deployed with the mark.
func marked(p *Process, mark string) bool {
	return slices.Contains(p.child.gen.opts.Env, "MARK="+mark)
}

// deploy makes what is reloaded from now on good, or bad in the way that the
// mark says.
func (w *world) deploy(mark string) {
	o := w.m.settings()
	o.Env = nil
	if mark != "" {
		o.Env = []string{"MARK=" + mark}
	}
	require.NoError(w.t, w.m.setup(o))
}

// call begins a Reload.
func (w *world) call() *reloadCall {
	a := &reloadCall{done: w.reload()}
	w.reloads = append(w.reloads, a)
	w.settle()
	return a
}

// answered takes the outcomes that have come.
func (w *world) answered() {
	for _, a := range w.reloads {
		select {
		case err := <-a.done:
			require.False(w.t, a.over, "answered twice")
			a.over, a.err = true, err
		default:
		}
	}
}

// settle lets what is decided happen, and checks what holds at any time.
func (w *world) settle() {
	w.t.Helper()
	synctest.Wait()
	wrong := ""
	w.in(func(m *master) { wrong = w.wrong(m) })
	if wrong != "" {
		w.t.Fatalf("%s\n%s", wrong, w.story())
	}
	w.answered()
}

// after lets time pass, in steps in which nothing is missed.
func (w *world) after(d time.Duration) {
	w.t.Helper()
	time.Sleep(d)
	w.settle()
}

// cur is the worker of the slot, or nil.
func (w *world) cur(at int) (p *Process) {
	w.in(func(m *master) {
		if at < len(m.slots) {
			p = m.slots[at].cur
		}
	})
	return p
}

// replacement is the one under way.
func (w *world) replacement() (r replacement, is *replacement) {
	w.in(func(m *master) {
		if m.token != nil {
			r, is = *m.token, m.token
		}
	})
	return r, is
}

// newest is the worker forked last, if it lives.
func (w *world) newest() *Process {
	all := w.forked()
	if p := all[len(all)-1]; !p.IsDead() {
		return p
	}
	return nil
}

// hold keeps workers as they are until they are released.
func (w *world) hold(all ...*Process) (release func()) {
	for _, p := range all {
		if p != nil {
			w.held[p] = true
		}
	}
	return func() {
		for _, p := range all {
			delete(w.held, p)
		}
	}
}

// will says why p will have ended, unless that is decided already: the first
// reason holds.
func (w *world) will(p *Process, why Reason) {
	w.in(func(*master) {
		if p != nil && p.State() <= Ready && p.child.reason == "" && !p.voluntary.Load() {
			w.expect[p] = why
		}
	})
}

// dies lets p end by itself.
func (w *world) dies(p *Process, status int) {
	w.t.Helper()
	if p == nil || p.IsDead() {
		return
	}
	if w.expect[p] == "" {
		w.will(p, ReasonCrash)
	}
	w.die(p, w.exit[status])
	w.settle()
}

// step lets the next thing happen to p, and reports whether there was one.
func (w *world) step(p *Process) bool {
	w.t.Helper()
	if p.IsDead() || w.held[p] {
		return false
	}
	var signals []os.Signal
	w.with(func() { signals = slices.Clone(w.sent[p]) })
	switch st := p.State(); {
	case slices.Contains(signals, os.Kill):
		w.die(p, w.exit[-1])
	case slices.Contains(signals, os.Signal(dumpSignal)):
		w.die(p, w.exit[2])
	case st >= Draining:
		w.die(p, w.exit[0])
	case w.doomed[p], st < Ready && marked(p, "exit"):
		w.dies(p, 1)
	case st < Ready && marked(p, "out"):
		w.dies(p, ExitNoRestart)
	case st < Ready && marked(p, "late"):
		return false
	case st == Starting:
		w.online(p)
	case st == Online && w.listen:
		w.ready(p)
	default:
		return false
	}
	w.settle()
	return true
}

// calm lets all happen that is to happen by itself.
func (w *world) calm() {
	w.t.Helper()
	for begun := time.Now(); ; w.after(10 * time.Second) {
		for moved := true; moved; {
			moved = false
			for _, p := range w.forked() {
				moved = w.step(p) || moved
			}
		}
		if w.quiet() {
			return
		}
		if time.Since(begun) > 2*time.Hour {
			w.t.Fatalf("it does not come to rest\n%s", w.story())
		}
	}
}

// quiet reports whether nothing is to happen any more.
func (w *world) quiet() (is bool) {
	w.in(func(m *master) {
		if m.stop != nil || m.ending || m.forking > 0 || m.token != nil || m.reload != nil || len(m.reloadAsked) > 0 || len(m.recycling) > 0 {
			return
		}
		for _, s := range m.slots {
			if s.cur == nil && s.mode == slotLive || s.cur != nil && !w.isUp(s.cur) {
				return
			}
		}
		for _, p := range m.workers {
			if s := p.child.slot; s != nil && s.cur != p && m.gaveUp == nil {
				return
			}
		}
		is = true
	})
	return is
}

// isUp reports whether p has come as far as it will.
func (w *world) isUp(p *Process) bool {
	return p.State() == Ready || p.State() == Online && !w.listen
}

// story is how it came to this, for a failure.
func (w *world) story() string {
	var b strings.Builder
	w.with(func() {
		for _, p := range w.all {
			fmt.Fprintf(&b, "worker %d slot %d generation %d %v", p.id, p.slot, p.child.gen.n, p.State())
			for _, e := range w.deaths[p] {
				b.WriteString(": " + string(e.Reason) + ", " + e.String())
			}
			b.WriteString("\n")
		}
	})
	s, _ := json.Marshal(w.m.snapshot())
	return b.String() + string(s)
}
