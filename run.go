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

// runner is the Run of a master. There is at most one at a time, which all callers share.
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
	park            chan chan struct{} // makes the loop rest until the channel that is sent is closed

	fatal chan error    // has the error with which the supervision gave up
	ended chan struct{} // has a value when a Disconnect has ended: there may be nothing left to wait for
	stop  chan struct{} // closed to end Run
	once  sync.Once     // closes stop
	done  chan struct{}
	err   error
}

const (
	// secondSignal is how long a stop may still take after a second signal.
	secondSignal = 2 * time.Second
	// lastWords is how long Run and a drain wait at their end for callbacks under way: main
	// may return then, and must not cut off the last OnDeath.
	lastWords = time.Second
)

// context returns the Context of a master.
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

// stoppingChan returns the channel that Stopping returns in a master.
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

// isStopping reports whether the channel of Stopping is closed.
func (r *runner) isStopping() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stops
}

// announce closes the channel of Stopping.
func (r *runner) announce() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.stops && r.stopping != nil {
		close(r.stopping)
	}
	r.stops = true
}

// renew prepares Stopping for the next stop, unless a Run is under way.
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

// run begins a Run, or joins the one under way, and waits for its end.
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
	defer signals.SurviveSIGPIPE()() // the master must not die because a reader of its log goes away
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

// takeSignals begins to receive the signals that Run acts on. It also begins to reap orphans,
// if this process has to. A full channel drops signals, so those that stop the cluster have a
// channel of their own: a flood of others cannot make them disappear.
func (m *master) takeSignals(cur *running) (stops, controls chan os.Signal, end func()) {
	o := m.settings()
	stops, controls = make(chan os.Signal, 16), make(chan os.Signal, 16)
	stop := make(chan struct{})
	if !o.NoSignals {
		cur.terminal = process.FindTerminal()
		signals.OutliveTerminalStops()
		signal.Notify(stops, signals.Stop...)
		if s := signals.Controls(cur.terminal); len(s) > 0 { // for Notify no signals means all signals
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

// waited returns the pids of the processes that the master waits for, and whether one is
// being started.
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

// empty reports whether no worker runs and none is being forked. That ends a Run after a
// Disconnect, unless somebody has forked meanwhile.
func (m *master) empty() (empty bool) {
	m.call(func() {
		s := m.supervisor.Snapshot(time.Now())
		empty = len(s.Workers) == 0 && !s.Forking
	})
	return empty
}

// tellStopped returns a func that logs that the terminal has stopped a worker. It logs only
// once, since the terminal may do so again and again.
func tellStopped(m *master) func(pid int, by os.Signal) {
	var once sync.Once
	return func(pid int, by os.Signal) {
		once.Do(func() {
			m.log().Warn("cluster: the terminal has stopped a worker, which is continued; give workers other standard files (Options.Output, Stdin) than a terminal", "pid", pid, "signal", by)
		})
	}
}

// control acts on a signal that does not stop the cluster. It does not wait: errors are
// logged, and those of a reload are told by OnReload.
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

// hangUp acts on a SIGHUP. From an administrator it is the order to reload. From a terminal
// that was closed it ends the cluster.
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

// log returns the logger for the master's own troubles.
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
		// An OnDeath that comes late must not fork a worker from here on: Run would
		// leave it behind.
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
	// Workers that died before the stop are among these: their OnDeath may still run.
	for _, p := range m.cluster.live.all() {
		p.events.idle(words.Done())
	}
	m.notifier.manager.Flush(words.Done())
	m.cluster.logs.Flush(words.Done())
	return err
}

// notifier tells a service manager how the cluster is, during Run. Its fields belong to the
// master's mailbox.
type notifier struct {
	manager systemd.Notifier
	ready   bool        // READY=1 was said, or nobody waits for it
	look    *time.Timer // looks again at workers that may never listen; nil outside Run
	alive   *time.Timer // tells the watchdog the next time
}

// census is the state of the cluster that a service manager wants to know.
type census struct {
	up, need int  // how many workers are up, and how many must be
	waiting  bool // a worker is online, and may count as up soon
	alive    bool // a worker is online, and none is stalled
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
	if n.look != nil { // nil if Run ends before it has forked
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

// inherited tells the watchdog that this program lives, which has taken the place of another
// one. It goes on until main has come to Run, or until the given time.
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

// notifyUp says that the cluster is up, once, when enough workers are up.
func (m *master) notifyUp() {
	n := &m.notifier
	if n.look == nil || n.ready {
		return
	}
	c := m.census()
	if c.up >= c.need && c.up > 0 {
		n.ready = true
		if m.upgrades.came == nil || !handing(m.supervisor).Reloads() { // the end of a reload says it otherwise
			n.manager.Notify(systemd.Ready(fmt.Sprintf("%d workers up", c.up)))
		}
		go m.logUnusedSockets()
	} else if c.waiting {
		n.look.Reset(supervise.NeverListens)
	}
}

// notifyReloading says that a reload begins. notifyReloaded must follow, for a reload that
// fails too.
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
	if m.delay == nil { // after STOPPING=1 nothing more is said
		m.notifier.manager.Notify(systemd.Ready(status))
	}
}

// notifyAlive tells the watchdog that the cluster is alive, if it is. It does so twice in
// the time within which the watchdog wants to hear it.
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
