package cluster

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// drain is how a worker ends: it stops accepting, finishes what is in flight,
// runs the OnShutdown hooks, flushes and closes its channel, lets Serve return,
// and exits with 0. It has a clock of its own, because nothing that the
// application does may keep it from ending; behind it stands the master's
// SIGKILL.
type drain struct {
	ctx    context.Context // done when it begins: the package's Context
	begin  context.CancelFunc
	closed chan struct{} // the channel is closed: Worker.Disconnect returns
	done   chan struct{} // and OnDisconnect was called: Serve returns
	once   sync.Once
	begun  atomic.Bool
	hooks  shutdownHooks
	served servers

	mu     sync.Mutex
	end    time.Time // when the process exits, whatever is left to do
	timers []*time.Timer
	work   context.Context // done when what is in flight has had its time
	giveUp context.CancelFunc
	rest   context.Context // done at end
	over   context.CancelFunc
}

// reason is who wants the drain.
type reason int

const (
	byMaster reason = iota // its disconnect message
	bySelf                 // Worker.Disconnect
	byOther                // SIGTERM
	byOrphan               // the channel is closed
)

const (
	// lameDuck is how long an idle connection is kept at the beginning of a
	// drain. A client that sends a request on it in that time gets an answer
	// that says Connection: close; closing at once would reset it.
	lameDuck = time.Second
	// tlsLameDuck is the same where idle is hard to tell: see track.patience.
	tlsLameDuck = 5 * lameDuck
	// lamePoll is how often a drain looks at the connections.
	lamePoll = 20 * time.Millisecond
	// lameStop is after how long without a look this process has been stopped, or
	// starved.
	lameStop = 5 * lamePoll
	// mainGrace is how long main may go on after Serve has returned.
	mainGrace = 2 * time.Second
)

// margin is what a drain leaves of its time: between the end of what is in
// flight and the end of the hooks, and again before the master's SIGKILL. A
// second, or a quarter of a short timeout.
func margin(timeout time.Duration) time.Duration { return min(time.Second, timeout/4) }

func (d *drain) init() {
	d.ctx, d.begin = context.WithCancel(context.Background())
	d.work, d.giveUp = context.WithCancel(context.Background())
	d.rest, d.over = context.WithCancel(context.Background())
	d.closed = make(chan struct{})
	d.done = make(chan struct{})
}

// draining reports whether the drain has begun.
func (in *inside) draining() bool { return in.drain.begun.Load() }

