package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// simulation is a fakeCluster in which nature takes its course: workers come up,
// drain and die as they are told, one event at a time, but for those that a
// scenario holds; and after each event all is checked that must hold at any time.
type simulation struct {
	*fakeCluster
	listen bool  // its workers get ready; else they stay online, and prove nothing
	broken error // why no fork succeeds

	held    map[*proc]bool
	doomed  map[*proc]bool // die instead of coming up
	expect  map[*proc]Reason
	reloads []*reloadCall

	draining map[*proc]bool // seen
	frozen   int            // workers when the stop began, plus 1
}

// reloadCall is one call of Reload.
type reloadCall struct {
	*call
	before bool // it was over before the next scenario began
}

// simulatedSettings returns the settings of every simulation. A stall is found sooner than a slow
// start, and a slow start sooner than a slow drain.
func simulatedSettings() Settings {
	return Settings{
		Workers: 3, StartTimeout: 10 * time.Minute, ShutdownTimeout: 20 * time.Minute,
		Watchdog: Watchdog{Interval: 5 * time.Second, Timeout: 10 * time.Second},
		Backoff:  Backoff{Min: time.Minute, Max: time.Minute, Jitter: -1},
		Recycle:  Recycle{Jitter: -1},
	}
}

// simulate begins one with all its workers up, under Run if the scenarios need
// that.
func simulate(t *testing.T, s Settings, listen, run bool) *simulation {
	w := &simulation{
		fakeCluster: newFake(t, s), listen: listen,
		held: make(map[*proc]bool), doomed: make(map[*proc]bool), expect: make(map[*proc]Reason), draining: make(map[*proc]bool),
	}
	w.start = func(o Order) error {
		if w.broken != nil || w.programs[o.Generation].mark == "fork" {
			return errors.Join(w.broken, errors.New("no more processes"))
		}
		require.True(t, w.programs[o.Generation].open, "a fork from a program that is closed")
		return nil
	}
	if run {
		w.beginRun()
	} else {
		require.NoError(t, w.autoFork())
	}
	w.settle()
	w.calm()
	w.sleep(20 * time.Second) // past Recycle.MinAge, and what is a crash though clean
	w.settle()
	return w
}

// mark is how p's program was deployed.
func (w *simulation) marked(p *proc, mark string) bool { return w.programs[p.generation].mark == mark }

// deploy makes what is reloaded from now on good, or bad in the way that the mark
// says.
func (w *simulation) deploy(mark string) { w.mark = mark }

// callReload begins a Reload.
func (w *simulation) callReload() *reloadCall {
	a := &reloadCall{call: w.reload()}
	w.reloads = append(w.reloads, a)
	w.settle()
	return a
}

// settle checks what holds at any time.
func (w *simulation) settle() {
	w.t.Helper()
	w.forks = nil
	if wrong := w.wrong(); wrong != "" {
		w.t.Fatalf("%s\n%s", wrong, w.story())
	}
}

// after lets time pass.
func (w *simulation) after(d time.Duration) {
	w.t.Helper()
	w.sleep(d)
	w.settle()
}

// cur is the worker of the slot, or nil.
func (w *simulation) cur(at int) *proc {
	if st := &w.m.st; at < len(st.Slots) && st.Slots[at].Current != 0 {
		return w.proc(st.Slots[at].Current)
	}
	return nil
}

// of is the worker with the number, or nil.
func (w *simulation) of(id int) *proc {
	if id == 0 {
		return nil
	}
	return w.proc(id)
}

// replacement returns the replacement under way. Its ID is 0 if there is none.
func (w *simulation) replacement() (r replacement) {
	if w.m.st.Replacing != nil {
		r = *w.m.st.Replacing
	}
	return r
}

// began returns the replacement under way if it began after that before, and has
// forked its worker, with that and the worker of its slot.
func (w *simulation) began(before replacement) (r replacement, next, old *proc) {
	if r = w.replacement(); r.ID == 0 || r.ID == before.ID || r.Next == 0 {
		return r, nil, nil
	}
	return r, w.proc(r.Next), w.of(w.m.st.slot(r.Slot).Current)
}

