package supervise

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
)

// State is how far a worker is in its life. It never goes back.
type State int

// The states of a worker.
const (
	Starting     State = iota // forked
	Online                    // its runtime is up and its channel works
	Ready                     // it may take traffic
	Draining                  // it was told to stop, and finishes what is in flight
	Disconnected              // its channel has closed
	Dead                      // it has exited
)

var stateNames = [...]string{"starting", "online", "ready", "draining", "disconnected", "dead"}

// String returns the state's name in lower case.
func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("State(%d)", int(s))
	}
	return stateNames[s]
}

// Reason is why a worker ended.
type Reason string

// The reasons for which workers end.
const (
	ReasonCrash   Reason = "crash"
	ReasonStall   Reason = "stall"
	ReasonReload  Reason = "reload"
	ReasonRecycle Reason = "recycle"
	ReasonScale   Reason = "scale"
	ReasonStop    Reason = "stop"
	ReasonKill    Reason = "kill"
	ReasonDrain   Reason = "drain"
	ReasonRestart Reason = "restart"
)

// Exit is how a worker ended. The host fills in the first six fields, the Machine
// the others.
type Exit struct {
	Code      int    // the exit status; -1 if a signal ended it
	Signal    string // the signal that ended it, or ""
	LastWords string // see Host
	Asked     bool   // ended by the signal that asks a program to end, which a Foreign one need not catch
	Note      string // what explains the end of a worker that was not ready and ended by itself, or ""
	Undead    bool   // it has survived SIGKILL: see Outlives

	Reason    Reason
	Voluntary bool
	Uptime    time.Duration
	CutOff    bool // it was killed because it did not drain in time
}

// String returns "exit status 1 after 3s" or "signal: killed after 2m0s".
func (e Exit) String() string {
	how := fmt.Sprintf("exit status %d", e.Code)
	switch {
	case e.Undead:
		how = "not ended by SIGKILL"
	case e.Signal != "":
		how = "signal: " + e.Signal
	}
	text := fmt.Sprintf("%s after %v", how, e.Uptime.Round(time.Millisecond))
	if e.Note != "" {
		text += ": " + e.Note
	}
	return text
}

// asked reports whether the worker ended as if it was asked to.
func (e Exit) asked() bool { return e.Code == 0 || e.Asked }

// Worker is what the supervision knows of one worker.
type Worker struct {
	m *Machine

	ID         int
	PID        int
	Slot       int // its number, which is never reused; 0 for a plain Fork
	Place      int // the slot's place in the row, as it is shown; -1 for a plain Fork
	Generation int

	State     State
	Voluntary bool   // its end was asked for
	Reason    Reason // why it ends; "" if the Machine has not decided so
	Overdue   bool   // sent SIGKILL because its drain took too long
	Respawn   bool   `json:",omitempty"` // killed so that another takes its place

	// Of its fork:
	Forking     bool   // it has no process yet
	InOutput    bool   // Options.Output is asked for its writers
	Pending     int    // the slot's Pending when the fork was decided
	Replacement int    // the replacement that it was forked for, or 0
	For         Reason `json:",omitempty"` // why it replaces another worker
	Promoted    bool   `json:",omitempty"` // it has replaced that one
	Fill, Call  int    // the fill and the call that it was forked for, or 0

	Started, OnlineAt, ReadyAt time.Time
	StartBy                    time.Time // when it must have started
	ReadyBy                    time.Time // when it is ready without saying so
	KillBy                     time.Time // when its drain must be over
	KillAt                     time.Time // when that is looked at
	DieBy                      time.Time // when it must have ended of a SIGKILL
	HoldBy                     time.Time // when it has been up for ReadyFor, as a replacement
	LateLooks                  int       // late looks at its deadlines, in a row

	Watch  Watch
	Limits Limits
}

// deadline is a time, which is zero if there is none, and what happens when it has
// passed.
type deadline struct {
	at     *time.Time
	passed func(*Worker)
}

func (w *Worker) deadlines() [9]deadline {
	return [...]deadline{
		{&w.StartBy, (*Worker).startExpired},
		{&w.ReadyBy, (*Worker).getReady},
		{&w.KillAt, (*Worker).drainExpired},
		{&w.DieBy, outlivesKill},
		{&w.HoldBy, (*Worker).heldLong},
		{&w.Watch.TickAt, (*Worker).tick},
		{&w.Watch.DumpAt, dumpStalled},
		{&w.Watch.KillAt, killStalled},
		{&w.Limits.DueAt, (*Worker).wantRecycling},
	}
}

// slot returns the worker's slot, removed or not, or nil for a plain Fork.
func (w *Worker) slot() *slot {
	if w.Slot == 0 {
		return nil
	}
	if all := w.m.st.Slots; w.Place >= 0 && w.Place < len(all) && all[w.Place].ID == w.Slot {
		return all[w.Place]
	}
	return w.m.st.slot(w.Slot)
}

func (w *Worker) settings() *Settings { return &w.m.st.Generations[w.Generation].Settings }

// ---- what a worker does

// Happening is something that a worker does.
type Happening int

