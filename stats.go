package cluster

import (
	"cmp"
	"encoding/json"
	"math"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/coordinate"
	"github.com/go-cluster/cluster/internal/drain"
	"github.com/go-cluster/cluster/internal/gauge"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/operator"
	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/share"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/supervise"
	"github.com/go-cluster/cluster/internal/systemd"
	"github.com/go-cluster/cluster/internal/wire"
)

// Snapshot is what the master knows of its cluster at one moment. In JSON,
// durations are seconds.
type Snapshot struct {
	PID        int             `json:"pid"` // of the master
	Uptime     Seconds         `json:"uptime"`
	Generation int             `json:"generation"` // the last one that reached every slot
	Target     int             `json:"target"`     // how many slots there are
	Workers    []WorkerStats   `json:"workers"`    // by slot, then by id
	Listeners  []ListenerStats `json:"listeners"`  // by network and address
	Exits      map[Reason]int  `json:"exits"`      // how many workers have ended for each reason, since the start
	Reload     ReloadStats     `json:"reload"`
	Coord      CoordStats      `json:"coord"`
}

// CoordStats is the state of package coord. A worker is named by its id. 0 is the master,
// and -1 is nobody.
type CoordStats struct {
	Leads    []LeadStats  `json:"leads"`
	Locks    []LockStats  `json:"locks"`
	Onces    []LockStats  `json:"onces"`
	Stores   []StoreStats `json:"stores"`
	Topics   []TopicStats `json:"topics"`
	Bytes    int          `json:"bytes"`     // of all stores
	MaxStore int          `json:"max_store"` // how many bytes there is room for
	Missed   int64        `json:"missed"`    // messages of topics that a subscriber has missed, since the start
	Limiters int          `json:"limiters"`
	Limited  int          `json:"limited"` // keys of limiters that have used some of their burst
}

// LeadStats is one name of coord.Lead.
type LeadStats struct {
	Name       string `json:"name"`
	Worker     int    `json:"worker"`     // the one that leads
	Candidates int    `json:"candidates"` // the leader is one of them
	Failures   int    `json:"failures"`   // in a row
	Done       bool   `json:"done"`       // nobody runs it again
}

// LockStats is one lock, or one name of coord.Once.
type LockStats struct {
	Name    string `json:"name"`
	Worker  int    `json:"worker"` // the one that holds the lock, or runs the function
	Waiters int    `json:"waiters"`
	Done    bool   `json:"done,omitempty"` // of coord.Once: it has succeeded
}

// StoreStats is one coord.Store that is not empty.
type StoreStats struct {
	Name  string `json:"name"`
	Keys  int    `json:"keys"`
	Bytes int    `json:"bytes"`
}

// TopicStats is one topic that has a subscriber.
type TopicStats struct {
	Name      string `json:"name"`
	Processes int    `json:"processes"` // how many have a subscriber
	Published int64  `json:"published"`
	Missed    int64  `json:"missed"` // copies that found no room on their way to a subscriber
}

// WorkerStats is one worker, or one slot that has no worker. Of such a slot only Slot, State,
// Generation, Restarts and LastExit are set.
type WorkerStats struct {
	Slot         int     `json:"slot"` // -1 for a plain Fork
	ID           int     `json:"id"`   // 0 if the slot has no worker
	PID          int     `json:"pid"`
	State        string  `json:"state"` // of a slot without a worker: "empty", "off" or "out"
	Generation   int     `json:"generation"`
	Started      int64   `json:"started"`     // Unix time
	ReadyAfter   Seconds `json:"ready_after"` // from the fork; 0 if the worker is not ready
	Restarts     int     `json:"restarts"`    // of the slot
	LastExit     string  `json:"last_exit"`   // of the slot's last worker that has ended; not of a replacement that failed
	Accepted     int64   `json:"accepted"`    // connections, ever; on Windows up to the last heartbeat
	Active       int64   `json:"active"`      // connections that are open; on Windows at the last heartbeat
	MessagesIn   int64   `json:"messages_in"` // from the worker
	MessagesOut  int64   `json:"messages_out"`
	Queue        int     `json:"queue"` // bytes that wait to be written to the worker
	HeartbeatAge Seconds `json:"heartbeat_age"`
	Check        string  `json:"check,omitempty"`  // the error of the checks (OnCheck) in the last heartbeat
	Status       string  `json:"status,omitempty"` // what a Foreign worker last said of itself
	RSS          int64   `json:"rss"`              // memory, in bytes
	CPU          Seconds `json:"cpu"`              // CPU time used in all

	// Name is what orders and logs of package admin call the worker. For the current worker
	// of a slot it is the slot's number. Otherwise it is "id" and the worker's id: for a
	// plain Fork, a replacement that is not up, and a worker that drains because its
	// replacement is up.
	Name       string `json:"name"`
	Goroutines int    `json:"goroutines"` // as of the last heartbeat; 0 for node

	// What the worker says of its build; "" if it does not know.
	GoVersion string `json:"go_version"`
	Version   string `json:"version"`  // of the main module, as "v1.2.3" or "(devel)"
	Revision  string `json:"revision"` // of the version control; with "+dirty" if files had changed
}

