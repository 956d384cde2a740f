package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"

	"github.com/go-cluster/cluster/internal/broker"
	"github.com/go-cluster/cluster/internal/callback"
	"github.com/go-cluster/cluster/internal/gauge"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/link"
	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/share"
	"github.com/go-cluster/cluster/internal/signals"
	"github.com/go-cluster/cluster/internal/supervise"
	"github.com/go-cluster/cluster/internal/systemd"
	"github.com/go-cluster/cluster/internal/tickets"
	"github.com/go-cluster/cluster/internal/upgrade"
	"github.com/go-cluster/cluster/internal/wire"
)

// How a master is replaced in place: the part of the program that comes. See upgrade.go.

// inheritance is what another program of this process has left to this one.
type inheritance struct {
	handover *upgrade.Handover
	state    masterState
	sockets  share.Inherited
	expires  *time.Timer
	trap     chan os.Signal // what comes before Run

	mu      sync.Mutex
	left    map[string]*os.File // of package admin, until all is adopted
	adopted bool
}

// inherit takes what another program has left. It is for package initialisation.
func (c *cluster) inherit() {
	h, err := upgrade.Take()
	if h == nil {
		return
	}
	in := &inheritance{handover: h}
	if err == nil {
		err = json.Unmarshal(h.Body, &in.state)
	}
	if err == nil {
		err = c.broker.Restore(in.state.Broker)
	}
	if err != nil {
		in.giveUp(err)
	}
	if h.Failed != "" {
		process.SetName(h.Name)
	}
	self.Inherit(in.state.Path)
	in.sockets.State = in.state.Registry
	in.left = make(map[string]*os.File)
	for name, fd := range in.state.Left {
		in.left[name] = os.NewFile(uintptr(fd), name)
	}
	in.trap = signals.Trap(in.state.Runs)
	wire.SetSequence(in.state.Sequence)
	c.outlives, c.master.began = in.state.Outlives, in.state.Began
	c.upgrades.came = in
	if in.state.Runs {
		until := time.Now().Add(in.state.StartTimeout)
		c.master.post(func() { c.notifier.inherited(c.master, until) })
	}
	if h.Failed != "" {
		return // nobody is left to go back to: it has the time that it has at any start
	}
	in.expires = time.AfterFunc(in.state.StartTimeout, func() {
		in.mu.Lock()
		if in.adopted {
			in.mu.Unlock()
			return
		}
		why := fmt.Errorf("the new program did not come to AutoFork, Run or Fork within %v (StartTimeout)", in.state.StartTimeout)
		if what := c.broker.Awaited(); what != "" {
			why = fmt.Errorf("%w; it waits for %s, and is not heard before that: ask for it after AutoFork, or on a goroutine", why, what)
		}
		in.giveUp(why)
	})
}

// giveUp goes back to the program before, or ends this process: the workers drain. Foreign
// ones live on if it is done on the main thread; else they are asked to end, and replaced.
func (in *inheritance) giveUp(why error) {
	var err error
	back := func() { err = in.handover.Rollback(why, self.Args, systemd.Descriptors()) }
	if slices.ContainsFunc(in.state.Processes, func(p processState) bool { return p.Foreign != nil }) {
		process.OnMain(threadTime, back)
	} else {
		back()
	}
	fmt.Fprintln(os.Stderr, "cluster: the upgrade failed:", err)
	os.Exit(1)
}

