package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/link"
	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/signals"
	"github.com/go-cluster/cluster/internal/supervise"
	"github.com/go-cluster/cluster/internal/wire"
)

// host is the master as the supervisor sees it. It carries out the supervisor's orders, and
// passes its reports on to the sockets, the callbacks, the log and the service manager. All
// of that happens in the master's mailbox, in the turn and in the order in which it was
// decided.
type host struct{ *master }

// ---- orders

// Open takes the settings in force and opens the program. For a reload it looks at the
// program's path anew. It does so outside of the mailbox, since files may be slow.
func (h host) Open(number int, reload bool) {
	m := h.master
	m.newest = number
	opts, err := m.current()
	go func() {
		g := &generation{number: number, opts: opts}
		if err == nil {
			err = g.open(reload)
		}
		m.post(func() {
			var s supervise.Settings
			if err == nil {
				m.programs[number] = g
				s = opts.supervision()
			}
			m.supervisor.Opened(time.Now(), number, s, err)
		})
	}()
}

func (h host) Release(number int) {
	g := h.programs[number]
	g.bin.Close()
	g.released = true
	g.letGo()
	delete(h.programs, number)
}

// Start makes a worker's process. It does so outside of the mailbox, which must not wait for
// an exec.
func (h host) Start(o supervise.Order) {
	m, g := h.master, h.programs[o.Generation]
	opts := g.opts
	if o.Workers != opts.Workers {
		opts = opts.withWorkers(o.Workers)
	}
	p := newProcess(m.cluster, o.Worker, o.Place)
	c := &child{m: m, p: p, opts: opts, gen: g, connections: o.Connections, exited: make(chan struct{})}
	p.child, p.owner = c, c
	g.uses++
	if opts.Foreign {
		c.foreign = new(foreign)
	} else {
		p.connected.Store(true)
	}
	m.workers[p.id] = p
	go func() {
		err := startProcess(p, o.Env)
		m.post(func() {
			if err != nil {
				m.supervisor.StartFailed(time.Now(), p.id, err)
			} else {
				m.supervisor.Started(time.Now(), p.id, p.pid, c.started)
				c.foreign.begin(c)
			}
		})
	}()
}

func (h host) Signal(worker int, sig os.Signal) error {
	return h.workers[worker].child.proc.Signal(sig)
}

// pulseRequest is what a ping tells the worker.
type pulseRequest struct {
	Procs int `json:"procs"` // its share of the cores
}

// Ping asks the worker for a heartbeat, if the worker understands that. It also tells the
// worker its share of the cores. That changes with the cores of the master, and a runtime
// that was given a GOMAXPROCS does not follow its cgroup by itself.
func (h host) Ping(worker int) bool {
	c := h.workers[worker].child
	if c.foreign != nil {
		return c.foreign.beats
	}
	var share []byte
	if c.procs > 0 {
		share, _ = json.Marshal(pulseRequest{Procs: c.opts.procs()})
	}
	l := c.p.link
	return l.SpeaksExtra() && l.OrderExtra(wire.ActPing, share...) == nil
}

func (h host) Drain(worker int, timeout time.Duration) {
	p := h.workers[worker]
	if p.child.foreign != nil {
		p.child.foreign.terminate(p)
		return
	}
	p.link.OrderDisconnect(timeout, len(h.stops) > 0)
}

func (h host) HandOver(worker int) {
	h.workers[worker].handOverStderr()
}

func (h host) LastWords(worker int) string { return h.workers[worker].child.proc.LastWords() }
func (h host) Traced(worker int) bool      { return process.Traced(h.workers[worker].pid) }
func (h host) Resident(worker int) int64   { return process.Resident(h.workers[worker].pid) }

// Examine has package admin look at a worker before the worker is ended.
func (h host) Examine(worker int) bool {
	all := h.cluster.hooks.stall.all()
	if len(all) == 0 || h.workers[worker].child.foreign != nil {
		return false
	}
	go func() {
		var looks sync.WaitGroup
		for _, on := range all {
			looks.Go(func() { on.fn(worker) })
		}
		looks.Wait()
		h.post(func() { supervise.Orders{Machine: h.supervisor}.Examined(time.Now(), worker) })
	}()
	return true
}

// ---- reports

