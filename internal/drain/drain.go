package drain

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Reason says who has begun the drain.
type Reason int

const (
	ByMaster Reason = iota // the master's disconnect message
	BySelf                 // Disconnect in the worker itself
	ByOther                // another process, by a SIGTERM to this process alone
	ByOrphan               // nobody: the channel has closed, so the master is gone
	ByStop                 // the master's disconnect message, to all workers: no other one follows
)

// Hooks are what a drain and its Tracker need of the world outside. They are
// called without any lock, and all of them have to be set.
type Hooks struct {
	// Begun is called once, before anybody can see that the drain has begun.
	Begun func()

	// Announce tells the master about the drain, before anything is stopped.
	Announce func(why Reason)

	// Full is called when Limits.Ever connections have been accepted.
	Full func()

	// Filled is called when a worker has as many connections as it may, or more.
	Filled func()

	// Room is called when a worker that had as many connections as it may has fewer.
	Room func()

	// Accepts is called when the program first asks for a connection or a datagram.
	Accepts func()

	// Work returns when no request of the channel is in flight.
	Work func()

	// Flush returns when the channel's queue is written, or when ctx is done.
	Flush func(ctx context.Context)

	// Close closes the channel, and returns when nothing more comes from it.
	Close func()

	// Callbacks returns when all callbacks have returned, or when done is closed.
	Callbacks func(done <-chan struct{})

	// Logger is called at each use. To log must not wait for a slow reader of the log,
	// since the drain has to end in time.
	Logger func() *slog.Logger

	// Exit ends the process.
	Exit func(code int)
}

const (
	// mainGrace is how long main may go on after Serve has returned.
	mainGrace = 2 * time.Second
	// callbackGrace is how long callbacks under way may go on before Serve returns, so
	// that main's return does not cut off OnDisconnect.
	callbackGrace = time.Second
)

// Drain is the drain of one worker. It exists from the worker's start and is begun once.
type Drain struct {
	*Tracker
	OnShutdown ShutdownHooks

	worker int // its id, for the log
	hooks  Hooks

	once     sync.Once // begins
	begun    context.Context
	setBegun context.CancelFunc
	closed   chan struct{} // the channel is closed
	served   chan struct{} // Serve returns
	clock    clock
	servers  servers

	orphans  chan struct{} // closed when the master is gone
	orphan   sync.Once     // closes it
	stopping chan struct{} // closed by Begin, or before by Notice
	noticed  sync.Once     // closes it
	atOnce   atOnce
}

// New returns the Drain of a worker, which does not begin by itself.
func New(worker int, limits Limits, hooks Hooks) *Drain {
	d := &Drain{
		Tracker: newTracker(limits, hooks.Full, hooks.Accepts, hooks.Filled, hooks.Room),
		worker:  worker,
		hooks:   hooks,
		closed:  make(chan struct{}),
		served:  make(chan struct{}),

		orphans:  make(chan struct{}),
		stopping: make(chan struct{}),
	}
	d.begun, d.setBegun = context.WithCancel(context.Background())
	d.clock.init()
	return d
}

// Context returns a context that is done when the drain begins.
func (d *Drain) Context() context.Context { return d.begun }

// Stopping returns a channel that is closed when the drain begins, or before that by
// Notice.
func (d *Drain) Stopping() <-chan struct{} { return d.stopping }

// Notice says that a drain will follow. Until then everything goes on.
func (d *Drain) Notice() { d.noticed.Do(func() { close(d.stopping) }) }

// Closed returns a channel that is closed when the drain has flushed and closed the
// channel to the master.
func (d *Drain) Closed() <-chan struct{} { return d.closed }

// Orphaned returns a channel that is closed when the channel to the master is, whoever
// has closed it. Sockets whose addresses the next master needs have to be closed then.
func (d *Drain) Orphaned() <-chan struct{} { return d.orphans }

// Hold returns nil at once while there is no drain. In a drain it waits until ctx or the
// process ends. It is for calls that would fail because of the drain: at such an error
// most programs exit, before the drain has ended and not with status 0.
func (d *Drain) Hold(ctx context.Context) error {
	if !d.Draining() {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// Begin starts the drain, or shortens the one under way. It does not wait.
func (d *Drain) Begin(why Reason, timeout time.Duration) {
	d.clock.set(timeout, func() { d.timeUp(timeout) })
	if why == ByOrphan {
		d.orphaned.Store(true)
		d.orphan.Do(func() { close(d.orphans) })
		if d.Draining() && !d.lastCall.Load() {
			d.stopAll() // once more, since a packet socket is closed only when the master is gone
		}
	}
	d.once.Do(func() {
		d.hooks.Begun()
		// No worker comes after this one, so it takes the connections that are queued.
		last := why == ByOrphan || why == ByStop
		d.lastCall.Store(last)
		d.draining.Store(true)
		d.Notice()
		d.setBegun()
		go d.run(why)
	})
}

// timeUp is the last step of a drain that does not end by itself.
func (d *Drain) timeUp(timeout time.Duration) {
	_, active := d.Counts()
	d.hooks.Logger().Warn("cluster: the drain takes too long; exiting", "worker", d.worker, "timeout", timeout, "connections", active)
	d.removeFiles()
	d.hooks.Exit(0)
}

// run takes the steps that the package's doc lists.
func (d *Drain) run(why Reason) {
	d.hooks.Announce(why)
	d.servers.tell()
	d.takeLast()
	d.stopAll()
	d.atOnce.begin()
	d.finishConns()
	wait(d.clock.work, d.hooks.Work)
	d.OnShutdown.Run(d.clock.rest, d.hooks.Logger)
	d.removeFiles()
	d.hooks.Flush(d.clock.rest)
	d.hooks.Close()
	close(d.closed)
	// OnDisconnect is called before main goes on, unless an earlier callback takes too long.
	grace, cancel := context.WithTimeout(d.clock.rest, callbackGrace)
	d.hooks.Callbacks(grace.Done())
	cancel()
	close(d.served)
	if d.servers.any() {
		time.Sleep(mainGrace) // main's turn; it may exit sooner
	}
	d.hooks.Exit(0)
}

// wait returns when fn has, or when ctx is done.
func wait(ctx context.Context, fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