// What workers do.
const (
	ComesOnline      Happening = iota // its runtime is up
	GetsReady                         // it may take traffic
	IsFull                            // it has accepted as many connections as it may
	DrainsByItself                    // another process has told it to stop, by a SIGTERM
	EndsByItself                      // its own program has called Disconnect or Kill
	ClosesItsChannel                  // it takes no orders any more
)

// Happened says what a worker does.
func (m *Machine) Happened(now time.Time, worker int, what Happening) {
	m.now = now
	defer m.settle()
	w := m.worker(worker)
	if w == nil {
		return
	}
	switch what {
	case ComesOnline:
		w.comeOnline()
	case GetsReady:
		w.getReady()
	case IsFull:
		w.wantRecycling()
	case DrainsByItself:
		if w.advance(Draining) {
			w.blame(ReasonDrain)
			w.killAfter(w.settings().ShutdownTimeout)
			m.host.Tell(Drains{w.ID})
		}
	case EndsByItself:
		w.setVoluntary(true)
	case ClosesItsChannel:
		w.advance(Disconnected)
		m.host.Tell(ChannelLost{w.ID})
		// It has so long to end by itself.
		w.killAfter(w.settings().ShutdownTimeout)
	}
}

// advance moves the state forward. A late event (a listener that is opened during the
// drain) does not move it back: then advance returns false.
func (w *Worker) advance(to State) bool {
	if w.State >= to {
		return false
	}
	w.State = to
	w.m.host.Tell(Changed{w.ID, to})
	return true
}

func (w *Worker) comeOnline() {
	if !w.advance(Online) {
		return
	}
	w.OnlineAt = w.m.now
	w.m.host.Tell(CameOnline{w.ID})
	if w.mustReach() == Online {
		w.StartBy = time.Time{}
	}
	if after := w.settings().ReadyAfter; after > 0 {
		w.ReadyBy = w.m.now.Add(after)
	}
	w.stepUp()
}

func (w *Worker) getReady() {
	if !w.advance(Ready) {
		return
	}
	w.ReadyAt, w.StartBy = w.m.now, time.Time{}
	w.m.host.HandOver(w.ID)
	w.stepUp()
}

// stepUp is called after every step towards ready.
func (w *Worker) stepUp() {
	if s := w.slot(); s != nil {
		if w.State == Ready {
			s.EverReady, s.Boots = true, 0
		}
		w.checkPromotion()
	}
	w.m.host.Tell(Up{w.ID})
}

// upAt is the state in which a worker counts as up. That is Ready under ManualReady, or if
// a worker of its slot was ever ready. Otherwise it is Online, since a program that never
// listens, as a consumer of a queue, stays online.
func (w *Worker) upAt() State {
	if s := w.slot(); w.settings().ManualReady || s != nil && s.EverReady {
		return Ready
	}
	return Online
}

// mustReach is the state that the worker must reach within StartTimeout. Ready is required
// only where it is sure to come: under ManualReady, and of a replacement whose
// predecessors got ready.
func (w *Worker) mustReach() State {
	if r := w.m.st.Replacing; w.settings().ManualReady || r != nil && r.Next == w.ID {
		return w.upAt()
	}
	return Online
}

// longUp reports whether the worker has been online for so long that it proves the
// program to work, though it may never listen.
func (w *Worker) longUp() bool {
	return !w.OnlineAt.IsZero() && w.m.now.Sub(w.OnlineAt) >= w.settings().Backoff.Reset
}

// startExpired kills a worker that has not reached its state within StartTimeout.
func (w *Worker) startExpired() {
	m, need := w.m, w.mustReach()
	if w.State >= need {
		return
	}
	if m.host.Traced(w.ID) { // a debugger has it, and will let it go
		w.StartBy = m.now.Add(w.settings().StartTimeout)
		return
	}
	late := fmt.Errorf("not %v within %v (StartTimeout)", need, w.settings().StartTimeout)
	m.host.Tell(Trouble{w.ID, fmt.Errorf("cluster: worker %d is killed: %w", w.ID, late)})
	if r := m.st.Replacing; r != nil && r.Next == w.ID {
		r.failed(fmt.Errorf("the new worker of slot %d was %w%s", w.Place, late, said(m.host.LastWords(w.ID))))
		return
	}
	w.killFor(ReasonCrash)
}

// said is the end of an error text about a worker: its last words, if there are any.
func said(words string) string {
	if words == "" {
		return ""
	}
	return fmt.Sprintf("; its last words: %q", words)
}

// ---- what is done to a worker

// setVoluntary notes whether the worker's end was asked for.
func (w *Worker) setVoluntary(voluntary bool) {
	w.Voluntary = voluntary
	w.m.host.Tell(Volunteered{w.ID, voluntary})
}

// blame notes why the worker will have ended. The first reason holds.
func (w *Worker) blame(why Reason) {
	if w.Reason == "" {
		w.Reason = why
	}
}

// drain tells the worker to stop, and has it killed after timeout. A second call can make
// that time only shorter.
func (w *Worker) drain(timeout time.Duration) {
	w.advance(Draining)
	if w.killAfter(timeout) {
		w.m.host.Drain(w.ID, timeout)
	}
	w.m.host.Tell(Drains{w.ID})
}