// ListenerStats is one shared address.
type ListenerStats struct {
	Network    string `json:"network"`
	Address    string `json:"address"`
	Scheduling string `json:"scheduling"`         // the one in force: "Shared", "RoundRobin" and so on
	Backlog    int    `json:"backlog"`            // connections that wait to be accepted; TCP on Linux
	Limit      int    `json:"limit"`              // how many connections may wait
	Sockets    int    `json:"sockets,omitempty"`  // of Sharded and ByClient: how many sockets the address has
	Fallback   string `json:"fallback,omitempty"` // why the scheduling is not the one that was asked for; "" if it is
}

// ReloadStats is the reload under way, or the last one.
type ReloadStats struct {
	Running  bool    `json:"running"`
	Replaced int     `json:"replaced"`
	Took     Seconds `json:"took"`
	Error    string  `json:"error,omitempty"`
}

// Seconds is a duration that is a number of seconds in JSON.
type Seconds time.Duration

// MarshalJSON encodes seconds, with fractions.
func (s Seconds) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(s).Seconds()) }

// UnmarshalJSON decodes seconds, with fractions.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	*s = Seconds(math.Round(f * float64(time.Second)))
	return nil
}

// Stats returns the state of the cluster. Any goroutine may call it at any time. It is cheap:
// most of its cost is a look into /proc for each worker. In a worker the Snapshot is empty.
func Stats() Snapshot {
	if IsWorker() {
		return Snapshot{}
	}
	return std.stats()
}

func (m *master) stats() Snapshot {
	var s Snapshot
	m.call(func() { s = m.snapshot() })
	for i := range s.Workers {
		if w := &s.Workers[i]; w.PID > 0 {
			w.RSS, w.CPU = process.Resident(w.PID), Seconds(process.CPU(w.PID))
		}
	}
	s.Coord = coordStats(m.broker.Stats())
	return s
}

func coordStats(b coordinate.Stats) CoordStats {
	return CoordStats{
		Leads:  each(b.Leads, func(l coordinate.LeadStats) LeadStats { return LeadStats(l) }),
		Locks:  each(b.Locks, func(l coordinate.LockStats) LockStats { return LockStats(l) }),
		Onces:  each(b.Onces, func(l coordinate.LockStats) LockStats { return LockStats(l) }),
		Stores: each(b.Stores, func(l coordinate.StoreStats) StoreStats { return StoreStats(l) }),
		Topics: each(b.Topics, func(l coordinate.TopicStats) TopicStats { return TopicStats(l) }),
		Bytes:  b.Bytes, MaxStore: b.Max, Missed: b.Missed, Limiters: b.Limiters, Limited: b.Buckets,
	}
}

func each[A, B any](all []A, fn func(A) B) []B {
	made := make([]B, 0, len(all))
	for _, a := range all {
		made = append(made, fn(a))
	}
	return made
}

