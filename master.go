package cluster

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/broker"
	"github.com/go-cluster/cluster/internal/mailbox"
	"github.com/go-cluster/cluster/internal/operator"
	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/share"
	"github.com/go-cluster/cluster/internal/signals"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/supervise"
	"github.com/go-cluster/cluster/internal/systemd"
	"github.com/go-cluster/cluster/internal/wire"
)

// master is the state of a cluster. Its mailbox owns all fields, except those whose comments
// say otherwise.
//
// The supervisor decides which workers there should be. The master tells the supervisor
// what happens and what time it is, keeps the one timer that the supervisor needs, and
// carries out its orders: see host.go. A function that is posted to the mailbox is a turn.
// What the supervisor decides in a turn is done in that turn.
type master struct {
	cluster *cluster // constant
	turns   mailbox.Mailbox

	supervisor *supervise.Machine
	timer      *time.Timer // for supervisor.Next
	timerAt    time.Time   // zero if it does not run

	opts     *settings           // of SetupMaster; nil before
	programs map[int]*generation // open programs, by the supervisor's number
	newest   int                 // the last of those numbers
	outdated int                 // newest when the last reload began
	replaced int                 // outdated of the last reload that was completed, or 0
	workers  map[int]*Process    // workers that are being started, or are not dead
	gone     []int               // workers to be removed at the end of the turn
	past     operator.Totals     // counts of workers that are gone
	delay    *delay              // of a stop that has been announced; nil if there is none
	tickets  ticketKeys
	lastCall int
	calls    map[int]chan<- outcome  // where the outcome of each call is awaited
	stops    map[int]chan<- leftover // where the end of a stop is awaited
	advised  bool                    // the log has said that workers die before the master has come to Run

	launcher process.Launcher
	registry *share.Registry
	broker   *broker.Broker // constant; it has a lock of its own
	runner   runner
	upgrades upgrades
	reaping  sync.RWMutex // held to read while the status of a worker is taken and reported
	notifier notifier
	reports  mailbox.Mailbox // callbacks about the cluster as a whole
	began    time.Time

	atTerminal sync.Once // prepares for what a terminal does to processes
	outlives   bool      // this program is to go on when its terminal is closed; constant

	forked atomic.Bool // true from the first fork to the end of Disconnect; for anyone
}

// generation is a program that is held open, and what it is run with.
type generation struct {
	number   int // the supervisor's
	opts     *settings
	bin      *process.Program
	isGo     bool     // the program imports this package
	dir      string   // the working directory of its workers; "": the master's
	env      []string // the master's environment when the program was opened
	userEnv  []string // HOME, USER and LOGNAME of Options.Credential's user
	sockets  []passed // of Options.Sockets
	uses     int      // workers that are not dead; in the mailbox
	released bool     // nothing is started from it any more; in the mailbox

	askLibuv sync.Once
	uv       string
}

// libuv returns the version of libuv in the program, if that is node. It is asked for when a
// worker wants an abstract unix name, which versions spell differently.
func (g *generation) libuv(user *process.User) string {
	g.askLibuv.Do(func() { g.uv = process.NodeLibuv(g.opts.program, user) })
	return g.uv
}

func newMaster(c *cluster) *master {
	m := &master{
		cluster:  c,
		programs: make(map[int]*generation), workers: make(map[int]*Process),
		calls: make(map[int]chan<- outcome), stops: make(map[int]chan<- leftover), began: time.Now(),
		outlives: signals.OutlivesHangUp(),
	}
	m.supervisor = supervise.New(host{m}, signals.Dump, rand.Uint64())
	m.upgrades.m, m.upgrades.seat = m, make(chan struct{}, 1)
	m.registry = share.NewRegistry(share.Host{Turn: m.call, Activated: activated, Deactivate: systemd.CloseSocket, UID: uid(), Patience: m.began.Add(takeover), Exhausted: m.exhausted, Fallback: func(l share.Listening, wanted share.Policy) { fallenBack(m, l, wanted) }})
	return m
}

// takeover is how long after its start a process waits for an address that is in use. The
// workers of a master that was killed a moment ago may still have the address: they give it
// up when they notice the death.
const takeover = 2 * time.Second

// openSoon opens a socket for this process alone. If the address is in use, it waits until
// takeover is over.
func openSoon[T any](ctx context.Context, k socketKind[T], a socket.Address, keepAlive net.KeepAliveConfig) (T, error) {
	return socket.WhileInUse(ctx, std.began.Add(takeover), func() (T, error) { return k.open(ctx, a, keepAlive) })
}

