package cluster

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/go-cluster/cluster/internal/callback"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/link"
	"github.com/go-cluster/cluster/internal/parcel"
	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/share"
	"github.com/go-cluster/cluster/internal/supervise"
	"github.com/go-cluster/cluster/internal/tickets"
	"github.com/go-cluster/cluster/internal/wire"
)

// How a master is replaced in place: what goes over, as data. See upgrade.go.

// masterState is the state. Members that this program does not know are ignored.
type masterState struct {
	Path         string // of the program
	StartTimeout time.Duration
	Runs         bool // a Run was under way
	Outlives     bool
	Advised      bool
	Began        time.Time

	Supervisor                 json.RawMessage
	LastCall, Newest, Outdated int
	Replaced                   int
	Asked, Workers             int // workers that main asked for, and that there are to be
	Generations                []generationState
	Processes                  []processState
	Registry                   share.State
	Broker                     json.RawMessage
	Tickets                    *tickets.State
	Sequence                   int64
	States                     map[string]json.RawMessage // of the application
	Left                       map[string]int             // descriptors of package admin's files

	Children []int // that are not workers, which nobody waits for any more

	Reload bool // asked for and not begun
	Steps  int  // by which signals have asked to scale
}

// generationState is a generation: what a process of it is started with.
type generationState struct {
	Number   int
	Released bool
	Program  process.ProgramState
	IsGo     bool
	Dir      string
	Env      []string
	UserEnv  []string

	Exec, File           string
	Args, Own            []string
	WorkDir, Title       string
	Credential           *Credential
	MaxProcs, Workers    int
	MemoryLimit          int64
	Shares, Divides      bool
	ManualReady          bool
	Foreign              bool
	ReadyAfter           time.Duration
	Sockets              []Socket
	Held                 []share.Query // those that are open, in this order
	MaxConnections       int
	MaxMessage, MaxQueue int
	ShutdownTimeout      time.Duration
}

// processState is a worker, beside what the supervisor knows.
type processState struct {
	ID, Slot, Generation int
	Connections, Procs   int
	Listened             bool
	Listening            *share.Addr
	GoVersion, Version   string
	Revision             string
	Tickets, SaysReady   bool
	Handed, Open         int64
	Gauge                int         // descriptor, or -1
	Link                 *link.State // nil if it has closed
	Output               process.OutputState
	Foreign              *foreignState // nil if it has this package, or node's
	Asks                 []json.RawMessage
	Waiting, Events      []eventState
}

// eventState is something to report.
type eventState struct {
	Kind noteKind `json:",omitempty"`
	Addr *share.Addr
	Err  supervise.Failure
	Exit *exitState
	Msgs [][]byte
	FD   int // that came with the one message, or -1
	Size int
}

// exitState is an Exit without what only the program had that took the status.
type exitState struct {
	Code      int
	Signal    int // 0: none
	Reason    Reason
	Voluntary bool
	Uptime    time.Duration
	Note      string
	Undead    bool
}

// state is all of it, in the turn that ends this program.
func (u *upgrades) state(app map[string]json.RawMessage) (*masterState, error) {
	m := u.m
	opts, err := m.current()
	if err != nil {
		return nil, err
	}
	s := &masterState{
		Path: self.Path(), StartTimeout: opts.StartTimeout, Runs: m.runner.runs(), Outlives: m.outlives, Advised: m.advised, Began: m.began,
		LastCall: m.lastCall, Newest: m.newest, Outdated: m.outdated, Replaced: m.replaced, Asked: m.upgrades.asked, Workers: opts.Workers,
		Sequence: wire.Sequence(), States: app,
	}
	if s.Supervisor, err = json.Marshal(m.supervisor); err != nil {
		return nil, err
	}
	if s.Broker, err = m.broker.State(); err != nil {
		return nil, err
	}
	s.Registry = share.StateOf(m.registry, func(w share.Member) int { return w.(*member).id })
	if m.tickets.maker != nil {
		keys := m.tickets.maker.State()
		s.Tickets = &keys
	}
	again := share.Repeated(m.registry)
	all := make(map[*generation]bool)
	for _, g := range m.programs {
		all[g] = true
	}
	for _, p := range m.workers {
		all[p.child.gen] = true
		s.Processes = append(s.Processes, p.handOver(again))
	}
	for g := range all {
		gs, err := g.handOver()
		if err != nil {
			return nil, err
		}
		s.Generations = append(s.Generations, gs)
	}
	return s, nil
}

