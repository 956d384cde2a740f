package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/callback"
	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/drain"
	"github.com/go-cluster/cluster/internal/gauge"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/link"
	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/share"
	"github.com/go-cluster/cluster/internal/signals"
	"github.com/go-cluster/cluster/internal/supervise"
	"github.com/go-cluster/cluster/internal/tickets"
	"github.com/go-cluster/cluster/internal/wire"
)

// The variables that make a process a worker. A node primary sets all of them but the first
// and the last.
const (
	envWorkerID      = "NODE_WORKER_ID"
	envUniqueID      = "NODE_UNIQUE_ID"
	envChannelFD     = "NODE_CHANNEL_FD"
	envSerialization = "NODE_CHANNEL_SERIALIZATION_MODE"
	envAnnouncement  = "NODE_GO_CLUSTER"
)

var roleEnv = []string{envWorkerID, envUniqueID, envChannelFD, envSerialization, envAnnouncement}

// announcement is what a Go master tells a Go worker beyond node's protocol. It is JSON in
// one environment variable.
type announcement struct {
	Version         int           `json:"version"`
	Slot            int           `json:"slot"`
	Title           string        `json:"title,omitempty"`
	ManualReady     bool          `json:"manualReady,omitempty"`
	Connections     int           `json:"connections,omitempty"` // after how many, ever, the worker is due for recycling
	MaxConnections  int           `json:"maxConnections,omitempty"`
	Coord           bool          `json:"coord,omitempty"` // the master answers package coord
	Procs           int           `json:"procs,omitempty"` // the worker's share of the cores, or 0 if that is fixed
	ShutdownTimeout time.Duration `json:"shutdownTimeout"` // ns
	MaxMessage      int           `json:"maxMessage"`
	MaxQueue        int           `json:"maxQueue"`
	Tickets         bool          `json:"tickets,omitempty"` // the master has the keys of session tickets
}

// pid is the process ID of this process.
var pid = os.Getpid()

// joinCluster finds the role of this process. In a worker it begins to talk to the master.
// In a process that is no worker, but has a channel to its parent, it begins to talk to the
// parent.
func joinCluster(c *cluster) (worker, parent *Process) {
	env := make(map[string]string)
	for _, k := range roleEnv {
		env[k] = os.Getenv(k)
		// The processes that this one starts are no workers of its master.
		os.Unsetenv(k)
	}
	id := env[envWorkerID]
	if id == "" {
		id = env[envUniqueID]
	}
	if env[envUniqueID] == "" && (id == "") == (env[envAnnouncement] == "") {
		// Not a worker. A master of this package sets all three variables. A node worker
		// leaves the first and the last to the processes that it starts. Such a process has
		// a channel to it if it was started with child_process.fork.
		return nil, newParent(c, env)
	}
	if env[envUniqueID] == "" && env[envChannelFD] == "" {
		return nil, nil
	}
	return startWorker(c, env, id), nil
}

// startWorker makes this process the worker id. If it cannot, c.stranded says why.
func startWorker(c *cluster, env map[string]string, id string) *Process {
	n, err := strconv.Atoi(id)
	if err != nil || n < 1 {
		c.stranded = fmt.Errorf("this process was started as a worker, by %s=%q, which is no worker's number: %w", envUniqueID, id, ErrNotMaster)
		return nil
	}
	ch, err := inheritChannel(env[envChannelFD])
	if err == channel.ErrForeign {
		// Going on would make a master of a worker: a fork bomb.
		fmt.Fprintf(os.Stderr, "cluster: this process is a worker of a node primary: %v on Windows; run primary and workers with this package\n", ErrNotSupported)
		os.Exit(1)
	}
	if err != nil {
		// Going on as a master would be a fork bomb here, too.
		c.stranded = fmt.Errorf("this process was started as worker %d, but has no channel to its master (%v): "+
			"what stands between the two must keep descriptors open, and remove %s from the environment of what is no worker: %w",
			n, err, strings.Join(roleEnv[:3], ", "), ErrNotMaster)
		return nil
	}
	if mode := env[envSerialization]; mode != "" && mode != "json" {
		// Going on would make a master of a worker: a fork bomb.
		fmt.Fprintf(os.Stderr, "cluster: worker %d: the primary uses serialization %q, which this package does not speak; "+
			"use cluster.setupPrimary({serialization: 'json'}), node's default\n", n, mode)
		os.Exit(1)
	}
	return newWorker(c, n, ch, readAnnouncement(env[envAnnouncement]))
}