// forked are all that ever were.
func (w *simulation) forked() (all []*proc) {
	for _, p := range w.all {
		if p.born {
			all = append(all, p)
		}
	}
	return all
}

// newest is the worker forked last, if it lives.
func (w *simulation) newest() *proc {
	all := w.forked()
	if p := all[len(all)-1]; !p.IsDead() {
		return p
	}
	return nil
}

// hold keeps workers as they are until they are released.
func (w *simulation) hold(all ...*proc) (release func()) {
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
func (w *simulation) will(p *proc, why Reason) {
	if p != nil && p.State() <= Ready && p.worker().Reason == "" && !p.voluntary {
		w.expect[p] = why
	}
}

// dies lets p end by itself.
func (w *simulation) dies(p *proc, status int) {
	w.t.Helper()
	if p == nil || p.IsDead() {
		return
	}
	if w.expect[p] == "" {
		w.will(p, ReasonCrash)
	}
	w.die(p, status)
	w.settle()
}

// step lets the next thing happen to p, and reports whether there was one.
func (w *simulation) step(p *proc) bool {
	w.t.Helper()
	if p.IsDead() || w.held[p] {
		return false
	}
	switch st := p.State(); {
	case slices.Contains(p.signals, os.Kill):
		w.die(p, killed)
	case slices.Contains(p.signals, os.Signal(dumpSignal)):
		w.die(p, 2)
	case st >= Draining:
		w.die(p, 0)
	case w.doomed[p], st < Ready && w.marked(p, "exit"):
		w.dies(p, 1)
	case st < Ready && w.marked(p, "out"):
		w.dies(p, ExitNoRestart)
	case st < Ready && w.marked(p, "late"):
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
func (w *simulation) calm() {
	w.t.Helper()
	for begun := w.now; ; w.after(10 * time.Second) {
		w.calmUnlessHeld()
		if w.quiet() {
			return
		}
		if w.now.Sub(begun) > 2*time.Hour {
			w.t.Fatalf("it does not come to rest\n%s", w.story())
		}
	}
}

// calmUnlessHeld lets all happen that can while something is still held.
func (w *simulation) calmUnlessHeld() {
	for moved := true; moved; {
		moved = false
		for _, p := range w.list() {
			moved = w.step(p) || moved
		}
	}
}

// quiet reports whether nothing is to happen any more.
func (w *simulation) quiet() bool {
	st := &w.m.st
	if st.Stop != nil || st.Ending || st.forking() > 0 || len(st.Fills) > 0 || len(st.Openings) > 0 ||
		st.Replacing != nil || st.Reload != nil || len(st.ReloadAsked) > 0 || len(st.Restarts) > 0 || len(st.Recycling) > 0 {
		return false
	}
	for _, s := range st.Slots {
		if s.Current == 0 && s.Mode == slotLive || s.Current != 0 && !w.isUp(w.proc(s.Current)) {
			return false
		}
	}
	for _, p := range st.running() {
		if s := p.slot(); s != nil && s.Current != p.ID && w.m.GaveUp() == nil {
			return false
		}
	}
	return true
}

// isUp reports whether p has come as far as it will.
func (w *simulation) isUp(p *proc) bool {
	return p.State() == Ready || p.State() == Online && !w.listen
}

// story is how it came to this, for a failure.
func (w *simulation) story() string {
	var b strings.Builder
	for _, p := range w.all {
		fmt.Fprintf(&b, "worker %d slot %d generation %d %v", p.id, p.place, p.generation, p.State())
		for _, e := range p.exits {
			b.WriteString(": " + string(e.Reason) + ", " + e.String())
		}
		b.WriteString("\n")
	}
	s, _ := json.Marshal(w.m)
	return b.String() + string(s)
}