// Tell passes on what has happened to a worker, to a call, or to the cluster.
func (h host) Tell(e supervise.Event) {
	switch e := e.(type) {
	case supervise.Changed:
		h.changed(h.workers[e.Worker], State(e.State))
	case supervise.Volunteered:
		h.workers[e.Worker].voluntary.Store(e.Voluntary)
	case supervise.Forked:
		h.hasForked(h.workers[e.Worker])
	case supervise.NotForked:
		h.hasEnded(h.workers[e.Worker])
	case supervise.CameOnline:
		h.workers[e.Worker].child.proc.LetDrain()
		h.workers[e.Worker].emit(noteOnline)
	case supervise.Up:
		h.notifyUp()
	case supervise.Drains:
		h.broker.Leave(e.Worker)
		h.registry.Leave((*member)(h.workers[e.Worker]))
	case supervise.ChannelLost:
		h.broker.Lost(e.Worker)
		h.workers[e.Worker].emit(noteDisconnect)
		h.registry.Forget((*member)(h.workers[e.Worker]))
	case supervise.Outlives:
		go h.workers[e.Worker].child.ended(nil, true)
	case supervise.Died:
		h.hasDied(h.workers[e.Worker], e.Exit)
	case supervise.Answered:
		h.answered(e)
	case supervise.Stopped:
		h.stopped(e)
	case supervise.Retargeted:
		h.setTarget(e.Workers)
		h.registry.Shards.Scaled(e.Workers)
		for _, on := range h.cluster.hooks.scale.all() {
			h.reports.Post(func() { on.fn(e.Workers) })
		}
	case supervise.Silent:
		for _, on := range h.cluster.hooks.silent.all() {
			go on.fn(e.Worker, e.Left)
		}
	case supervise.Reloading:
		h.outdated = h.newest
		h.broker.Reload(h.outdated)
		h.notifyReloading()
		for _, on := range h.cluster.hooks.reloading.all() {
			h.reports.Post(on.fn)
		}
	case supervise.Reloaded:
		h.reloaded(e)
	case supervise.GaveUp:
		h.cluster.logs.Logger(h.programs[e.Generation].opts.logger()).Error("cluster: giving up", "err", e.Err)
		h.runner.fail(e.Err)
	default:
		h.complain(e)
	}
}

// changed shows a worker's new state. If the worker is ready because it listens, OnListening
// comes before the state's own report.
func (h host) changed(p *Process, to State) {
	p.show(to)
	if to != Ready {
		return
	}
	if addr := p.child.listening; addr != nil {
		p.child.listening = nil
		p.emitListening(addr)
	}
	p.emit(noteReady)
	if h.succeeds(p) { // after ReadyFor it listens on all its addresses
		time.AfterFunc(max(0, p.child.opts.ReadyFor), func() { h.post(func() { h.supersede(p) }) })
	}
}

// succeeds reports whether p is a plain Fork's worker and was forked since a reload. A reload
// does not replace such workers; the program itself does.
func (h host) succeeds(p *Process) bool {
	return h.replaced > 0 && p.slot < 0 && p.child.gen.number > h.replaced
}

// supersede ends the addresses on which only workers of plain Forks from before the last
// reload listened, if p is ready and has succeeded such a worker.
func (h host) supersede(p *Process) {
	if h.succeeds(p) && p.State() == Ready {
		h.registry.Outdate(h.replaced, false)
	}
}

// hasForked begins to read a worker's channel, and to wait for its end.
func (h host) hasForked(p *Process) {
	p.child.forked = true
	h.forked.Store(true)
	h.cluster.live.add(p)
	p.emit(noteFork)
	if p.child.foreign == nil {
		h.broker.Join(p.id, p.slot, p.child.gen.number, (*coordPeer)(p))
		p.link.Start(p.pid)
	}
	go p.child.reap()
}

// hasEnded shows a worker as dead.
func (h host) hasEnded(p *Process) {
	p.state.Store(int32(Dead))
	p.connected.Store(false)
	h.gone = append(h.gone, p.id)
	if p.child.forked {
		p.count(&h.past)
	}
	p.child.gen.uses--
	p.child.gen.letGo()
	p.child.tallies.page.Load().Close()
	close(p.child.exited)
}

