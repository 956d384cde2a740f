package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/go-cluster/cluster/internal/link"
	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/share"
	"github.com/go-cluster/cluster/internal/signals"
	"github.com/go-cluster/cluster/internal/systemd"
	"github.com/go-cluster/cluster/internal/upgrade"
)

// How a master is replaced in place: the part of the program that goes. What goes over
// is in handover.go, and the part of the program that comes in adopt.go. The steps are
// those of package upgrade.

// upgrades is what a master knows of the replacement of its program.
type upgrades struct {
	m     *master       // constant
	seat  chan struct{} // of the one Upgrade that is under way
	check *upgrade.Child
	came  *inheritance // of the program before; nil after a plain start; constant

	// Of the mailbox:
	hold  *hold
	turns []chan struct{} // closed at the end of the turn
	asked int             // workers that main has asked AutoFork for
	files uint64          // as upgrade.Exec.Files
}

// hold is the time from which on nothing new begins, to the exec or back. It belongs to
// the mailbox.
type hold struct {
	calls     []func() // that wait
	reload    bool     // one was asked for
	stop      context.CancelCauseFunc
	cancelled bool
}

// quietTime is how long callbacks, handlers and what peers have to answer may take until
// the cluster is quiet.
const quietTime = 5 * time.Second

// threadTime is how long the thread may be at work on which an exec has to be.
const threadTime = 2 * time.Second

// held runs fn in this turn, or when the hold is over. It is called in the mailbox.
func (u *upgrades) held(fn func()) {
	if h := u.hold; h != nil {
		h.calls = append(h.calls, fn)
		return
	}
	fn()
}

// stopWins calls an upgrade off, because the cluster is stopped.
func (u *upgrades) stopWins() {
	if u.hold != nil {
		u.hold.cancelled = true
		u.hold.stop(fmt.Errorf("the cluster is stopped: %w", ErrClosed))
	}
}

// run is Upgrade. reload says that the successor is to reload.
func (u *upgrades) run(ctx context.Context, reload bool) error {
	m := u.m
	if !upgrade.Supported {
		return callError("Upgrade", ErrNotSupported)
	}
	if !m.forked.Load() || u.pending() {
		return callError("Upgrade", ErrNoWorkers)
	}
	select {
	case m.upgrades.seat <- struct{}{}:
		defer func() { <-m.upgrades.seat }()
	case <-ctx.Done():
		return ctx.Err()
	}
	m.call(m.notifyReloading)
	err := u.replace(ctx, reload)
	if err == nil { // a stop
		err = ErrClosed
	}
	err = callError("Upgrade", err)
	m.call(func() { m.notifyReloaded(ReloadResult{Err: err}) })
	u.tell(err)
	return err
}

// tell tells the callbacks of OnUpgraded.
func (u *upgrades) tell(err error) {
	m := u.m
	for _, r := range m.cluster.hooks.upgraded.all() {
		m.reports.Post(func() { r.fn(err) })
	}
}

// replace returns only if the program was not replaced.
func (u *upgrades) replace(ctx context.Context, reload bool) error {
	m := u.m
	path := self.Path()
	file, err := u.checkProgram(ctx, path)
	if err != nil {
		return err
	}
	q := &quiet{m: m}
	defer q.end()
	if err := q.begin(ctx); err != nil {
		return err
	}
	if !file.Same() {
		// Somebody deploys just now. The new file is checked as well; meanwhile all goes on.
		q.end()
		return u.replace(ctx, reload)
	}
	fallback, err := upgrade.OpenRunning()
	if err != nil {
		return err
	}
	old := os.NewFile(uintptr(fallback), path) // nil if there is none
	defer old.Close()
	flushed := func() {}
	if q.run != nil {
		flushed = signals.Flush()
	}
	defer func() { flushed() }()
	m.call(m.notifier.leaves)
	m.notifier.manager.Flush(q.ctx.Done())
	m.cluster.flushLogs(lastWords)
	m.call(func() {
		if m.upgrades.hold.cancelled || handing(m.supervisor).Stopping() {
			err = ErrClosed
			return
		}
		err = u.exec(q, path, fallback, reload, flushed)
	})
	return err
}

// exec ends this program, in a turn of its own. With an error all is as it was.
func (u *upgrades) exec(q *quiet, path string, fallback int, reload bool, flushed func()) error {
	m := u.m
	state, err := u.state(q.states)
	if err != nil {
		return err
	}
	state.Left, state.Reload = q.left, reload || m.upgrades.hold.reload
	e := &upgrade.Exec{
		Path: path, Args: self.Args, Env: upgrade.Started().Env, Dir: self.StartDir(), Fallback: fallback, Keep: systemd.Descriptors(),
		Handover: &upgrade.Handover{Version: upgrade.Version, PID: pid, FDs: state.descriptors()}, Files: u.files,
	}
	defer func() {
		u.files = e.Files
		m.launcher.LimitFiles(e.Files)
	}()
	q.onThread(func() {
		err = e.Run(func() (err error) {
			flushed()
			if q.run != nil {
				if len(q.run.stops) > 0 {
					return fmt.Errorf("a signal to stop has come: %w", ErrClosed)
				}
				state.Reload = q.takeControls(state) || state.Reload
			}
			state.Children = u.children() // nothing is being started now
			e.Handover.Body, err = json.Marshal(state)
			return err
		})
	})
	return err
}

