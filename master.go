package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// master is the state of a cluster. Its mailbox owns all fields that are not
// said to be otherwise; the methods are grouped by who may call them.
type master struct {
	mailbox

	opts    *Options // of SetupMaster, with defaults; nil before
	lastID  int
	workers map[int]*Process // forked and not dead
	forking int              // forks begun and not ended
	stop    *stop            // a Disconnect under way
	ending  bool             // a Run is about to return
	exits   map[Reason]int

	// The supervision: supervise.go, reload.go, recycle.go.
	slots       []*slot
	gaveUp      error        // why, for Run
	works       bool         // a worker of a slot that is removed proved the program
	idle        *generation  // what the next slots get, while Scale has left none
	lastGen     int          // the newest generation's number
	completed   int          // the last generation that reached every slot
	token       *replacement // the one under way
	reload      *reloadJob
	reloadAsked []chan error // who waits for the reload after this one
	lastReload  *ReloadResult
	recycling   []*Process // whose turn comes when the token is free

	registry registry
	runner   runner
	notifier notifier
	reports  mailbox // callbacks about the cluster as a whole
	began    time.Time

	forked atomic.Bool // from the first fork to the end of Disconnect; for anyone

	// start makes p's process and channel, kill sends the process a signal, ping
	// asks whether it is alive, if it can be asked: the seam for tests of the state.
	start func(p *Process, env []string) error
	kill  func(p *Process, sig os.Signal) error
	ping  func(p *Process) bool
}

// child is what the master knows about a worker. Fields without a word belong
// to the master's mailbox.
type child struct {
	m       *master
	opts    *Options     // in force when it was forked; constant
	slot    *slot        // nil for a plain Fork; constant
	gen     *generation  // what it was forked from; constant
	proc    *os.Process  // constant once started
	output  *outputPipes // constant once started
	started time.Time    // constant once started

	exited     chan struct{} // closed at death, or when it could not be started
	onlineAt   time.Time
	readyAt    time.Time
	startTimer *time.Timer
	killTimer  *time.Timer
	killBy     time.Time // when killTimer fires
	overdue    bool      // sent SIGKILL because its drain took too long
	cutOff     bool      // overdue, and it died of that; constant once exited is closed
	reason     Reason    // why it ends, if that was decided here
	queries    atomic.Int32
	handed     atomic.Int64 // connections that it took from a roundRobin

	watch   watch   // watchdog.go
	recycle recycle // recycle.go
	stderr  *tail   // its last words while it is not ready; constant once started
}

// forkOrder says where a new worker belongs.
type forkOrder struct {
	slot        *slot // nil for a plain Fork
	gen         *generation
	pending     int // of the slot when this was decided: a later decision voids it
	replacement *replacement
}

// void reports whether something else was decided since.
func (m *master) void(o forkOrder) bool {
	if o.slot == nil {
		return false
	}
	return o.slot.mode == slotGone || o.slot.pending != o.pending || o.replacement != nil && m.token != o.replacement
}

// errVoid is why nothing was forked for an order that is void. It is nobody's
// trouble: whoever decided otherwise sees to the slot.
var errVoid = fmt.Errorf("decided otherwise meanwhile: %w", ErrClosed)

// voided is why a worker ends whose order became void during the fork.
func (o forkOrder) voided() Reason {
	switch {
	case o.replacement != nil:
		return o.replacement.why
	case o.slot.mode == slotGone:
		return ReasonScale
	}
	return ReasonReload // its replacement was faster
}

// stop is one Disconnect of the whole cluster.
type stop struct {
	done   chan struct{}
	now    bool  // kill, do not drain
	killed []int // ids of workers that had to be killed
}

func newMaster() *master {
	m := &master{workers: make(map[int]*Process), exits: make(map[Reason]int), start: startProcess, kill: signalProcess, ping: pingProcess, began: time.Now()}
	m.registry.init()
	return m
}

// ---- called by anyone

func (m *master) setup(o Options) error {
	filled, err := o.withDefaults()
	if err != nil {
		return err
	}
	m.call(func() { m.opts = &filled })
	return nil
}

func (m *master) settings() (o Options) {
	m.call(func() {
		if opts, err := m.current(); err == nil {
			o = opts.shown()
		}
	})
	return o
}

func (m *master) list() (workers []*Process) {
	m.call(func() { workers = slices.Collect(maps.Values(m.workers)) })
	return workers
}