// snapshot is stats without what has to be asked of the system. It is called in the mailbox.
func (m *master) snapshot() Snapshot {
	now := time.Now()
	known, listening := m.supervisor.Snapshot(now), m.registry.Listening()
	s := Snapshot{
		PID: pid, Uptime: Seconds(now.Sub(m.began)), Generation: known.Generation, Target: known.Target,
		Workers:   make([]WorkerStats, 0, len(known.Workers)+len(known.Empty)),
		Listeners: make([]ListenerStats, 0, len(listening)),
		Exits:     make(map[Reason]int, len(known.Exits)),
		Reload:    ReloadStats{Running: known.Reloading, Replaced: known.Reload.Replaced, Took: Seconds(known.Reload.Took)},
	}
	for why, n := range known.Exits {
		s.Exits[Reason(why)] = n
	}
	if err := known.Reload.Err.Err; err != nil {
		s.Reload.Error = err.Error()
	}
	for _, w := range known.Workers {
		s.Workers = append(s.Workers, m.workers[w.Worker.ID].stats(w, now))
	}
	for _, e := range known.Empty {
		s.Workers = append(s.Workers, WorkerStats{Slot: e.Place, State: e.Mode, Generation: e.Number, Restarts: e.Restarts, LastExit: e.LastExit})
	}
	slices.SortFunc(s.Workers, func(a, b WorkerStats) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.ID, b.ID))
	})
	for _, l := range listening {
		s.Listeners = append(s.Listeners, ListenerStats{Network: l.Network, Address: l.Address, Scheduling: Scheduling(l.Policy).String(), Backlog: l.Backlog, Limit: l.Limit, Sockets: l.Sockets, Fallback: l.Lack})
	}
	slices.SortFunc(s.Listeners, func(a, b ListenerStats) int {
		return cmp.Compare(a.Network+a.Address, b.Network+b.Address)
	})
	return s
}

// stats puts together what the supervisor, the link and the worker's heartbeat say of p.
func (p *Process) stats(w supervise.WorkerInfo, now time.Time) WorkerStats {
	watch := &w.Worker.Watch
	s := WorkerStats{
		Slot: p.slot, ID: p.id, PID: p.pid, State: p.State().String(), Generation: w.Slot.Number, Started: w.Worker.Started.Unix(),
		Restarts: w.Slot.Restarts, LastExit: w.Slot.LastExit,
		HeartbeatAge: Seconds(now.Sub(watch.Beat)), Check: watch.Pulse.Error,
		Queue: p.link.Queued(), Goroutines: watch.Pulse.Goroutines,
		Name: "id" + strconv.Itoa(p.id), GoVersion: p.child.built.goVersion, Version: p.child.built.version, Revision: p.child.built.revision,
	}
	if w.Owns {
		s.Name = strconv.Itoa(p.slot)
	}
	if f := p.child.foreign; f != nil {
		s.Status = f.status
	}
	c, ok := p.child.tallies.page.Load().Read()
	if !ok {
		c = gauge.Counts{Accepted: watch.Pulse.Accepted, Open: watch.Pulse.Active}
	}
	s.Accepted, s.Active = c.Accepted, c.Open
	s.MessagesIn, s.MessagesOut = p.link.Counts()
	if at := w.Worker.ReadyAt; !at.IsZero() {
		s.ReadyAfter = Seconds(at.Sub(w.Worker.Started))
	}
	return s
}

// build says what a program was built from.
type build struct{ goVersion, version, revision string }

// ownBuild returns the build of this program.
func ownBuild() (b build) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b = build{goVersion: info.GoVersion, version: info.Main.Version}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.revision = s.Value + b.revision
		case s.Key == "vcs.modified" && s.Value == "true":
			b.revision += "+dirty"
		}
	}
	return b
}

// maxBuild bounds each part of what a worker says of its build, in bytes.
const maxBuild = 256

// tell takes what a worker says of its build when it comes online.
func (b *build) tell(e *wire.Extension) {
	if e == nil {
		return
	}
	plain := func(s string) string { return wire.Plain(s[:min(len(s), maxBuild)]) }
	*b = build{plain(e.GoVersion), plain(e.ProgramVersion), plain(e.Revision)}
}

// tallies are what a worker tells of its connections. Any goroutine may use them.
type tallies struct {
	page  atomic.Pointer[gauge.Page] // nil if the worker has none
	open  atomic.Int64               // open connections, by the last heartbeat
	since atomic.Int64               // connections that the dispatcher has handed to the worker since then
}

// beat takes a heartbeat.
func (t *tallies) beat(p supervise.Pulse) {
	t.since.Store(0)
	t.open.Store(p.Active)
}

// counts returns how many connections the worker has, and false if the worker does not tell.
// Without a page that is the number of the last heartbeat, and what was handed to the worker
// since. counts does not wait.
func (c *child) counts() (gauge.Counts, bool) {
	if now, ok := c.tallies.page.Load().Read(); ok {
		return now, true
	}
	return gauge.Counts{Accepted: c.handed.Load(), Open: min(max(0, c.tallies.open.Load()), 1<<48) + c.tallies.since.Load()}, c.p.link.SpeaksExtra()
}