// inheritChannel takes the channel whose number the variable has.
func inheritChannel(number string) (*channel.Channel, error) {
	fd, err := strconv.Atoi(number)
	if err != nil || fd < 0 {
		return nil, fmt.Errorf("%s is %q", envChannelFD, number)
	}
	return channel.Inherit(fd)
}

// readAnnouncement reads the value of the variable. If that is empty, or not an
// announcement, the master is taken for a node primary.
func readAnnouncement(text string) announcement {
	node := announcement{Slot: -1, ShutdownTimeout: defaultShutdownTimeout, MaxMessage: defaultMaxMessage, MaxQueue: defaultMaxQueue}
	hello := node
	if json.Unmarshal([]byte(text), &hello) != nil ||
		hello.Slot < -1 || hello.MaxConnections < 0 || hello.ShutdownTimeout <= 0 || hello.MaxMessage <= 0 || hello.MaxQueue <= 0 {
		return node
	}
	return hello
}

// parent is the owner of Parent.
type parent struct{ p *Process }

// newParent begins to talk to the parent, if the variables name a channel to it. They may be
// left over from another process; then there is no channel, and newParent returns nil.
func newParent(c *cluster, env map[string]string) *Process {
	if mode := env[envSerialization]; env[envChannelFD] == "" || mode != "" && mode != "json" {
		return nil
	}
	ch, err := inheritChannel(env[envChannelFD])
	if err != nil {
		return nil
	}
	process.OwnPipes()
	p := newProcess(c, 0, -1)
	p.pid, p.apart = os.Getppid(), true
	owner := &parent{p}
	p.owner = owner
	p.connected.Store(true)
	p.advance(Online)
	p.link = link.New(ch, (*inbox)(p), owner, link.PeerNode, link.Options{Name: p.name(), MaxMessage: defaultMaxMessage, MaxQueue: defaultMaxQueue})
	c.live.add(p)
	p.link.Start(0)
	return p
}

// Internal drops what a parent says in node's own words: nothing here needs it.
func (o *parent) Internal(_ *wire.Message, h *handle.Handle) { h.Release() }

func (o *parent) Coord(string, uint64, []byte) {}

func (o *parent) Closed() {
	o.p.connected.Store(false)
	o.p.advance(Disconnected)
	o.p.emit(noteDisconnect)
}

func (o *parent) Overrun() { o.p.link.Close() }