// pending reports whether what was inherited is not adopted yet.
func (u *upgrades) pending() bool {
	m := u.m
	in := m.upgrades.came
	if in == nil {
		return false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return !in.adopted
}

// upgraded is Upgraded.
func (u *upgrades) upgraded(name string, state any) (bool, error) {
	m := u.m
	in := m.upgrades.came
	if in == nil || name == "" {
		return in != nil, nil
	}
	text, ok := in.state.States[name]
	if !ok || state == nil {
		return ok, nil
	}
	if err := json.Unmarshal(text, state); err != nil {
		return true, fmt.Errorf("cluster: Upgraded %q: %w", name, err)
	}
	return true, nil
}

// fileLeft is the file that package admin has left under the name, or nil. A rollback needs
// it again, so it is closed when all is adopted, and not before.
func (u *upgrades) fileLeft(name string) *os.File {
	in := u.m.upgrades.came
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.left[name]
}

// claim returns the socket of the program before for q, or nil if it has to be opened.
func (u *upgrades) claim(q share.Query) (h *handle.Handle, own bool) {
	m := u.m
	in := m.upgrades.came
	if in == nil {
		return nil, false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.adopted {
		return nil, false
	}
	h, _ = in.sockets.Claim(q)
	return h, !in.sockets.Shares(q)
}

// openPlain opens a socket for this process alone, or takes had, which the program before
// an upgrade had: its own, or for workers.
func openPlain[T any](ctx context.Context, k socketKind[T], q share.Query, keepAlive net.KeepAliveConfig, had *handle.Handle, own bool) (opened T, err error) {
	if had == nil {
		return openSoon(ctx, k, q.Address, keepAlive)
	}
	defer had.Release()
	opened, err = k.had(had)
	if u, ok := any(opened).(*net.UnixListener); ok && err == nil {
		u.SetUnlinkOnClose(own)
	}
	return opened, err
}

// adopt goes on where the program before was. It does nothing after a plain start.
func (u *upgrades) adopt() error {
	m := u.m
	if m.upgrades.check != nil {
		m.upgrades.check.Report()
	}
	in := m.upgrades.came
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.adopted {
		return nil
	}
	var opts *settings
	var err error
	m.call(func() { opts, err = m.current() })
	if err != nil {
		return err
	}
	a := &adoption{m: m, opts: opts, state: &in.state, taken: make(handle.Taken), generations: make(map[int]*generation)}
	if err = a.build(); err == nil {
		m.call(func() { err = a.commit() })
	}
	if err != nil {
		in.giveUp(err)
	}
	in.adopted = true
	if in.expires != nil {
		in.expires.Stop()
	}
	in.handover.Done()
	for _, f := range in.left {
		f.Close()
	}
	in.left = nil
	if why := in.handover.Failed; why != "" {
		m.log().Error("cluster: the upgrade failed; the program before goes on", "err", why)
	}
	return nil
}

// adoptPending is adopt for calls that do nothing after a plain start, and so do not end
// the check of an upgrade.
func (u *upgrades) adoptPending() error {
	if !u.pending() {
		return nil
	}
	return u.adopt()
}

// untrap gives what has come since the exec to who acts on it.
func (u *upgrades) untrap(stops, controls chan<- os.Signal) {
	m := u.m
	if m.upgrades.came == nil || m.upgrades.came.trap == nil {
		return
	}
	trap := m.upgrades.came.trap
	m.upgrades.came.trap = nil
	signal.Stop(trap)
	for len(trap) > 0 {
		to := controls
		sig := <-trap
		if slices.Contains(signals.Stop, sig) {
			to = stops
		}
		select {
		case to <- sig:
		default:
		}
	}
}

// followAsked returns how many workers main wants, if that is another number than the last
// main's: what Scale has made holds otherwise.
func (u *upgrades) followAsked() (n int, follows bool) {
	m := u.m
	m.call(func() {
		opts, err := m.current()
		if err != nil {
			return
		}
		was := m.upgrades.came.state.Asked
		n = opts.Workers
		_, keeps := handing(m.supervisor).Keeps()
		if follows = keeps && was != 0 && n != was; !follows && keeps {
			m.opts = opts.withWorkers(m.upgrades.came.state.Workers)
		}
	})
	return n, follows
}

// adoption makes of a state what it was.
type adoption struct {
	m           *master
	opts        *settings
	state       *masterState
	taken       handle.Taken
	supervisor  *supervise.Machine
	known       map[int]supervise.Worker
	generations map[int]*generation
	workers     []*Process
}

// build makes everything that begins nothing. It may take its time: Options.Output is
// asked.
func (a *adoption) build() (err error) {
	if a.supervisor, err = supervise.Restore(host{a.m}, signals.Dump, a.state.Supervisor); err != nil {
		return err
	}
	for _, s := range a.state.Generations {
		g := &generation{number: s.Number, released: s.Released, isGo: s.IsGo, dir: s.Dir, env: s.Env, userEnv: s.UserEnv, opts: s.settings(a.opts)}
		if g.bin, err = process.RestoreProgram(s.Program); err != nil {
			return err
		}
		a.generations[s.Number] = g
	}
	a.known = make(map[int]supervise.Worker)
	for _, w := range handing(a.supervisor).Running() {
		a.known[w.ID] = w
	}
	for _, s := range a.state.Processes {
		p, err := a.process(s)
		if err != nil {
			return fmt.Errorf("worker %d: %w", s.ID, err)
		}
		a.workers = append(a.workers, p)
	}
	a.m.launcher.AwaitThread()
	return nil
}

// process makes a worker.
func (a *adoption) process(s processState) (*Process, error) {
	w, known := a.known[s.ID]
	g := a.generations[s.Generation]
	if !known || g == nil {
		return nil, errors.New("the state does not say what it is")
	}
	p := newProcess(a.m.cluster, s.ID, s.Slot)
	c := &child{
		m: a.m, p: p, opts: g.opts.withWorkers(a.state.Workers), gen: g, connections: s.Connections, procs: s.Procs, started: w.Started, exited: make(chan struct{}),
		forked: true, listened: s.Listened, tickets: s.Tickets, saysReady: s.SaysReady, built: build{s.GoVersion, s.Version, s.Revision},
	}
	p.child, p.owner, p.pid = c, c, w.PID
	p.state.Store(int32(w.State))
	p.voluntary.Store(w.Voluntary)
	p.connected.Store(s.Foreign == nil && w.State < supervise.Disconnected)
	c.handed.Store(s.Handed)
	c.tallies.open.Store(s.Open)
	g.uses++
	if s.Gauge >= 0 {
		page, err := gauge.Adopt(s.Gauge)
		if err != nil {
			return nil, err
		}
		c.tallies.page.Store(page)
	}
	var err error
	if c.foreign, err = s.Foreign.restore(); err != nil {
		return nil, err
	}
	o := link.Options{Name: p.name(), MaxMessage: c.opts.MaxMessage, MaxQueue: c.opts.MaxQueue}
	if s.Link != nil {
		p.link, err = link.Restore(*s.Link, a.taken, (*inbox)(p), &fromWorker{m: a.m, p: p}, o)
	} else {
		p.link, err = link.NewClosed((*inbox)(p), &fromWorker{m: a.m, p: p}, o)
	}
	if err != nil {
		return nil, err
	}
	for _, text := range s.Asks {
		if ask, err := wire.Parse(text); err == nil {
			c.asks = append(c.asks, &ask)
		}
	}
	stdout, stderr := a.writers(p, len(s.Output.Pipes) > 0)
	if c.proc, err = a.m.launcher.Adopt(p.pid, c.started, s.Output, stdout, stderr, a.m.cluster.tapOutput(p)); err != nil {
		return nil, err
	}
	if c.foreign != nil {
		c.proc.AdoptForeign()
	}
	p.events.restore(s, a.taken)
	return p, nil
}

// commit begins everything. It is called in the mailbox.
func (a *adoption) commit() error {
	m, s := a.m, a.state
	m.supervisor = a.supervisor
	handing(m.supervisor).Resettle(a.opts.supervision())
	m.lastCall, m.newest, m.outdated, m.replaced, m.advised = s.LastCall, s.Newest, s.Outdated, s.Replaced, s.Advised
	for number, g := range a.generations {
		if !g.released {
			m.programs[number] = g
		}
	}
	m.broker.Configure(a.opts.coord())
	members, peers := make(map[int]share.Member), make(map[int]broker.Peer)
	for _, p := range a.workers {
		m.workers[p.id] = p
		members[p.id] = (*member)(p)
		if p.connected.Load() {
			peers[p.id] = (*coordPeer)(p)
		}
	}
	m.broker.Adopt(peers)
	if s.Tickets != nil {
		maker, err := tickets.Restore(*s.Tickets, func() { m.post(func() { m.tickets.spread(m.workers) }) })
		if err != nil {
			return err
		}
		m.tickets.maker = maker
	}
	if err := share.Restore(m.registry, s.Registry, a.taken, func(id int) share.Member { return members[id] }); err != nil {
		return err
	}
	if err := a.holdSockets(); err != nil {
		return err
	}
	m.forked.Store(true)
	for _, p := range a.workers {
		p.events.release()
		m.cluster.live.add(p)
		select {
		case <-p.link.Done(): // it had closed before
		default:
			link.Launch(p.link, p.pid)
		}
		p.child.proc.Begin()
		p.child.foreign.listen(p.child)
		p.child.askAgain()
		p.link.RetryRequests() // that have waited for this
		go p.child.reap()
	}
	go process.ReapLeft(s.Children, m.waited)
	a.goOn()
	return nil
}

// holdSockets holds again what the foreign workers of each generation get.
func (a *adoption) holdSockets() error {
	for _, s := range a.state.Generations {
		g := a.generations[s.Number]
		for _, q := range s.Held {
			held, err := share.HoldAgain(a.m.registry, q)
			if err != nil {
				return err
			}
			g.sockets = append(g.sockets, passed{held, q})
		}
	}
	return nil
}

// goOn tells that all is adopted, and begins what was asked for meanwhile.
func (a *adoption) goOn() {
	m, s := a.m, a.state
	m.supervisor.Advance(time.Now())
	if why := m.upgrades.came.handover.Failed; why != "" {
		m.upgrades.tell(fmt.Errorf("cluster: Upgrade: the new program was rolled back: %s", why))
	} else {
		m.upgrades.tell(nil)
	}
	if s.Reload {
		m.supervisor.Reload(time.Now(), 0)
	}
	for range max(s.Steps, -s.Steps) {
		step := s.Steps / max(s.Steps, -s.Steps)
		m.supervisor.ScaleBy(time.Now(), 0, step)
	}
}

// writers asks Options.Output again for a worker whose output comes through pipes.
func (a *adoption) writers(p *Process, pipes bool) (stdout, stderr io.Writer) {
	if a.opts.Output == nil || !pipes {
		return nil, nil
	}
	callback.Wait(func() error { stdout, stderr = a.opts.Output(p); return nil })
	return stdout, stderr
}