// children are those of this process that are not workers. It is called in the mailbox.
func (u *upgrades) children() []int {
	return slices.DeleteFunc(process.Children(), func(pid int) bool {
		for _, p := range u.m.workers {
			if p.pid == pid {
				return true
			}
		}
		return false
	})
}

// checkProgram runs the program at path until it would adopt.
func (u *upgrades) checkProgram(ctx context.Context, path string) (upgrade.File, error) {
	m := u.m
	file, err := upgrade.Look(path)
	o := m.settings()
	if err != nil || o.NoUpgradeCheck {
		return file, err
	}
	check := upgrade.Check{Path: path, Args: self.Args, Env: upgrade.Started().Env, Dir: self.StartDir(), Timeout: o.StartTimeout}
	if err := check.Run(ctx); err != nil {
		return file, fmt.Errorf("check of %s: %w", path, err)
	}
	return file, nil
}

// quiet makes the cluster quiet, and lets it go on.
type quiet struct {
	m      *master
	ctx    context.Context
	undo   []func() // what ends it, the last first
	states map[string]json.RawMessage
	left   map[string]int
	run    *running // that rests; nil if there is none

	onThread func(func()) // runs a function on the thread on which the exec has to be
}

// end lets all go on.
func (q *quiet) end() {
	for len(q.undo) > 0 {
		last := len(q.undo) - 1
		undo := q.undo[last]
		q.undo = q.undo[:last]
		undo()
	}
}

// begin makes the cluster quiet. With an error, end is to be called as well.
func (q *quiet) begin(ctx context.Context) error {
	stop, err := q.hold(ctx)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeoutCause(stop, quietTime, fmt.Errorf("not within %v", quietTime))
	q.ctx = limited
	q.undo = append([]func(){cancel}, q.undo...)
	workers := q.m.list()
	for _, step := range []func([]*Process) error{q.rest, q.save, q.parkRun, q.holdThread, q.stopReaping, q.settle, q.stopReading, q.stopWriting, q.leave} {
		if err := step(workers); err != nil {
			return err
		}
	}
	return nil
}

// hold waits until nothing is under way, and lets nothing new begin. It returns a
// context that ends with a stop.
func (q *quiet) hold(ctx context.Context) (context.Context, error) {
	m := q.m
	for {
		var what string
		turn := make(chan struct{})
		stop, cancel := context.WithCancelCause(ctx)
		m.call(func() {
			if handing(m.supervisor).Stopping() || m.delay != nil || len(m.stops) > 0 {
				what = "stop"
				return
			}
			if what = handing(m.supervisor).UnderWay(); what != "" {
				m.upgrades.turns = append(m.upgrades.turns, turn)
				return
			}
			m.upgrades.hold = &hold{stop: cancel}
			handing(m.supervisor).Hold(time.Now(), true)
			m.cluster.quiet.Store(true)
		})
		switch what {
		case "":
			q.undo = append(q.undo, func() { cancel(nil) }, func() { m.call(m.upgrades.release) })
			return stop, nil
		case "stop":
			cancel(nil)
			return nil, ErrClosed
		}
		cancel(nil)
		select {
		case <-turn:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is under way: %w", what, ctx.Err())
		}
	}
}

// release ends the hold, in the mailbox.
func (u *upgrades) release() {
	m := u.m
	h := m.upgrades.hold
	m.upgrades.hold = nil
	m.cluster.quiet.Store(false)
	handing(m.supervisor).Hold(time.Now(), false)
	for _, call := range h.calls {
		call()
	}
	for _, p := range m.workers {
		p.events.release()
		p.link.RetryRequests()
		p.child.askAgain()
	}
}

// noteReload notes that somebody wants a reload: the successor sees to it.
func (u *upgrades) noteReload() {
	if u.hold != nil {
		u.hold.reload = true
	}
}

// bySignal is what SIGUSR2 does.
func (u *upgrades) bySignal() {
	m := u.m
	if err := u.run(context.Background(), true); err != nil {
		m.log().Error("cluster: the upgrade failed; the program goes on as it was", "err", err)
	}
}

// busy is the error of a step that took too long.
func (q *quiet) busy(format string, args ...any) error {
	cause := context.Cause(q.ctx)
	if errors.Is(cause, ErrClosed) {
		return cause
	}
	return fmt.Errorf("%s has not ended: %w; nothing was cut off, and all goes on", fmt.Sprintf(format, args...), cause)
}