// forkOne is Fork.
func (m *master) forkOne(env []string) (*Process, error) {
	if err := validateEnv("Fork", env); err != nil {
		return nil, err
	}
	gen, err := m.newGeneration(false)
	if err != nil {
		return nil, callError("Fork", err)
	}
	defer gen.bin.close()
	return m.fork(forkOrder{gen: gen}, env)
}

// fork starts a worker. The process is made on the caller's goroutine: the
// mailbox does not wait for an exec.
func (m *master) fork(order forkOrder, env []string) (p *Process, err error) {
	m.call(func() { p, err = m.beginFork(order) })
	if err != nil {
		return nil, callError("Fork", err)
	}
	err = m.start(p, env)
	m.call(func() { m.endFork(p, order, err) })
	if err != nil {
		return nil, callError("Fork", err)
	}
	return p, nil
}

// disconnect drains all and waits.
func (m *master) disconnect(ctx context.Context) error {
	var s *stop
	m.call(func() { s = m.beginStop() })
	return m.waitStopped(ctx, s)
}

// writers asks Options.Output for the writers of p, whose fork is under way. A
// Disconnect does not wait for a fork while that is in the application's hands:
// Output may be who called it.
func (m *master) writers(p *Process) (stdout, stderr io.Writer, err error) {
	f := p.child.opts.Output
	if f == nil {
		return nil, nil, nil
	}
	m.call(func() {
		m.forking--
		m.checkStopped()
	})
	stdout, stderr = f(p)
	m.call(func() {
		m.forking++
		if err = m.closed(); err == nil && p.child.slot != nil && p.child.slot.mode == slotGone {
			err = ErrClosed
		}
	})
	return stdout, stderr, err
}

// waitStopped waits for the end of s, and hastens it when ctx ends.
func (m *master) waitStopped(ctx context.Context, s *stop) error {
	var ended error
	select {
	case <-s.done:
	case <-ctx.Done():
		m.call(func() { m.stopNow(s) })
		<-s.done
		ended = ctx.Err()
	}
	if len(s.killed) == 0 {
		return nil
	}
	if ended != nil {
		return ended
	}
	return fmt.Errorf("cluster: workers %s did not drain in time and were killed: %w",
		strings.Trim(fmt.Sprint(s.killed), "[]"), context.DeadlineExceeded)
}

// hurry shortens the drain of all workers.
func (m *master) hurry(timeout time.Duration) {
	m.post(func() {
		for _, p := range m.workers {
			m.drain(p, timeout)
		}
	})
}

func (m *master) disconnectWorker(ctx context.Context, p *Process) error {
	early := false
	m.call(func() {
		switch {
		case m.runs(p):
			m.drainFor(p, ReasonDrain)
		case !p.IsDead():
			early = true // called by Options.Output: the fork waits for it
		}
	})
	if early {
		return fmt.Errorf("cluster: Disconnect: worker %d has not started: %w", p.id, ErrClosed)
	}
	select {
	case <-p.child.exited:
	case <-ctx.Done():
		return ctx.Err()
	}
	if p.child.cutOff {
		return fmt.Errorf("cluster: Disconnect: worker %d did not drain within %v and was killed: %w",
			p.id, p.child.opts.ShutdownTimeout, context.DeadlineExceeded)
	}
	return nil
}

func (m *master) killWorker(p *Process, sigs ...os.Signal) (err error) {
	if len(sigs) == 0 {
		sigs = []os.Signal{os.Kill}
	}
	m.call(func() {
		was := p.voluntary.Load()
		for _, sig := range sigs {
			if !m.runs(p) {
				err = ErrClosed
				return
			}
			// Before the signal: the worker may die of it before this returns.
			if !isProbe(sig) {
				p.voluntary.Store(true)
				p.child.blame(ReasonKill)
			}
			if err = m.kill(p, sig); err != nil {
				p.voluntary.Store(was)
				break
			}
		}
		if errors.Is(err, os.ErrProcessDone) { // exited, and not reported yet
			err = nil
			p.voluntary.Store(true)
		}
	})
	if err != nil {
		return fmt.Errorf("cluster: Kill: worker %d: %w", p.id, err)
	}
	return nil
}

// ---- called in the mailbox

// runs reports whether p is forked, wholly, and not dead.
func (m *master) runs(p *Process) bool { return m.workers[p.id] == p }

