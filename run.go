package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/go-cluster/cluster/internal/drain"
	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/signals"
	"github.com/go-cluster/cluster/internal/supervise"
	"github.com/go-cluster/cluster/internal/systemd"
)

// runner is the Run of a master: at most one at a time, which all callers share.
type runner struct {
	mu  sync.Mutex
	cur *running

	ctx    context.Context // of Context, from one stop to the next
	cancel context.CancelFunc
	hooks  drain.ShutdownHooks

	stopping chan struct{} // of Stopping; nil until somebody asks
	stops    bool          // a stop has begun: stopping is closed
}

type running struct {
	terminal *process.Terminal // nil if there is none, or signals are left alone

	stops, controls chan os.Signal
	park            chan chan struct{} // lets it rest until what is sent is closed

	fatal chan error    // the supervision gave up
	ended chan struct{} // a Disconnect has: there may be nothing left to wait for
	stop  chan struct{}
	once  sync.Once // closes stop
	done  chan struct{}
	err   error
}

const (
	// secondSignal is how long a stop may still take after a second signal.
	secondSignal = 2 * time.Second
	// lastWords is how long Run and a drain wait at their end for callbacks under
	// way, so that the last OnDeath is not cut off by main's return.
	lastWords = time.Second
)

// context returns what Context gives in the master.
func (r *runner) context() context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.contextLocked()
}

func (r *runner) contextLocked() context.Context {
	if r.ctx == nil {
		r.ctx, r.cancel = context.WithCancel(context.Background())
	}
	return r.ctx
}

// stoppingChan returns what Stopping gives in the master.
func (r *runner) stoppingChan() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping == nil {
		r.stopping = make(chan struct{})
		if r.stops {
			close(r.stopping)
		}
	}
	return r.stopping
}

// isStopping reports whether that is closed.
func (r *runner) isStopping() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stops
}

// announce closes that channel.
func (r *runner) announce() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.stops && r.stopping != nil {
		close(r.stopping)
	}
	r.stops = true
}

// renew makes a new one, for the next stop, unless a Run goes on to its end.
func (r *runner) renew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cur == nil {
		r.stopping, r.stops = nil, false
	}
}

// end ends Context.
func (r *runner) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil {
		r.cancel()
	}
}

// runs reports whether a Run is under way.
func (r *runner) runs() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cur != nil
}

// fail ends the Run under way with err.
func (r *runner) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cur != nil {
		select {
		case r.cur.fatal <- err:
		default:
		}
	}
}

// disconnected tells the Run under way that a Disconnect has ended.
func (r *runner) disconnected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cur != nil {
		select {
		case r.cur.ended <- struct{}{}:
		default:
		}
	}
}