// activated returns the sockets that a service manager gave to this process.
func activated() (all []share.Passed) {
	for _, s := range systemd.Sockets() {
		all = append(all, share.Passed(s))
	}
	return all
}

// ---- turns

// post runs fn in the master's mailbox, after what was posted before.
func (m *master) post(fn func()) {
	m.turns.Post(func() {
		fn()
		m.endTurn()
	})
}

// call runs fn in the master's mailbox and waits until it has run. A posted
// function must not call it.
func (m *master) call(fn func()) {
	m.turns.Call(func() {
		fn()
		m.endTurn()
	})
}

// endTurn forgets the workers that died in the turn, and sets the timer.
func (m *master) endTurn() {
	for _, id := range m.gone {
		delete(m.workers, id)
	}
	m.gone = nil
	for _, turn := range m.upgrades.turns {
		close(turn)
	}
	m.upgrades.turns = nil
	next := m.supervisor.Next()
	if next.Equal(m.timerAt) {
		return
	}
	m.timerAt = next
	switch {
	case next.IsZero():
		m.timer.Stop()
	case m.timer == nil:
		m.timer = time.AfterFunc(time.Until(next), m.timeHasCome)
	default:
		m.timer.Reset(time.Until(next))
	}
}

func (m *master) timeHasCome() {
	m.post(func() {
		m.timerAt = time.Time{}
		m.supervisor.Advance(time.Now())
	})
}

// ---- calls