func (o *parent) disconnect(ctx context.Context) error {
	if err := o.p.link.Flush(ctx); err != nil && ctx.Err() != nil {
		return err
	}
	o.p.link.Close()
	select {
	case <-o.p.link.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *parent) kill(...os.Signal) error {
	return callError("Kill", fmt.Errorf("%w: it is the parent of this process", ErrNotSupported))
}

func (o *parent) osProcess() *os.Process { return nil }

func (o *parent) logger() *slog.Logger { return slog.Default() }

func (o *parent) ready() error { return callError("Ready", ErrNotWorker) }

// What a worker does: it talks to its master, and ends when it is told to.

// inside is the half of a Process that only the worker itself has: what it listens on, what
// it tells the master, and how it ends. The drain has what is in flight.
type inside struct {
	p     *Process
	hello announcement
	drain *drain.Drain
	asker *share.Asker
	page  atomic.Pointer[gauge.Writer] // nil before the master has sent it

	checking atomic.Bool // OnCheck functions are being called
	procs    int         // the share of the cores that the master told last; for the goroutine that is checking

	tickets    tickets.Holder
	askTickets sync.Once
	terms      terms
	spares     spares
}

// newWorker begins this process's life as worker id.
func newWorker(c *cluster, id int, ch *channel.Channel, hello announcement) *Process {
	p := newProcess(c, id, hello.Slot)
	p.pid = os.Getpid()
	// This must hold from the start. If the master copies this worker's output and dies,
	// the pipe is broken before this worker sees the end of the channel, and a log line
	// must not end the requests in flight.
	signals.SurviveSIGPIPE()
	process.SetName(cmp.Or(hello.Title, filepath.Base(os.Args[0])))
	in := newInside(p, hello)
	in.drain = drain.New(id, drain.Limits{Ever: hello.Connections, Open: hello.MaxConnections}, in.drainHooks())
	p.inside, p.owner = in, in
	p.connected.Store(true)
	p.advance(Online)
	peer, most := link.PeerNode, 0
	if in.goMaster() {
		peer, most = link.PeerGo, hello.MaxMessage // the master's limit is the same
	} else {
		process.OwnPipes()
	}
	c.coord = in.newCoord()
	p.link = link.New(ch, (*inbox)(p), &fromMaster{in: in}, peer, link.Options{Name: p.name(), MaxMessage: hello.MaxMessage, PeerMax: most, MaxQueue: hello.MaxQueue})
	c.live.add(p)
	in.watchTerm() // before online, since a SIGTERM may follow that
	online := &wire.Message{Act: wire.ActOnline}
	if in.goMaster() {
		b := ownBuild()
		online.Go = &wire.Extension{Version: wire.ProtocolVersion, SaysReady: true, MaxMessage: in.hello.MaxMessage, Gauge: gauge.Supported,
			GoVersion: b.goVersion, ProgramVersion: b.version, Revision: b.revision}
	}
	p.link.Order(online)
	signals.LeaveGroup()
	p.link.Start(0)
	return p
}

// newInside returns an inside that has no drain yet.
func newInside(p *Process, hello announcement) *inside {
	in := &inside{p: p, hello: hello, procs: hello.Procs}
	in.asker = in.newAsker()
	return in
}

// drainHooks returns the functions by which the drain reaches the rest of this worker.
func (in *inside) drainHooks() drain.Hooks {
	p := in.p
	return drain.Hooks{
		Begun:     func() { p.advance(Draining); p.cluster.coord.Drain() },
		Announce:  in.announceDrain,
		Full:      func() { p.link.OrderExtra(wire.ActFull) },
		Filled:    in.asker.Filled,
		Room:      in.asker.HasRoom,
		Accepts:   in.accepts,
		Work:      func() { p.link.Answered(); p.cluster.coord.Idle() },
		Flush:     func(ctx context.Context) { p.link.Flush(ctx) },
		Close:     func() { p.link.Close(); <-p.link.Done() },
		Callbacks: p.events.idle,
		Logger:    p.logger,
		Exit: func(code int) {
			p.cluster.flushLogs(lastWords)
			os.Exit(code)
		},
	}
}

// accepts is called at this worker's first Accept or ReadFrom. What the program does before,
// such as loading a certificate, is part of its start.
func (in *inside) accepts() {
	if !in.hello.ManualReady {
		in.ready()
	}
}

// announceDrain tells the master that this worker drains, if the master does not know yet.
func (in *inside) announceDrain(why drain.Reason) {
	if why == drain.ByOther && in.goMaster() {
		in.p.link.OrderExtra(wire.ActDraining)
	}
	in.asker.Withdraw()
}

// goMaster reports whether the master speaks more than node's protocol.
func (in *inside) goMaster() bool { return in.hello.Version >= wire.ProtocolVersion }

// fromMaster is what a worker does with the master's internal messages.
type fromMaster struct {
	in   *inside
	over sync.Once // overrun
}

func (s *fromMaster) Internal(w *wire.Message, h *handle.Handle) {
	switch w.Act {
	case wire.ActNewConn:
		s.in.asker.Offered(w, h)
		return
	case wire.ActShard:
		s.in.asker.Given(w, h)
		return
	case wire.ActUnshard:
		s.in.asker.Taken(w)
	case wire.ActAgain:
		s.in.asker.Again(w)
	case wire.ActPing:
		s.in.pinged(w.Msg)
	case wire.ActStream:
		s.in.p.cluster.streamed(h)
		return
	case wire.ActStopping:
		s.in.drain.Notice()
	case wire.ActTickets:
		s.in.gotTickets(w.Msg)
	case wire.ActShares:
		s.in.asker.Shares(w)
	case wire.ActGauge:
		s.in.gotGauge(h)
	case wire.ActStderr:
		if h != nil {
			process.ReplaceOwn(2, h.FD())
		}
	case wire.ActSpareOut:
		s.in.spares.keep(1, h)
		return
	case wire.ActSpareErr:
		s.in.spares.keep(2, h)
		return
	case wire.ActDisconnect:
		timeout := s.in.hello.ShutdownTimeout
		if w.Go != nil && w.Go.Timeout > 0 {
			timeout = time.Duration(w.Go.Timeout) * time.Millisecond
		}
		s.in.p.voluntary.Store(true)
		why := drain.ByMaster
		if w.Go != nil && w.Go.Stop {
			why = drain.ByStop
		}
		s.in.drain.Begin(why, timeout)
	}
	h.Release()
}

// Closed is called at the end of the channel. Either this worker has closed it, at the end
// of a drain, or the master is gone, and then this worker ends too.
func (s *fromMaster) Closed() {
	p := s.in.p
	s.in.spares.use()
	p.cluster.coord.Closed()
	p.connected.Store(false)
	p.advance(Disconnected)
	p.emit(noteDisconnect)
	s.in.drain.Begin(drain.ByOrphan, s.in.hello.ShutdownTimeout)
}

func (s *fromMaster) Coord(act string, id uint64, msg []byte) {
	if err := s.in.p.cluster.coord.Receive(act, id, msg); err != nil {
		s.in.p.link.Fault("%w", err)
	}
}

func (s *fromMaster) Overrun() {
	s.over.Do(func() {
		s.in.p.report(fmt.Errorf("cluster: the master asks and does not read the answers; giving up on it: %w", ErrBacklog))
		s.in.p.link.Close()
	})
}

// handshakeTimeout bounds the wait until the master knows that this worker's end is
// voluntary.
const handshakeTimeout = 5 * time.Second

// sayVoluntary tells the master that the end of this worker was asked for, and waits until
// the master knows.
func (in *inside) sayVoluntary(ctx context.Context) {
	in.p.voluntary.Store(true)
	known := make(chan struct{})
	in.p.link.Ask(&wire.Message{Act: wire.ActVoluntary}, func(_ *wire.Message, h *handle.Handle) {
		h.Release()
		close(known)
	})
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	select {
	case <-known:
	case <-ctx.Done():
	}
}

func (in *inside) disconnect(ctx context.Context) error {
	if in.p.IsConnected() {
		in.sayVoluntary(ctx)
	}
	in.drain.Begin(drain.BySelf, in.hello.ShutdownTimeout)
	select {
	case <-in.drain.Closed():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (in *inside) kill(sig ...os.Signal) error {
	for _, s := range sig {
		if err := signals.Deliverable(s); err != nil {
			return callError("Kill", err)
		}
	}
	if in.p.IsConnected() {
		in.sayVoluntary(context.Background())
		ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
		in.p.link.Flush(ctx)
		cancel()
	}
	if len(sig) == 0 {
		os.Exit(0)
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return callError("Kill", err)
	}
	for _, s := range sig {
		if err := self.Signal(s); err != nil {
			return callError("Kill", err)
		}
	}
	return nil
}

func (in *inside) osProcess() *os.Process { return nil }

func (in *inside) logger() *slog.Logger { return slog.Default() }

func (in *inside) ready() error {
	if !in.p.IsConnected() {
		return callError("Ready", ErrClosed)
	}
	in.p.advance(Ready)
	if !in.goMaster() {
		return nil
	}
	return in.p.link.OrderExtra(wire.ActReady)
}

// pinged answers a ping, on a goroutine of its own.
func (in *inside) pinged(asked []byte) {
	if !in.checking.CompareAndSwap(false, true) {
		return // the last checks have not returned
	}
	var r pulseRequest
	json.Unmarshal(asked, &r) // stays 0 if the ping says nothing
	go func() {
		in.followProcs(r.Procs)
		var failed []error
		for _, r := range in.p.cluster.hooks.check.all() {
			if err := callback.Wait(func() error { return r.fn(in.drain.Context()) }); err != nil {
				failed = append(failed, err)
			}
		}
		accepted, active := in.drain.Counts()
		p := supervise.Pulse{Accepted: accepted, Active: int64(active), Goroutines: runtime.NumGoroutine()}
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		p.Memory = int64(mem.Sys - mem.HeapReleased)
		if err := errors.Join(failed...); err != nil {
			p.Error = err.Error()
		}
		msg, _ := json.Marshal(p)
		in.checking.Store(false) // first: the next ping may be here before answer returns
		in.p.link.Answer((&wire.Message{Cmd: wire.CmdExtra, Act: wire.ActPong, Msg: msg}).Line())
	}()
}

// followProcs sets GOMAXPROCS to the share of the cores that the master tells, unless the
// program has set a number of its own.
func (in *inside) followProcs(procs int) {
	if procs > 0 && procs != in.procs && runtime.GOMAXPROCS(0) == in.procs {
		runtime.GOMAXPROCS(procs)
		in.procs = procs
	}
}