// closed says why nothing is forked now, or returns nil.
func (m *master) closed() error {
	switch {
	case m.stop != nil:
		return fmt.Errorf("a Disconnect is under way: %w", ErrClosed)
	case m.ending:
		return fmt.Errorf("Run is about to return: %w", ErrClosed)
	}
	return nil
}

// current returns the options in force.
func (m *master) current() (*Options, error) {
	if m.opts == nil {
		o, err := Options{}.withDefaults()
		if err != nil {
			return nil, err
		}
		m.opts = &o
	}
	return m.opts, nil
}

func (m *master) beginFork(order forkOrder) (*Process, error) {
	if err := m.closed(); err != nil {
		return nil, err
	}
	if m.void(order) {
		return nil, errVoid
	}
	n := -1
	if order.slot != nil {
		n = order.slot.n
	}
	m.forking++
	m.lastID++
	p := newProcess(m.lastID, n)
	p.child = &child{m: m, opts: m.optionsFor(order), gen: order.gen, slot: order.slot, exited: make(chan struct{})}
	p.child.recycle.init(p.child.opts)
	p.connected.Store(true)
	return p, nil
}

// optionsFor are those of the generation, with the number of slots as it is
// now: new workers share the cores with those that there are.
func (m *master) optionsFor(order forkOrder) *Options {
	if order.slot == nil || len(m.slots) == order.gen.opts.Workers {
		return order.gen.opts
	}
	o := *order.gen.opts
	o.Workers = len(m.slots)
	return &o
}

// endFork enters p, whose process exists, or gives up on it. From here on its
// reader and its reaper report what happens to it.
func (m *master) endFork(p *Process, order forkOrder, err error) {
	m.forking--
	defer m.checkStopped()
	c := p.child
	if err != nil {
		p.state.Store(int32(Dead))
		p.connected.Store(false)
		close(c.exited)
		return
	}
	m.forked.Store(true)
	m.workers[p.id] = p
	live.add(p)
	p.emitFork()
	c.startTimer = time.AfterFunc(c.opts.StartTimeout, func() { m.post(func() { m.startExpired(p) }) })
	void := m.void(order)
	if s := c.slot; s != nil && !void {
		if order.replacement != nil {
			order.replacement.next, s.next = p, p
		} else {
			s.cur = p
		}
	}
	m.watchWorker(p)
	m.ageWorker(p)
	if p.link != nil { // nil in tests of the state alone
		go p.link.read()
		go m.reap(p)
	}
	switch {
	case m.stop != nil && m.stop.now:
		m.killForStop(p)
	case m.stop != nil:
		m.drainFor(p, ReasonStop)
	case void:
		p.voluntary.Store(true)
		m.killFor(p, order.voided())
	}
}

// reap waits for p's process, on a goroutine of its own, and reports the death
// after all else that the worker had to say: it may have said it and exited
// before the reader came to it.
func (m *master) reap(p *Process) {
	state, err := waitExit(p.child.proc)
	if err != nil {
		p.report(fmt.Errorf("cluster: wait for worker %d: %w", p.id, err))
	}
	p.child.output.drain()
	p.link.finish()
	<-p.link.done
	m.post(func() { m.exited(p, state) })
}

func (m *master) online(p *Process) {
	if !p.advance(Online) {
		return
	}
	p.child.onlineAt = time.Now()
	p.emitOnline()
	if m.needed(p) == Online {
		p.child.startTimer.Stop()
	}
	m.up(p)
}

func (m *master) ready(p *Process) {
	if !p.advance(Ready) {
		return
	}
	p.child.readyAt = time.Now()
	p.child.startTimer.Stop()
	p.child.stderr.handOver(p)
	m.up(p)
}

// needed is what p has to be within StartTimeout. One that never listens, a
// consumer of a queue, stays online and is as good as ready.
func (m *master) needed(p *Process) State {
	c := p.child
	replacing := m.token != nil && m.token.next == p && c.slot.everReady
	if c.opts.ManualReady || replacing {
		return Ready
	}
	return Online
}

