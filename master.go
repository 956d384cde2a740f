package cluster

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/mailbox"
)

// master is the state of a cluster. Its mailbox owns all fields that are not
// said to be otherwise; the methods are grouped by who may call them.
type master struct {
	turns mailbox.Mailbox

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
	lastOut     error        // how it came that a slot is out, for the last of them
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
	reports  mailbox.Mailbox // callbacks about the cluster as a whole
	began    time.Time

	forked atomic.Bool // from the first fork to the end of Disconnect; for anyone

	// start makes p's process and channel, kill sends the process a signal, ping
	// asks whether it is alive, if it can be asked: the seam for tests of the state.
	start func(p *Process, env []string) error
	kill  func(p *Process, sig os.Signal) error
	ping  func(p *Process) bool
}

// post runs fn in the master's mailbox, after what was posted before.
func (m *master) post(fn func()) { m.turns.Post(fn) }

// call is post, and returns when fn has run.
func (m *master) call(fn func()) { m.turns.Call(fn) }

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
		p.link.ch.setPeer(p.pid)
		go p.link.work(job{read: true})
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