// descriptors are all that the state names.
func (s *masterState) descriptors() (fds []int) {
	fds = s.Registry.Descriptors()
	for _, g := range s.Generations {
		fds = append(fds, g.Program.FD)
	}
	for _, p := range s.Processes {
		fds = append(fds, p.Gauge)
		if p.Foreign != nil {
			fds = append(fds, p.Foreign.Inbox.FD)
		}
		if p.Link != nil {
			fds = append(append(fds, p.Link.FD), p.Link.Descriptors()...)
		}
		for _, pipe := range p.Output.Pipes {
			fds = append(fds, pipe.FD)
		}
		for _, e := range slices.Concat(p.Waiting, p.Events) {
			fds = append(fds, e.FD)
		}
	}
	for _, fd := range s.Left {
		fds = append(fds, fd)
	}
	fds = slices.DeleteFunc(fds, func(fd int) bool { return fd < 0 })
	slices.Sort(fds)
	return slices.Compact(fds)
}

func (g *generation) handOver() (s generationState, err error) {
	o := g.opts
	s = generationState{
		Number: g.number, Released: g.released, IsGo: g.isGo, Dir: g.dir, Env: g.env, UserEnv: g.userEnv,
		Exec: o.Exec, File: o.program, Args: o.Args, Own: o.Env, WorkDir: o.Dir, Title: o.Title, Credential: o.Credential,
		MaxProcs: o.MaxProcs, Workers: o.Workers, MemoryLimit: o.MemoryLimit, Shares: o.shares, Divides: o.divides, ManualReady: o.ManualReady,
		Foreign: o.Foreign, ReadyAfter: o.ReadyAfter, Sockets: o.Sockets,
		MaxConnections: o.MaxConnections, MaxMessage: o.MaxMessage, MaxQueue: o.MaxQueue, ShutdownTimeout: o.ShutdownTimeout,
	}
	for _, held := range g.sockets {
		s.Held = append(s.Held, held.query)
	}
	s.Program.FD = -1
	if !g.released {
		s.Program, err = g.bin.State()
	}
	return s, err
}

// settings are opts, but for what a process is started with.
func (s *generationState) settings(opts *settings) *settings {
	o := *opts
	o.Exec, o.program, o.Args, o.Env, o.Dir, o.Title, o.Credential = s.Exec, s.File, s.Args, s.Own, s.WorkDir, s.Title, s.Credential
	o.MaxProcs, o.Workers, o.MemoryLimit, o.shares, o.divides, o.ManualReady = s.MaxProcs, s.Workers, s.MemoryLimit, s.Shares, s.Divides, s.ManualReady
	o.Foreign, o.ReadyAfter, o.Sockets = s.Foreign, s.ReadyAfter, s.Sockets
	o.MaxConnections, o.MaxMessage, o.MaxQueue, o.ShutdownTimeout = s.MaxConnections, s.MaxMessage, s.MaxQueue, s.ShutdownTimeout
	return &o
}

