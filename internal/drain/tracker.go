package drain

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Tracker owns what a worker has in flight: what it listens on, the connections
// that it has accepted, and the files that go with it.
type Tracker struct {
	draining atomic.Bool
	lastCall atomic.Bool // it has, but what is queued is still taken
	orphaned atomic.Bool // the master is gone
	limit    int64       // connections, ever, after which full is called; 0: never
	full     func()
	accepts  func() // is told of the first Accept or ReadFrom
	asked    atomic.Bool

	mu        sync.Mutex
	stoppers  map[stopper]struct{} // what a drain stops
	conns     map[*conn]struct{}   // accepted and not closed
	accepted  int64                // connections, ever
	accepting int                  // Accept calls that may come back with a connection
	files     map[*file]struct{}
}

// stopper is something that a drain stops from taking on work.
type stopper interface{ stop() }

// file is that of a unix socket which is this worker's alone.
type file struct{ remove func() }

func newTracker(limit int, full, accepts func()) *Tracker {
	return &Tracker{
		limit: int64(limit), full: full, accepts: accepts,
		stoppers: make(map[stopper]struct{}),
		conns:    make(map[*conn]struct{}),
		files:    make(map[*file]struct{}),
	}
}

// Draining reports whether the drain has begun.
func (t *Tracker) Draining() bool { return t.draining.Load() }

// Counts returns how many connections were accepted, ever, and how many of those
// are not closed yet.
func (t *Tracker) Counts() (accepted int64, active int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.accepted, len(t.conns)
}

// enter registers s to be stopped by a drain, which may have begun.
func (t *Tracker) enter(s stopper) {
	t.mu.Lock()
	t.stoppers[s] = struct{}{}
	t.mu.Unlock()
	if t.Draining() {
		s.stop()
	}
}

func (t *Tracker) leave(s stopper) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.stoppers, s)
}

// lastCallTime is how long Accept calls take what is queued when a listener is closed
// for good. Closing resets what is still queued.
const lastCallTime = 50 * time.Millisecond

// takeLast lets the application's Accept calls take what is queued.
func (t *Tracker) takeLast() {
	if !t.lastCall.Load() {
		return
	}
	listeners := false
	for _, s := range t.entered() {
		if l, ok := s.(*Listener); ok {
			listeners = true
			l.source.SetDeadline(time.Now().Add(lastCallTime))
		}
	}
	if listeners {
		time.Sleep(lastCallTime)
	}
	t.lastCall.Store(false)
}

// stopAll stops whatever takes on work. What enters later stops itself.
func (t *Tracker) stopAll() {
	for _, s := range t.entered() {
		s.stop()
	}
}

// entered returns what a drain stops.
func (t *Tracker) entered() []stopper {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.stoppers))
}

// asks is called when the program asks for a connection or a datagram. The first
// time of all, on whatever socket, it may take traffic.
func (t *Tracker) asks() {
	if !t.asked.Load() && !t.asked.Swap(true) {
		t.accepts()
	}
}

// beginAccept notes that a connection may come, unless a drain has begun. A
// connection that accept(2) has returned and no server knows yet is in nobody's
// list, but in this count.
func (t *Tracker) beginAccept() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.Draining() && !t.lastCall.Load() {
		return false
	}
	t.accepting++
	return true
}

// endAccept notes how that ended: c, unless nil, is in flight until it is closed.
func (t *Tracker) endAccept(c *conn) {
	t.mu.Lock()
	t.accepting--
	full := c != nil && t.note(c)
	t.mu.Unlock()
	if full {
		t.full()
	}
}

// arrived notes that c is in flight, which no Accept here has returned.
func (t *Tracker) arrived(c *conn) {
	t.mu.Lock()
	full := t.note(c)
	t.mu.Unlock()
	if full {
		t.full()
	}
}

// note notes that c is in flight, and reports whether it is the last one that this
// worker should take. t.mu is held.
func (t *Tracker) note(c *conn) (full bool) {
	t.conns[c] = struct{}{}
	t.accepted++
	return t.accepted == t.limit
}

func (t *Tracker) forget(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c)
}

// inFlight appends the connections that are open to conns, and tells how many
// Accept calls may come back with another one.
func (t *Tracker) inFlight(conns []*conn) (all []*conn, accepting int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	conns = slices.Grow(conns, len(t.conns))
	for c := range t.conns {
		conns = append(conns, c)
	}
	return conns, t.accepting
}

// OwnFile makes remove be called when the drain ends, or by release if that
// comes first.
func (t *Tracker) OwnFile(remove func()) (release func()) {
	f := &file{remove}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.files[f] = struct{}{}
	return func() {
		t.mu.Lock()
		_, here := t.files[f]
		delete(t.files, f)
		t.mu.Unlock()
		if here {
			remove()
		}
	}
}

// removeFiles is the end of all that OwnFile sees to. It may be called twice.
func (t *Tracker) removeFiles() {
	t.mu.Lock()
	files := t.files
	t.files = make(map[*file]struct{})
	t.mu.Unlock()
	for f := range files {
		f.remove()
	}
}