// await waits until done reports true.
func (q *quiet) await(done func() bool) bool {
	for wait := 50 * time.Microsecond; !done(); wait = min(2*wait, 5*time.Millisecond) {
		select {
		case <-q.ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
	return true
}

// rest ends the callbacks and the handlers: what is to come waits.
func (q *quiet) rest(workers []*Process) error {
	for _, p := range workers {
		p.events.hold()
	}
	for _, p := range workers {
		if !q.await(p.events.rests) {
			return q.busy("a callback about worker %d", p.id)
		}
		answered := make(chan struct{})
		go func() {
			p.link.Answered()
			close(answered)
		}()
		select {
		case <-answered:
		case <-q.ctx.Done():
			return q.busy("a handler of a request of worker %d", p.id)
		}
		if !q.await(func() bool { return p.child.queries.Load() == 0 }) {
			return q.busy("AllowListen for worker %d", p.id)
		}
	}
	told := make(chan struct{})
	q.m.reports.Post(func() { close(told) })
	select {
	case <-told:
		return nil
	case <-q.ctx.Done():
		return q.busy("a callback about the cluster")
	}
}

// parkRun lets the loop of Run rest, so that it takes no signal that would be forgotten.
func (q *quiet) parkRun([]*Process) error {
	r := &q.m.runner
	r.mu.Lock()
	cur := r.cur
	r.mu.Unlock()
	if cur == nil {
		return nil
	}
	goOn := make(chan struct{})
	select {
	case cur.park <- goOn:
		q.run = cur
		q.undo = append(q.undo, func() { close(goOn) })
		return nil
	case <-cur.done:
		return ErrClosed
	case <-q.ctx.Done():
		return q.busy("Run")
	}
}

// holdThread holds the thread on which the exec is no end of Foreign workers.
func (q *quiet) holdThread([]*Process) error {
	run, release, err := q.m.launcher.HoldThread(threadTime)
	if err != nil {
		return err
	}
	q.onThread = run
	q.undo = append(q.undo, release)
	return nil
}

// takeControls takes what Run has not acted on yet: the successor does.
func (q *quiet) takeControls(state *masterState) (reload bool) {
	controls := q.run.controls
	for len(controls) > 0 {
		sig := <-controls
		q.undo = append(q.undo, func() { controls <- sig })
		switch sig {
		case signals.Reload, signals.Upgrade:
			reload = true
		case signals.Up:
			state.Steps++
		case signals.Down:
			state.Steps--
		}
	}
	return reload
}

// stopReaping leaves the status of a worker that ends from here on to the successor. What
// was taken already is reported to its end.
func (q *quiet) stopReaping(workers []*Process) error {
	m := q.m
	if !q.await(m.reaping.TryLock) {
		return q.busy("the report of a death")
	}
	q.undo = append(q.undo, m.reaping.Unlock)
	for _, p := range m.cluster.live.all() {
		if p.IsDead() {
			p.events.release()
		}
	}
	if !q.await(func() bool { return !m.cluster.live.has((*Process).IsDead) }) {
		return q.busy("a callback about a worker that has died")
	}
	return nil
}

// settle waits for what peers have to answer, and cannot be handed over.
func (q *quiet) settle(workers []*Process) error {
	m := q.m
	q.undo = append(q.undo, func() { share.Resume(m.registry) })
	if err := share.Pause(q.ctx, m.registry); err != nil {
		return q.busy("an accept")
	}
	if !q.await(func() bool { return share.Frozen(m.registry) }) {
		return q.busy("a worker has not taken a connection that it was handed; the wait for it")
	}
	for _, p := range workers {
		if !q.await(func() bool { return q.waits(p) == "" }) {
			return q.busy("the wait for worker %d because of %s", p.id, q.waits(p))
		}
	}
	return nil
}

// waits names what a worker has to answer, and only this program could be told of.
func (q *quiet) waits(p *Process) string {
	var again map[int64]bool
	q.m.call(func() { again = share.Repeated(q.m.registry) })
	return link.Waits(p.link, again)
}

// stopReading ends the reading of the channels.
func (q *quiet) stopReading(workers []*Process) error {
	for _, p := range workers {
		q.undo = append(q.undo, func() { link.Resume(p.link) })
		if err := link.PauseReading(q.ctx, p.link); err != nil {
			return q.busy("the reading of the channel of worker %d", p.id)
		}
		if err := p.child.foreign.pause(q); err != nil {
			return q.busy("the reading of what worker %d says of itself", p.id)
		}
	}
	return nil
}

// stopWriting ends the writing to the channels, and the copying of what workers write.
func (q *quiet) stopWriting(workers []*Process) error {
	q.undo = append(q.undo, q.m.broker.Hold())
	for _, p := range workers {
		link.PauseWriting(p.link)
		if what := q.waits(p); what != "" {
			return q.busy("the wait for worker %d because of %s", p.id, what)
		}
	}
	for _, p := range workers {
		q.undo = append(q.undo, p.child.proc.ResumeOutput)
		if err := p.child.proc.PauseOutput(q.ctx); err != nil {
			return q.busy("a writer of Options.Output for worker %d", p.id)
		}
	}
	return nil
}