func (p *Process) handOver(again map[int64]bool) processState {
	c := p.child
	s := processState{
		ID: p.id, Slot: p.slot, Generation: c.gen.number, Connections: c.connections, Procs: c.procs, Listened: c.listened,
		GoVersion: c.built.goVersion, Version: c.built.version, Revision: c.built.revision,
		Tickets: c.tickets, SaysReady: c.saysReady, Handed: c.handed.Load(), Open: c.tallies.open.Load() + c.tallies.since.Load(),
		Gauge: -1, Output: c.proc.Output(), Foreign: c.foreign.handOver(),
	}
	if fd, ok := c.tallies.page.Load().Descriptor(); ok {
		s.Gauge = fd
	}
	select {
	case <-p.link.Done():
	default:
		state := link.StateOf(p.link, again)
		s.Link = &state
	}
	for _, w := range c.asks {
		if text, err := json.Marshal(w); err == nil {
			s.Asks = append(s.Asks, text)
		}
	}
	s.Waiting, s.Events = p.events.state()
	return s
}

// ---- what is to be reported

// note is something to report, as data.
type note struct {
	kind noteKind
	addr net.Addr // of one that listens
	err  error    // of one that goes wrong
	exit *Exit    // of a death
}

type noteKind string

const (
	noteAdopted    noteKind = "adopted"
	noteFork       noteKind = "fork"
	noteOnline     noteKind = "online"
	noteReady      noteKind = "ready"
	noteListening  noteKind = "listening"
	noteDisconnect noteKind = "disconnect"
	noteError      noteKind = "error"
	noteDeath      noteKind = "death"
)

// tellNote tells the callbacks. It is a part of the event that is being delivered.
func (e *events) tellNote(n note) {
	p, hooks := e.p, &e.p.cluster.hooks
	tell := func(fn func(*Process)) { fn(p) }
	switch n.kind {
	case noteAdopted:
		eachOf(e, &hooks.adopt, tell)
	case noteFork:
		eachOf(e, &hooks.fork, tell)
	case noteOnline:
		eachOf(e, &p.onOnline, tell)
		eachOf(e, &hooks.online, tell)
	case noteReady:
		eachOf(e, &p.onReady, tell)
		eachOf(e, &hooks.ready, tell)
	case noteListening:
		tell := func(fn func(*Process, net.Addr)) { fn(p, n.addr) }
		eachOf(e, &p.onListening, tell)
		eachOf(e, &hooks.listening, tell)
	case noteDisconnect:
		eachOf(e, &p.onDisconnect, tell)
		if !p.apart {
			eachOf(e, &hooks.disconnect, tell)
		}
	case noteError:
		e.error(n.err)
	case noteDeath:
		e.tellDeath(*n.exit)
	}
}

func (e *events) tellDeath(end Exit) {
	p := e.p
	if n := p.link.DropRequests(); n > 0 {
		e.error(fmt.Errorf("cluster: worker %d is gone: %d of its requests were dropped: %w", p.id, n, errNoHandler))
	}
	e.dropWaiting()
	tell := func(fn func(*Process, Exit)) { fn(p, end) }
	eachOf(e, &p.onExit, tell)
	eachOf(e, &p.cluster.hooks.death, tell)
	e.call(func() { p.cluster.live.remove(p) })
}

// hold lets nothing new be reported.
func (e *events) hold() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.held.Store(true)
}

// rest ends the goroutine if events are held.
func (e *events) rest() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.held.Load() {
		return false
	}
	if e.at < len(e.batch) {
		e.batch[e.at].keep()
	}
	close(e.busy)
	e.busy = nil
	return true
}

// rests reports whether nothing is being reported.
func (e *events) rests() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.busy == nil
}

// release ends the hold.
func (e *events) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.held.Store(false)
	if len(e.queue) > 0 || e.at < len(e.batch) {
		e.begin()
	}
}