// giveGauge gives the worker a page for its numbers. Where the system has no such page, the
// heartbeats have to do.
func (c *child) giveGauge() {
	if c.tallies.page.Load() != nil {
		return // the worker has said online twice
	}
	page, fd, err := gauge.New()
	if err != nil {
		return
	}
	c.tallies.page.Store(page)
	first := handle.New(fd)
	c.give(wire.ActGauge, func() (h *handle.Handle, err error) {
		if h, first = first, nil; h != nil {
			return h, nil
		}
		err = ErrClosed
		c.m.call(func() { // in which the page is closed
			if fd, ok := page.Descriptor(); ok {
				h, err = socket.DuplicateFD(fd)
			}
		})
		return h, err
	}, time.Second)
}

// received counts a read of datagrams on a socket that several workers read.
func (in *inside) received() {
	if page := in.page.Load(); page != nil {
		page.Receive()
	}
}

// gotGauge begins to write this worker's numbers to the page of h.
func (in *inside) gotGauge(h *handle.Handle) {
	if h == nil {
		return
	}
	if page, err := gauge.Map(h.FD()); err == nil {
		in.page.Store(&page)
		in.drain.Publish(func(c drain.Counts) { page.Set(gauge.Counts{Accepted: c.Accepted, Open: c.Open}) })
	}
}

func (o operatorCore) Totals() (t operator.Totals) {
	m := o.c.master
	m.call(func() {
		t = m.past
		for _, p := range m.workers {
			if p.child.forked {
				p.count(&t)
			}
		}
	})
	t.Resident = process.Resident(pid)
	return t
}

// count adds the messages from the worker and to it.
func (p *Process) count(t *operator.Totals) {
	in, out := p.link.Counts()
	t.MessagesIn += in
	t.MessagesOut += out
}

// What a service manager is told, and what it keeps.

// census counts the workers, for notifier.
func (m *master) census() (c census) {
	s := m.supervisor.Snapshot(time.Now())
	stalled := false
	for _, w := range s.Workers {
		state := w.Worker.State
		c.alive = c.alive || state == supervise.Online || state == supervise.Ready
		stalled = stalled || w.Worker.Watch.Stalled
		switch {
		case s.Target > 0 && w.Worker.Slot == 0:
		case w.Up:
			c.up++
		case state == supervise.Online:
			c.waiting = true
		}
	}
	c.alive = c.alive && !stalled
	c.need = s.Target
	if opts, err := m.current(); err == nil && opts.MinReady > 0 {
		c.need = min(c.need, opts.MinReady)
	}
	return c
}

// logUnusedSockets logs the sockets of the service manager that nobody has asked for: most
// likely the unit and the program disagree about an address. Sockets that the process before
// this one had kept, and nobody has asked for, are closed.
func (m *master) logUnusedSockets() {
	m.registry.Stored.Unclaimed()
	for _, s := range m.registry.Unused() {
		m.log().Warn("cluster: a socket of the service manager is not used", "fd", s.FD, "address", s.Addr)
	}
}

// keeper is the service manager as the registry sees it. Its methods are called in the
// mailbox.
type keeper struct{ m *master }

// begin makes the service manager keep the sockets, if Options.FDStore says so, or keep them
// no longer.
func (k keeper) begin() {
	opts, err := k.m.current()
	keeps := err == nil && opts.FDStore && systemd.CanStore && k.m.notifier.manager.Present()
	k.m.registry.Stored.Keep(k, keeps)
}

func (k keeper) Store(name string, sockets []*handle.Handle) {
	var fds []int
	for _, h := range sockets {
		fds = append(fds, h.Retain().FD())
	}
	k.m.notifier.manager.Store(name, fds, func() {
		for _, h := range sockets {
			h.Release()
		}
	})
}

func (k keeper) Unstore(name string) { k.m.notifier.manager.Unstore(name) }

func (k keeper) Unkept(l share.Listening) {
	if opts, err := k.m.current(); err == nil {
		k.m.cluster.logs.Logger(opts.logger()).Warn("cluster: Options.FDStore: the sockets of an address that is "+Scheduling(l.Policy).String()+" are not kept",
			"network", l.Network, "address", l.Address)
	}
}