// waitDrained returns at once while the worker is not being drained. Then it
// waits until ctx ends or the process does: what comes next in main must not run
// into an error for it, which could end the process before the drain does, and
// not with 0.
func (in *inside) waitDrained(ctx context.Context) error {
	if !in.draining() {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// beginDrain starts the drain, or shortens the one under way.
func (in *inside) beginDrain(why reason, timeout time.Duration) {
	d := &in.drain
	d.mu.Lock()
	if end := time.Now().Add(timeout - margin(timeout)); d.end.IsZero() || end.Before(d.end) {
		d.end = end
		for _, t := range d.timers {
			t.Stop()
		}
		left := timeout - margin(timeout)
		d.timers = []*time.Timer{
			time.AfterFunc(left-margin(timeout), d.giveUp),
			time.AfterFunc(left, func() { in.timeUp(timeout) }),
		}
	}
	d.mu.Unlock()
	d.once.Do(func() {
		in.p.advance(Draining)
		d.begun.Store(true)
		d.begin()
		go in.runDrain(why)
	})
}

// left is how long what is in flight has at most.
func (d *drain) left() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Until(d.end)
}

// timeUp is the last step of a drain that does not end by itself.
func (in *inside) timeUp(timeout time.Duration) {
	in.drain.over()
	in.mu.Lock()
	conns := len(in.conns)
	in.mu.Unlock()
	slog.Warn("cluster: the drain takes too long; exiting", "worker", in.p.id, "timeout", timeout, "connections", conns)
	in.removeFiles()
	exit(0)
}

// exit is os.Exit, but for tests.
var exit = os.Exit

func (in *inside) runDrain(why reason) {
	d, l := &in.drain, in.p.link
	switch {
	case why == byOrphan:
		// The master's end of a standard output that it copied is gone as well;
		// a log line must not kill what is in flight.
		surviveSIGPIPE()
	case why == byOther && in.goMaster():
		l.orderOurs(actDraining)
	}
	if !in.goMaster() {
		// Node gives no connection any more to who has said so.
		for _, key := range in.openKeys() {
			l.order(&wire{Act: actClose, Key: key})
		}
	}
	in.stopAll()
	in.finishConns()
	wait(d.work, l.requests.running.Wait)
	d.hooks.run(d.rest)
	in.removeFiles()
	l.flush(d.rest)
	l.close()
	<-l.done
	close(d.closed)
	// OnDisconnect has its turn before main has, unless a callback holds it up.
	words, over := context.WithTimeout(d.rest, lastWords)
	in.p.events.idle(words.Done())
	over()
	close(d.done)
	if d.served.any() {
		time.Sleep(mainGrace) // main's turn; it may exit sooner
	}
	exit(0)
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

// finishConns lets what is in flight end. Every connection gets its lame-duck
// time from its last activity on; those that are idle then are closed. Servers
// are shut down when only connections with a request in flight are left. One of
// those that began before the drain may have been answered, in part, with no word
// of closing; its client may send another request when it ends, which a server
// that is shut down would not read. So they have half of the time before that.
//
// The time in which this process was stopped does not count: requests that came
// meanwhile are not read yet, and Shutdown would close their connections as idle.
func (in *inside) finishConns() {
	d := &in.drain
	seen := make(map[*track]sighting)
	late := d.left() / 2
	var ran, from time.Duration // until now, and until the last request from before the drain ended
	last := time.Now()
	var shut <-chan struct{} // closed when all Shutdown calls have returned
	ticker := time.NewTicker(lamePoll)
	defer ticker.Stop()
	in.markOld()
	for {
		c := in.look(seen)
		step := time.Since(last)
		last = last.Add(step)
		ran += min(step, lameStop)
		if c.old > 0 || step > lameStop {
			from = ran
		}
		since := ran - from
		if shut == nil && (c.left == 0 || since >= lameDuck && c.idle == 0 || since >= 3*lameDuck || ran >= late) {
			shut = d.served.shutdown(d.work)
		}
		if shut != nil && c.left == 0 {
			select {
			case <-shut:
				return
			case <-d.work.Done():
				return
			case <-ticker.C:
				continue
			}
		}
		select {
		case <-ticker.C:
		case <-d.work.Done():
			return
		}
	}
}

// markOld notes which requests were in flight when the drain began.
func (in *inside) markOld() {
	in.mu.Lock()
	defer in.mu.Unlock()
	for t := range in.conns {
		if t.phase.Load() == phaseActive {
			t.old.Store(true)
		}
		if t.phase.Load() != phaseActive {
			t.old.Store(false) // it ended meanwhile
		}
	}
}

// sighting is when a connection was first seen idle, with how much behind it.
type sighting struct {
	ops   uint32
	since time.Time
}

// census is what look counts.
type census struct {
	left int // connections that are open, or may be about to
	idle int // of those, without a request in flight
	old  int // of those, with one that began before the drain
}

// look counts what is in flight, and cuts the connections that have been idle
// for as long as they may.
func (in *inside) look(seen map[*track]sighting) (c census) {
	in.mu.Lock()
	defer in.mu.Unlock()
	c.left = in.accepting
	for t := range in.conns {
		if t.listener.over.Load() {
			continue // its server's Shutdown has returned: it is nobody's
		}
		c.left++
		if t.old.Load() {
			c.old++
		}
		if !t.idle() {
			if t.phase.Load() == phaseIdle {
				c.idle++ // its next request has begun to arrive, perhaps
			}
			delete(seen, t)
			continue
		}
		c.idle++
		ops := t.ops.Load()
		if s, ok := seen[t]; !ok || s.ops != ops {
			seen[t] = sighting{ops, time.Now()}
		} else if time.Since(s.since) >= t.patience() && t.listener.cuttable() {
			t.cutIdle()
		}
	}
	return c
}

// shutdownHooks are the OnShutdown functions.
type shutdownHooks struct {
	callbacks[func(context.Context) error]
}

// run calls the hooks one after another, the latest registered first, as
// deferred calls. It leaves one that does not return when ctx ends.
func (h *shutdownHooks) run(ctx context.Context) {
	all := h.all()
	wait(ctx, func() {
		for i := len(all) - 1; i >= 0; i-- {
			if err := all[i].fn(ctx); err != nil {
				slog.Warn("cluster: an OnShutdown hook failed", "err", err)
			}
		}
	})
}

// Context returns a context that is done when this process is asked to stop: in
// a worker when its drain begins, in the master when Run is told to end.
func Context() context.Context {
	if Worker != nil {
		return Worker.inside.drain.ctx
	}
	return std.runner.context()
}

// OnShutdown registers fn to run at the end of the drain: after what was in
// flight, before the channel closes, so that it can still Send. In the master
// it runs at the end of Run, when all workers are gone. Hooks run one after
// another, the latest registered first; ctx ends when the process is about to
// be ended. An error is logged.
func OnShutdown(fn func(context.Context) error) (stop func()) {
	if Worker != nil {
		return Worker.inside.drain.hooks.add(fn)
	}
	return std.runner.hooks.add(fn)
}