// state is what is to be reported, while it is held: the messages that nothing takes, and
// what follows. Calls are this program's own.
func (e *events) state() (waiting, follows []eventState) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range e.waiting.list {
		waiting = append(waiting, eventState{Msgs: [][]byte{m.raw}, FD: m.parcel.Descriptor(), Size: m.cost()})
	}
	for _, ev := range slices.Concat(e.batch[e.at:], e.queue) {
		n := ev.note
		s := eventState{Kind: n.kind, Err: supervise.Failure{Err: n.err}, Msgs: ev.msgs[ev.next:], FD: ev.parcel.Descriptor(), Size: ev.size}
		for _, m := range ev.msgs[:ev.next] {
			s.Size -= Message{m, ev.parcel}.cost() // a part of it is told
		}
		s.Size = max(0, s.Size)
		if n.addr != nil {
			addr := share.AddrOf(n.addr)
			s.Addr = &addr
		}
		if x := n.exit; x != nil {
			sig, _ := x.Signal.(syscall.Signal)
			s.Exit = &exitState{x.Code, int(sig), x.Reason, x.Voluntary, x.Uptime, x.note, x.undead}
		}
		if n.kind != "" || len(s.Msgs) > 0 {
			follows = append(follows, s)
		}
	}
	return waiting, follows
}

// restore is held, and has to report that the worker was adopted, and what follows.
func (e *events) restore(s processState, taken handle.Taken) {
	e.held.Store(true)
	parcelOf := func(fd int) *parcel.Parcel {
		if fd < 0 {
			return nil
		}
		return parcel.New(taken.Take(fd))
	}
	for _, w := range s.Waiting {
		e.waiting.list = append(e.waiting.list, Message{w.Msgs[0], parcelOf(w.FD)})
		e.p.link.Charge(w.Size)
	}
	e.p.link.SetWaiting(len(e.waiting.list))
	e.queue = append(e.queue, event{note: note{kind: noteAdopted}})
	for _, w := range s.Events {
		ev := event{note: note{kind: w.Kind, err: w.Err.Err}, msgs: w.Msgs, parcel: parcelOf(w.FD), size: w.Size}
		if w.Addr != nil {
			ev.note.addr, _ = w.Addr.Net()
		}
		if x := w.Exit; x != nil {
			ev.note.exit = &Exit{Code: x.Code, Reason: x.Reason, Voluntary: x.Voluntary, Uptime: x.Uptime, note: x.Note, undead: x.Undead}
			if x.Signal != 0 {
				ev.note.exit.Signal = syscall.Signal(x.Signal)
			}
		}
		e.p.link.Charge(w.Size)
		e.queue = append(e.queue, ev)
	}
}

// handing is what the supervisor has for another program.
func handing(m *supervise.Machine) supervise.Handover { return supervise.Handover{Machine: m} }

// stateSaver is one OnUpgrade.
type stateSaver struct {
	name string
	fn   func() (any, error)
}

// save asks the application for what it hands over.
func (q *quiet) save([]*Process) error {
	q.states = make(map[string]json.RawMessage)
	for _, r := range q.m.cluster.hooks.upgrade.all() {
		err := q.within(fmt.Sprintf("OnUpgrade %q", r.fn.name), func() error {
			state, err := r.fn.fn()
			if err != nil {
				return err
			}
			q.states[r.fn.name], err = json.Marshal(state)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// within calls fn, which may hang: then it is named, and what it does is not waited for.
func (q *quiet) within(name string, fn func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- callback.Wait(fn) }()
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	case <-q.ctx.Done():
		return q.busy("%s", name)
	}
}

// leaver is one OnLeaving of package admin.
type leaver struct {
	name string
	fn   func() (*os.File, error)
}

// leave asks package admin for the files that it leaves to the program that comes.
func (q *quiet) leave([]*Process) error {
	q.left = make(map[string]int)
	for _, r := range q.m.cluster.hooks.leaving.all() {
		got := make(chan *os.File, 1)
		err := q.within("package admin", func() error {
			f, err := r.fn.fn()
			got <- f
			return err
		})
		if err != nil {
			return err
		}
		f := <-got
		if f == nil {
			continue
		}
		q.undo = append(q.undo, func() { f.Close() })
		raw, err := f.SyscallConn() // Fd would make it blocking, for whoever has it besides
		if err == nil {
			err = raw.Control(func(fd uintptr) { q.left[r.fn.name] = int(fd) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}