// run joins the Run under way, or is it.
func (m *master) run(ctx context.Context) error {
	r := &m.runner
	r.mu.Lock()
	cur := r.cur
	if cur == nil {
		cur = &running{park: make(chan chan struct{}), fatal: make(chan error, 1), ended: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
		r.cur = cur
		r.contextLocked()
		go m.runLoop(cur)
	}
	r.mu.Unlock()
	select {
	case <-cur.done:
		return cur.err
	case <-ctx.Done():
		cur.once.Do(func() { close(cur.stop) })
		<-cur.done
		if cur.err != nil && errors.Is(cur.err, context.DeadlineExceeded) {
			return fmt.Errorf("%w: %w", cur.err, ctx.Err())
		}
		return cur.err
	}
}

// runLoop is one Run.
func (m *master) runLoop(cur *running) {
	defer signals.SurviveSIGPIPE()() // a reader of the log that goes away ends nobody
	stops, controls, end := m.takeSignals(cur)
	cur.stops, cur.controls = stops, controls
	defer end()

	err := m.autoFork()
	if err == nil {
		m.call(func() {
			err = m.supervisor.GaveUp()
			m.notifyBegin()
		})
	}
	for err == nil {
		var stop bool
		if stop, err = m.waitRun(cur, stops, controls); stop {
			break
		}
	}
	if stopErr := m.stopRun(cur, stops); err == nil {
		err = stopErr
	}
	m.call(func() { m.supervisor.SetEnding(false) })
	m.runner.mu.Lock()
	cur.err = err
	m.runner.cur = nil
	m.runner.ctx, m.runner.cancel = nil, nil
	m.runner.mu.Unlock()
	m.runner.renew()
	close(cur.done)
}

// takeSignals begins to receive what Run acts on, and to reap orphans if that
// falls to this process. A full channel drops signals, so those that stop have one
// of their own: no flood of the others gets in their way.
func (m *master) takeSignals(cur *running) (stops, controls chan os.Signal, end func()) {
	o := m.settings()
	stops, controls = make(chan os.Signal, 16), make(chan os.Signal, 16)
	stop := make(chan struct{})
	if !o.NoSignals {
		cur.terminal = process.FindTerminal()
		signals.OutliveTerminalStops()
		signal.Notify(stops, signals.Stop...)
		if s := signals.Controls(cur.terminal); len(s) > 0 { // none would be all
			signal.Notify(controls, s...)
		}
		m.upgrades.untrap(stops, controls)
		if cur.terminal != nil {
			go process.ContinueStopped(stop, func() (pids []int) { pids, _ = m.waited(); return pids }, tellStopped(m))
		}
	}
	if reap := o.ReapOrphans; reap != nil && *reap || reap == nil && pid == 1 {
		go process.ReapOrphans(stop, m.waited)
	}
	return stops, controls, func() {
		signal.Stop(stops)
		signal.Stop(controls)
		close(stop)
		cur.terminal.Close()
	}
}

// waited are the processes that the master waits for, and whether one is being
// started.
func (m *master) waited() (pids []int, starting bool) {
	m.call(func() {
		s := m.supervisor.Snapshot(time.Now())
		starting = s.Forking
		for _, w := range s.Workers {
			pids = append(pids, w.Worker.PID)
		}
	})
	return pids, starting
}

// waitRun waits for the next thing that concerns a Run.
func (m *master) waitRun(cur *running, stops, controls <-chan os.Signal) (stop bool, err error) {
	select {
	case <-stops:
		return true, nil
	case sig := <-controls:
		m.control(cur, sig)
		return false, nil
	case <-cur.stop:
		return true, nil
	case goOn := <-cur.park:
		<-goOn
		return false, nil
	case <-cur.ended:
		return m.empty(), nil
	case err = <-cur.fatal:
		return true, err
	}
}

// empty reports whether no worker runs and none is being forked: after a
// Disconnect nothing is left to wait for, unless somebody has forked meanwhile.
func (m *master) empty() (empty bool) {
	m.call(func() {
		s := m.supervisor.Snapshot(time.Now())
		empty = len(s.Workers) == 0 && !s.Forking
	})
	return empty
}

// tellStopped returns what says that a worker was stopped by the terminal: once, for
// it may go on.
func tellStopped(m *master) func(pid int, by os.Signal) {
	var once sync.Once
	return func(pid int, by os.Signal) {
		once.Do(func() {
			m.log().Warn("cluster: the terminal has stopped a worker, which is continued; give workers other standard files (Options.Output, Stdin) than a terminal", "pid", pid, "signal", by)
		})
	}
}

// control acts on a signal that is no stop. It does not wait: what goes wrong
// is logged, and told by OnReload.
func (m *master) control(cur *running, sig os.Signal) {
	switch sig {
	case signals.Reload:
		go cur.hangUp(m)
	case signals.Upgrade:
		go m.upgrades.bySignal()
	case signals.Up, signals.Down:
		step := 1
		if sig == signals.Down {
			step = -1
		}
		go func() {
			if err := m.scaleBy(step); err != nil {
				m.log().Warn("cluster: scaling failed", "err", err)
			}
		}()
	}
}

// hangUp acts on a SIGHUP: an administrator reloads by it, a terminal that was closed
// ends the cluster.
func (cur *running) hangUp(m *master) {
	switch {
	case !cur.terminal.HungUp():
		m.post(func() {
			if m.delay == nil {
				m.upgrades.noteReload()
				m.upgrades.held(func() { m.supervisor.Reload(time.Now(), 0) })
			}
		})
	case !m.outlives:
		cur.once.Do(func() { close(cur.stop) })
	}
}

// log is where the master's own troubles go.
func (m *master) log() *slog.Logger {
	logger := slog.Default()
	m.call(func() {
		if s, err := m.current(); err == nil {
			logger = s.logger()
		}
	})
	return m.cluster.logs.Logger(logger)
}

// stopRun drains the cluster and then the master itself.
func (m *master) stopRun(cur *running, stops <-chan os.Signal) error {
	if d := m.beginDelay(); d != nil {
		select {
		case <-d.over:
		case <-stops:
		case <-cur.fatal:
		}
	}
	var s stopping
	m.call(func() {
		// From here on, so that no OnDeath that comes late forks what Run would
		// leave behind.
		m.supervisor.SetEnding(true)
		m.notifyEnd()
		s = m.beginStop()
	})
	m.registry.ClosePreopened()
	m.runner.end()
	done := make(chan error, 1)
	go func() { done <- m.waitStopped(context.Background(), s) }()
	var err error
	for waiting := true; waiting; {
		select {
		case <-stops:
			m.hurry(secondSignal)
		case err = <-done:
			waiting = false
		}
	}
	timeout := m.settings().ShutdownTimeout
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	m.runner.hooks.Run(ctx, m.log)

	words, over := context.WithTimeout(ctx, lastWords)
	defer over()
	// Those too that died before the stop began: their OnDeath may still run.
	for _, p := range m.cluster.live.all() {
		p.events.idle(words.Done())
	}
	m.notifier.manager.Flush(words.Done())
	m.cluster.logs.Flush(words.Done())
	return err
}

// notifier tells a service manager how the cluster is. It is at work during Run.
// Its fields belong to the master's mailbox.
type notifier struct {
	manager systemd.Notifier
	ready   bool        // that is said, or nobody waits for it
	look    *time.Timer // looks at those who may never listen; nil outside Run
	alive   *time.Timer // when the watchdog is to be told
}

// census is how the cluster is, as a service manager wants to know it.
type census struct {
	up, need int  // workers that do their work, and how many must
	waiting  bool // one that is online may do so soon, without a word
	alive    bool // one is online, and no slot is stalled
}

// notifyBegin is called when a Run begins.
func (m *master) notifyBegin() {
	n := &m.notifier
	n.manager.Begin()
	n.ready = false
	n.stopAlive()
	keeper{m}.begin()
	n.look = time.AfterFunc(supervise.NeverListens, func() { m.post(m.notifyUp) })
	if n.manager.Watchdog() > 0 {
		m.notifyAlive()
	}
	m.notifyUp()
}

// notifyEnd is called when the stop begins.
func (m *master) notifyEnd() {
	n := &m.notifier
	n.manager.Notify(systemd.Stopping)
	n.manager.End()
	if n.look != nil { // nil if the Run ends before its workers began
		n.look.Stop()
	}
	n.stopAlive()
	n.ready, n.look = false, nil
}

func (n *notifier) stopAlive() {
	if n.alive != nil {
		n.alive.Stop()
	}
	n.alive = nil
}

// leaves tells the watchdog that all is well before another program takes over.
func (n *notifier) leaves() {
	if n.look != nil && n.manager.Watchdog() > 0 {
		n.manager.Notify(systemd.Alive)
	}
}

// inherited tells the watchdog of a program that has taken the place of another one that
// it lives, until it has come to Run; its main has its time for that.
func (n *notifier) inherited(m *master, until time.Time) {
	if n.look != nil || time.Now().After(until) {
		return
	}
	n.manager.Begin()
	n.manager.Notify(systemd.Alive)
	if every := n.manager.Watchdog() / 2; every > 0 {
		n.alive = time.AfterFunc(every, func() { m.post(func() { n.inherited(m, until) }) })
	}
}

// notifyUp says that the cluster is up once enough workers are.
func (m *master) notifyUp() {
	n := &m.notifier
	if n.look == nil || n.ready {
		return
	}
	c := m.census()
	if c.up >= c.need && c.up > 0 {
		n.ready = true
		if m.upgrades.came == nil || !handing(m.supervisor).Reloads() { // else it is said at the end of that
			n.manager.Notify(systemd.Ready(fmt.Sprintf("%d workers up", c.up)))
		}
		go m.logUnusedSockets()
	} else if c.waiting {
		n.look.Reset(supervise.NeverListens)
	}
}

// notifyReloading opens what notifyReloaded must close, for a reload that fails
// too.
func (m *master) notifyReloading() {
	if m.delay == nil {
		m.notifier.manager.Notify(systemd.Reloading())
	}
}

func (m *master) notifyReloaded(r ReloadResult) {
	status := fmt.Sprintf("generation %d", r.Generation)
	if r.Err != nil {
		status = r.Err.Error()
	}
	if m.delay == nil { // else STOPPING=1 is the last word
		m.notifier.manager.Notify(systemd.Ready(status))
	}
}

// notifyAlive tells the watchdog that all is well, if it is, and does so twice as
// often as it wants to hear it.
func (m *master) notifyAlive() {
	n := &m.notifier
	if n.look == nil {
		return // the Run has ended
	}
	if m.census().alive {
		n.manager.Notify(systemd.Alive)
	}
	n.alive = time.AfterFunc(n.manager.Watchdog()/2, func() { m.post(m.notifyAlive) })
}