func (h host) hasDied(p *Process, end supervise.Exit) {
	e := exitOf(p.child.state)
	e.note, e.undead = end.Note, end.Undead
	e.Reason, e.Voluntary, e.Uptime = Reason(end.Reason), end.Voluntary, end.Uptime
	p.child.cutOff = end.CutOff
	h.hasEnded(p)
	h.broker.Dead(p.id)
	if !end.Undead {
		h.registry.Flows.Dead((*member)(p))
	}
	if e.Voluntary && p.slot < 0 { // the program may have replaced it, and its successor is ready already
		for _, other := range h.workers {
			h.supersede(other)
		}
	}
	p.emitDeath(e)
}

// answered tells the caller the outcome of a call.
func (h host) answered(e supervise.Answered) {
	if c := h.calls[e.Call]; c != nil {
		c <- outcome{h.workers[e.Worker], e.Err}
		delete(h.calls, e.Call)
	}
}

// stopped ends a stop: no worker is left that could use a socket.
func (h host) stopped(e supervise.Stopped) {
	h.registry.CloseAll()
	h.forked.Store(false)
	h.broker.Alone()
	h.runner.disconnected()
	for _, call := range e.Calls {
		h.stops[call] <- leftover{e.Killed, e.Undead}
		delete(h.stops, call)
	}
}

// setTarget changes the number of workers in the settings. New workers get their share of
// GOMAXPROCS by it.
func (h host) setTarget(n int) {
	if opts, err := h.current(); err == nil {
		h.opts = opts.withWorkers(n)
	}
}

// reloaded tells how a reload ended.
func (h host) reloaded(e supervise.Reloaded) {
	h.broker.Reload(-1)
	r := ReloadResult{Err: e.Result.Err.Err, Replaced: e.Result.Replaced, Generation: e.Result.Generation, Took: e.Result.Took}
	if r.Err != nil && !errors.Is(r.Err, ErrClosed) {
		if opts, err := h.current(); err == nil {
			h.cluster.logs.Logger(opts.logger()).Error("cluster: the reload was given up", "err", r.Err, "replaced", r.Replaced)
		}
	}
	if r.Err == nil {
		h.replaced = h.outdated
		h.registry.Outdate(h.replaced, r.Replaced > 0)
	}
	for _, on := range h.cluster.hooks.reload.all() {
		h.reports.Post(func() { on.fn(r) })
	}
	if !e.Stopping {
		h.notifyReloaded(r)
	}
}

// complain reports and logs troubles with workers.
func (h host) complain(e supervise.Event) {
	switch e := e.(type) {
	case supervise.Trouble:
		h.workers[e.Worker].report(e.Err)
	case supervise.CheckFailed:
		h.workers[e.Worker].accuse(e.Err)
	case supervise.Stalled:
		p := h.workers[e.Worker]
		p.report(fmt.Errorf("cluster: worker %d (pid %d): %w for %v; it is killed", p.id, p.pid, ErrStalled, e.Timeout))
		p.logger().Error("cluster: a worker does not answer and is killed", "worker", p.id, "pid", p.pid, "timeout", e.Timeout)
	case supervise.Overdue:
		p := h.workers[e.Worker]
		p.logger().Warn("cluster: a worker did not drain in time and is killed", "worker", p.id, "pid", p.pid)
	case supervise.Crashed:
		p := h.workers[e.Worker]
		p.logger().Warn("cluster: a worker died", "worker", p.id, "pid", p.pid, "slot", e.Place, "exit", e.Exit.String())
		if e.Boot && !h.advised && !h.runner.runs() {
			h.advised = true
			p.logger().Warn("cluster: workers die before they are ready, and the master has not come to Run, Serve or ListenAndServe of this package; " +
				"with http.ListenAndServe or net.Listen in main every process wants the address for itself: call cluster.ListenAndServe, or cluster.Listen and Serve")
		}
	case supervise.Resigned:
		p := h.workers[e.Worker]
		p.logger().Warn("cluster: a worker asks not to be replaced", "worker", p.id, "pid", p.pid, "slot", e.Place, "exit", e.Exit.String())
	case supervise.ForkFailed:
		h.cluster.logs.Logger(h.programs[e.Generation].opts.logger()).Warn("cluster: a worker could not be started", "slot", e.Place, "err", e.Err, "retry", e.Retry)
	case supervise.RecyclingFailed:
		p := h.workers[e.Worker]
		p.logger().Warn("cluster: the replacement of a worker that is due failed", "worker", p.id, "slot", e.Place, "err", e.Err, "retry", e.Retry)
	}
}

// ---- what a worker's process is started with

// self is this program, as it was started. It is found here, in the package's
// initialisation, before anything changes the working directory.
var self = process.FindSelf()