// startExpired kills a worker that has not got so far in time.
func (m *master) startExpired(p *Process) {
	need := m.needed(p)
	if p.State() >= need {
		return
	}
	late := fmt.Errorf("not %v within %v (StartTimeout)", need, p.child.opts.StartTimeout)
	p.report(fmt.Errorf("cluster: worker %d is killed: %w", p.id, late))
	if r := m.token; r != nil && r.next == p {
		m.replacementFailed(r, fmt.Errorf("the new worker of slot %d was %w%s", p.slot, late, p.lastOutput()))
		return
	}
	m.killFor(p, ReasonCrash)
}

// drain tells p to stop, and sees to its end within timeout. A second call can
// only make it shorter.
func (m *master) drain(p *Process, timeout time.Duration) {
	if p.IsDead() {
		return
	}
	p.advance(Draining)
	if m.killAfter(p, timeout) && p.link != nil {
		p.link.orderDisconnect(timeout)
	}
	m.registry.draining(p)
}

// killAfter sees to it that p is dead in timeout. It reports whether that is
// news.
func (m *master) killAfter(p *Process, timeout time.Duration) bool {
	c, by := p.child, time.Now().Add(timeout)
	if c.killTimer != nil {
		if !by.Before(c.killBy) {
			return false
		}
		c.killTimer.Stop()
	}
	c.killBy = by
	c.killTimer = time.AfterFunc(timeout, func() { m.post(func() { m.drainExpired(p) }) })
	return true
}

func (m *master) drainExpired(p *Process) {
	if p.IsDead() || time.Now().Before(p.child.killBy) {
		return
	}
	p.child.overdue = true
	p.logger().Warn("cluster: a worker did not drain in time and is killed", "worker", p.id, "pid", p.pid)
	m.signal(p, os.Kill)
}

// signal sends sig to p. That it has exited already is no error.
func (m *master) signal(p *Process, sig os.Signal) {
	if err := m.kill(p, sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.report(fmt.Errorf("cluster: signal %v to worker %d: %w", sig, p.id, err))
	}
}

func signalProcess(p *Process, sig os.Signal) error { return p.child.proc.Signal(sig) }

// disconnected is told by the reader that the channel has ended.
func (m *master) disconnected(p *Process) {
	p.connected.Store(false)
	p.advance(Disconnected)
	p.emitDisconnect()
	m.registry.detach(p)
	// It takes no orders any more; if it does not end by itself it is ended.
	m.killAfter(p, p.child.opts.ShutdownTimeout)
}

func (m *master) exited(p *Process, state *os.ProcessState) {
	c := p.child
	e := exitOf(state)
	e.Voluntary = p.voluntary.Load()
	e.Uptime = time.Since(c.started)
	c.startTimer.Stop()
	if c.killTimer != nil {
		c.killTimer.Stop()
	}
	c.watch.stop()
	c.recycle.stop()
	wasReady := !c.readyAt.IsZero()
	if e.Reason = c.reason; e.Reason == "" {
		e.Reason = reasonFor(e, wasReady)
	}
	m.exits[e.Reason]++
	p.state.Store(int32(Dead))
	delete(m.workers, p.id)
	// It may have exited by itself while it was being killed.
	c.cutOff = c.overdue && e.Code != 0
	if c.cutOff && m.stop != nil {
		m.stop.killed = append(m.stop.killed, p.id)
	}
	close(c.exited)
	p.emitDeath(e)
	m.death(p, e, wasReady)
	m.checkStopped()
}

func (m *master) beginStop() *stop {
	if m.stop != nil {
		return m.stop
	}
	m.stop = &stop{done: make(chan struct{})}
	s := m.stop
	m.dropSlots(ErrClosed)
	for _, p := range m.workers {
		m.drainFor(p, ReasonStop)
	}
	m.checkStopped()
	return s
}

// stopNow kills what is left of a Disconnect.
func (m *master) stopNow(s *stop) {
	if m.stop != s {
		return
	}
	s.now = true
	for _, p := range m.workers {
		m.killForStop(p)
	}
}

func (m *master) killForStop(p *Process) {
	p.voluntary.Store(true)
	p.advance(Draining)
	p.child.overdue = true
	m.killFor(p, ReasonStop)
}

// checkStopped ends the Disconnect under way when nothing is left.
func (m *master) checkStopped() {
	if m.stop == nil || m.forking > 0 || len(m.workers) > 0 {
		return
	}
	m.registry.closeAll()
	m.forked.Store(false)
	s := m.stop
	m.stop = nil
	slices.Sort(s.killed)
	close(s.done)
}