// drainFor drains the worker because the master has decided so.
func (w *Worker) drainFor(why Reason) {
	w.setVoluntary(true)
	w.blame(why)
	w.drain(w.settings().ShutdownTimeout)
}

// killAfter has the worker killed after timeout, unless that was to happen sooner anyway.
// It reports whether it has changed the time.
func (w *Worker) killAfter(timeout time.Duration) bool {
	by := w.m.now.Add(timeout)
	if !w.KillBy.IsZero() && !by.Before(w.KillBy) {
		return false
	}
	w.KillBy, w.KillAt = by, by
	return true
}

func (w *Worker) drainExpired() {
	w.Overdue = true
	w.m.host.Tell(Overdue{w.ID})
	w.signal(os.Kill)
}

// killFor kills the worker because the master has decided so.
func (w *Worker) killFor(why Reason) {
	w.blame(why)
	w.signal(os.Kill)
}

// signal sends sig to the worker. It is no error if the worker has exited already.
func (w *Worker) signal(sig os.Signal) {
	expectEnd(w, sig)
	if err := w.m.host.Signal(w.ID, sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		w.m.host.Tell(Trouble{w.ID, fmt.Errorf("cluster: signal %v to worker %d: %w", sig, w.ID, err)})
	}
}

// killTime is how long a process may take to end of a SIGKILL. A process that is frozen by
// a cgroup, or waits for a device, does not end at all.
const killTime = 10 * time.Second

// expectEnd notes when the worker must have ended, if sig is SIGKILL.
func expectEnd(w *Worker, sig os.Signal) {
	if sig == os.Kill && w.DieBy.IsZero() {
		w.DieBy = w.m.now.Add(killTime)
	}
}

// outlivesKill gives up a worker that nothing can end: all goes on as if it had ended.
func outlivesKill(w *Worker) {
	w.m.host.Tell(Trouble{w.ID, fmt.Errorf("cluster: worker %d: %w", w.ID, undead(w))})
	w.m.host.Tell(Outlives{w.ID})
}

func undead(w *Worker) error {
	return fmt.Errorf("the process with pid %d has not ended within %v of SIGKILL: it may be frozen, or wait for a device; nobody waits for it any more", w.PID, killTime)
}

// Kill sends a signal to a worker. With probe, the signal only asks whether the worker
// exists; otherwise the worker's end is asked for, and so voluntary. It is no error if the
// worker has exited and that was not reported yet.
func (m *Machine) Kill(now time.Time, worker int, sig os.Signal, probe bool) error {
	m.now = now
	defer m.settle()
	w := m.worker(worker)
	if w == nil {
		return errs.Closed
	}
	was := w.Voluntary
	if !probe { // before the signal, of which the worker may die before this returns
		w.setVoluntary(true)
		w.blame(ReasonKill)
	}
	expectEnd(w, sig)
	err := m.host.Signal(worker, sig)
	switch {
	case errors.Is(err, os.ErrProcessDone):
		w.setVoluntary(true)
		return nil
	case err != nil:
		w.setVoluntary(was)
	}
	return err
}

// ---- its end

// Exited says that a worker's process has ended.
func (m *Machine) Exited(now time.Time, worker int, e Exit) {
	m.now = now
	defer m.settle()
	if w := m.worker(worker); w != nil {
		w.die(e)
	}
}

func (w *Worker) die(e Exit) {
	m := w.m
	e.Voluntary, e.Uptime = w.Voluntary, m.now.Sub(w.Started)
	if e.Reason = w.Reason; e.Reason == "" {
		e.Reason = w.reasonFor(e)
	}
	m.st.Exits[e.Reason]++
	if w.wasReady() || w.Voluntary || w.Reason != "" {
		e.Note = ""
	}
	// It may have exited by itself while it was being killed.
	e.CutOff = w.Overdue && e.Code != 0
	if e.CutOff && m.st.Stop != nil {
		m.st.Stop.Killed = append(m.st.Stop.Killed, w.ID)
	}
	if e.Undead && m.st.Stop != nil {
		m.st.Stop.Undead = append(m.st.Stop.Undead, w.PID)
	}
	w.State = Dead
	delete(m.st.Workers, w.ID)
	m.host.Tell(Died{w.ID, e})
	if s := w.slot(); s != nil {
		s.lost(w, e)
	}
	for _, f := range m.st.Fills {
		f.Killed = without(f.Killed, w.ID)
	}
}

// without returns the numbers without id.
func without(ids []int, id int) (kept []int) {
	for _, other := range ids {
		if other != id {
			kept = append(kept, other)
		}
	}
	return kept
}

func (w *Worker) wasReady() bool { return !w.ReadyAt.IsZero() }

// reasonFor is why the worker ended, if the Machine has not decided that.
func (w *Worker) reasonFor(e Exit) Reason {
	if e.asked() && (w.wasReady() || e.Voluntary) {
		return ReasonDrain
	}
	if e.Voluntary {
		return ReasonKill
	}
	return ReasonCrash
}