func (m *master) setup(o Options) error {
	s, err := o.resolve()
	if err != nil {
		return err
	}
	m.call(func() { m.opts, m.upgrades.asked = s, s.Workers })
	m.broker.Configure(s.coord())
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

// current returns the settings in force.
func (m *master) current() (*settings, error) {
	if m.opts == nil {
		s, err := Options{}.resolve()
		if err != nil {
			return nil, err
		}
		m.opts, m.upgrades.asked = s, s.Workers
	}
	return m.opts, nil
}

func (m *master) list() (workers []*Process) {
	m.call(func() {
		for _, p := range m.workers {
			if p.child.forked {
				workers = append(workers, p)
			}
		}
	})
	return workers
}

// outcome is the outcome of a call.
type outcome struct {
	p   *Process // of Fork
	err error
}

// ask calls the supervisor, in the mailbox. The outcome comes over the channel that it
// returns.
func (m *master) ask(call func(now time.Time, number int)) <-chan outcome {
	answer := make(chan outcome, 1)
	m.call(func() {
		if m.delay != nil {
			answer <- outcome{err: fmt.Errorf("cluster: a stop has begun, and follows when ShutdownDelay is over: %w", ErrClosed)}
			return
		}
		m.lastCall++
		number := m.lastCall
		m.calls[number] = answer
		m.upgrades.held(func() { call(time.Now(), number) })
	})
	return answer
}

// forkOne does what Fork does.
func (m *master) forkOne(env []string) (*Process, error) {
	if err := validateEnv("Fork", env); err != nil {
		return nil, err
	}
	if err := m.upgrades.adopt(); err != nil {
		return nil, err
	}
	a := <-m.ask(func(now time.Time, call int) { m.supervisor.Fork(now, call, env) })
	return a.p, a.err
}

func (m *master) autoFork() error {
	adopted := m.upgrades.pending()
	if err := m.upgrades.adopt(); err != nil {
		return err
	}
	if adopted {
		if n, follows := m.upgrades.followAsked(); follows {
			return m.scale(n)
		}
	}
	return (<-m.ask(m.supervisor.AutoFork)).err
}

// scale changes the number of slots to n.
func (m *master) scale(n int) error {
	if n < 0 {
		return fmt.Errorf("cluster: Scale(%d): the number of workers must not be negative", n)
	}
	if err := m.upgrades.adopt(); err != nil {
		return err
	}
	return (<-m.ask(func(now time.Time, call int) { m.supervisor.Scale(now, call, n) })).err
}

// scaleBy changes the number of slots by step.
func (m *master) scaleBy(step int) error {
	if err := m.upgrades.adopt(); err != nil {
		return err
	}
	return (<-m.ask(func(now time.Time, call int) { m.supervisor.ScaleBy(now, call, step) })).err
}

// reload does what Reload does.
func (m *master) reload(ctx context.Context) error {
	if err := m.upgrades.adoptPending(); err != nil {
		return err
	}
	m.call(m.upgrades.noteReload)
	select {
	case a := <-m.ask(m.supervisor.Reload):
		return a.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ---- the end of all

// stopping is a call that waits for the end of a stop.
type stopping struct {
	call int
	done chan leftover
}

// leftover is what did not end as it should in a stop.
type leftover struct {
	killed []int // workers that had to be killed
	undead []int // pids of processes that SIGKILL did not end
}

// disconnect drains all workers and waits for their end.
func (m *master) disconnect(ctx context.Context) error {
	if err := m.upgrades.adoptPending(); err != nil {
		return err
	}
	if d := m.beginDelay(); d != nil {
		select {
		case <-d.over:
		case <-ctx.Done():
		}
	}
	var s stopping
	m.call(func() { s = m.beginStop() })
	if m.runner.runs() { // Run ends with this
		m.registry.ClosePreopened()
	}
	defer m.runner.renew()
	return m.waitStopped(ctx, s)
}

func (m *master) beginStop() stopping {
	m.upgrades.stopWins()
	m.lastCall++
	s := stopping{m.lastCall, make(chan leftover, 1)}
	m.stops[s.call] = s.done
	m.runner.announce()
	if m.delay != nil {
		m.delay.end()
		m.delay = nil
	}
	m.registry.CloseAll()
	m.supervisor.Stop(time.Now(), s.call)
	return s
}

// delay is the time of Options.ShutdownDelay, which every call that stops the cluster waits
// for.
type delay struct {
	over chan struct{}
	end  func() // closes over
}

// beginDelay begins the delay of a stop, or joins the one under way. It returns nil if the
// stop has no delay. During the delay the cluster goes on as before, but begins nothing new.
func (m *master) beginDelay() (d *delay) {
	m.call(func() {
		opts, err := m.current()
		if d = m.delay; d != nil || err != nil || opts.ShutdownDelay == 0 || len(m.stops) > 0 || len(m.workers) == 0 {
			return
		}
		over := make(chan struct{})
		d = &delay{over, sync.OnceFunc(func() { close(over) })}
		m.delay = d
		m.upgrades.stopWins()
		time.AfterFunc(opts.ShutdownDelay, d.end)
		m.notifyEnd()
		m.runner.announce()
		m.runner.end()
		for _, p := range m.workers {
			p.child.tellStopping()
		}
	})
	return d
}

// tellStopping tells a worker during the delay that a stop will follow. A worker may come up
// in that time, and then it is told too.
func (c *child) tellStopping() {
	if c.m.delay != nil && c.forked && c.p.link.SpeaksExtra() {
		c.p.link.OrderExtra(wire.ActStopping)
	}
}

// waitStopped waits for the end of a stop. When ctx ends it has the workers killed that are
// left.
func (m *master) waitStopped(ctx context.Context, s stopping) error {
	var ended error
	var left leftover
	select {
	case left = <-s.done:
	case <-ctx.Done():
		m.call(func() { m.supervisor.StopNow(time.Now(), s.call) })
		left = <-s.done
		ended = ctx.Err()
	}
	switch {
	case len(left.undead) > 0:
		return fmt.Errorf("cluster: the processes with pids %s have not ended of SIGKILL (frozen, or waiting for a device) and are left behind: %w",
			strings.Trim(fmt.Sprint(left.undead), "[]"), cmp.Or(ended, context.DeadlineExceeded))
	case len(left.killed) == 0:
		return nil
	case ended != nil:
		return ended
	}
	return fmt.Errorf("cluster: workers %s did not drain in time and were killed: %w",
		strings.Trim(fmt.Sprint(left.killed), "[]"), context.DeadlineExceeded)
}

// hurry shortens the drain of all workers.
func (m *master) hurry(timeout time.Duration) {
	m.post(func() { m.supervisor.Hurry(time.Now(), timeout) })
}

// closeGrace is how long the address stays that a node worker was the last to close, if
// another worker may follow it.
const closeGrace = time.Second

// closes notes that a worker has closed a listener. A Go worker says so if it goes on itself.
// A node worker may be at its end: the handler of a SIGTERM closes the servers and then exits,
// and the master knows of no signal that others have sent. What connects until another
// worker is in its slot is to wait as always. So the address ends when the worker is still there
// after a while.
func (s *fromWorker) closes(key string) {
	m, p := s.m, s.p
	stays := p.link.Closes(key)
	sure := p.link.SpeaksExtra() || p.slot < 0
	m.call(func() { m.registry.Close((*member)(p), key, stays && sure) })
	if sure || !stays {
		return
	}
	time.AfterFunc(closeGrace, func() {
		m.call(func() {
			if p.IsConnected() && !(*member)(p).Leaving() {
				share.EndUnused(m.registry, key)
			}
		})
	})
}