// module is the path of this package's module.
const module = "github.com/go-cluster/cluster"

// open opens the program and the sockets of the generation's workers. Files may be slow.
func (g *generation) open(reload bool) (err error) {
	o := g.opts
	if g.bin, err = self.Open(o.program, reload); err != nil {
		return err
	}
	g.isGo = o.program == "" || g.bin.Imports(module)
	g.dir = o.Dir
	if reload && o.Dir == "" {
		g.dir = self.NewDir()
	}
	g.env = os.Environ()
	if g.sockets, err = holdSockets(o); err != nil {
		g.bin.Close()
		return err
	}
	if o.Credential != nil {
		g.userEnv = process.UserEnv(o.Credential.user())
	}
	return nil
}

// startProcess makes p's process, and its channel unless it is foreign.
func startProcess(p *Process, env []string) error {
	c := p.child
	if !c.opts.NoSignals {
		c.m.atTerminal.Do(signals.OutliveTerminalStops)
	}
	if c.foreign != nil {
		return startForeign(p, env)
	}
	ours, theirs, err := channel.Pair()
	if err != nil {
		return err
	}
	p.link = link.New(ours, (*inbox)(p), &fromWorker{m: c.m, p: p}, link.PeerUnknown, link.Options{Name: p.name(), MaxMessage: c.opts.MaxMessage, MaxQueue: c.opts.MaxQueue})
	// The worker's end must not stay open here: else the worker's death would not be an EOF.
	defer theirs.Close()

	end := process.ChannelEnd(theirs)
	env = workerEnv(p, env, process.ChannelNumber(end))
	err = c.launch(process.Spec{
		Args: process.InspectorArgs(c.opts.program, c.opts.Args, env, p.id),
		Env:  env,
		// A program without this package cannot take the master's standard error later,
		// so it inherits that from the start, and there is no tail to keep.
		KeepTail: c.gen.isGo,
		Channel:  end,
	})
	if err != nil {
		p.link.Discard()
	}
	return err
}

// launch completes the spec, which has what differs between kinds of workers, and starts the
// process.
func (c *child) launch(spec process.Spec) (err error) {
	p := c.p
	if spec.Stdout, spec.Stderr, err = c.writers(); err != nil {
		return err
	}
	spec.KeepTail = spec.KeepTail || spec.Stderr != nil
	spec.Tap, spec.TapOwn = c.m.cluster.tapOutput(p), c.gen.isGo
	spec.Program, spec.Title, spec.Dir = c.gen.bin, c.opts.Title, c.gen.dir
	spec.User, spec.Stdin = c.opts.Credential.user(), c.opts.Stdin
	if c.proc, err = c.m.launcher.Start(spec); err != nil {
		if errors.Is(err, process.ErrClosed) {
			return supervise.ErrSuperseded
		}
		return err
	}
	p.pid, c.started = c.proc.PID, c.proc.Started
	if err := c.proc.Unbound; err != nil {
		p.logger().Warn("cluster: a worker is in no job and may outlive the master", "worker", p.id, "pid", p.pid, "err", err)
	}
	if err := c.proc.Muted; err != nil {
		p.logger().Warn("cluster: Options.Output gets nothing of a worker", "worker", p.id, "pid", p.pid, "err", err)
	}
	return nil
}

func (c *Credential) user() *process.User {
	if c == nil {
		return nil
	}
	return &process.User{UID: c.UID, GID: c.GID, Groups: c.Groups}
}

// ---- descriptors that a worker can do without for a while

func duplicateOwn(of int) func() (*handle.Handle, error) {
	return func() (*handle.Handle, error) {
		fd, err := process.DupOwn(of)
		if err != nil {
			return nil, err
		}
		return handle.New(fd), nil
	}
}

// maxGiveWait is between two attempts to give a worker a descriptor, at most.
const maxGiveWait = time.Minute

// give sends the worker a descriptor that it can do without for a while. If none is free
// there, it is sent once more after wait, and then ever later.
func (c *child) give(act string, open func() (*handle.Handle, error), wait time.Duration) {
	h, err := open()
	if err != nil {
		return
	}
	c.p.link.SendHandle(wire.TypeNative, &wire.Message{Act: act}, h, func() {
		time.AfterFunc(wait, func() { c.give(act, open, min(2*wait, maxGiveWait)) })
	})
}
