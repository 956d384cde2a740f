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
	lastCall atomic.Bool // the drain has begun, but connections that are queued are still taken
	orphaned atomic.Bool // the master is gone
	limit    int64       // after how many connections in all full is called; 0: never
	full     func()
	most     int         // connections at a time; 0: any number
	filled   func()      // called when there is no room
	room     func()      // called when there is room again
	accepts  func()      // called at the first Accept or ReadFrom
	asked    atomic.Bool // accepts was called

	mu        sync.Mutex
	stoppers  map[stopper]struct{} // what a drain stops
	conns     list                 // accepted and not closed
	accepted  int64                // connections, since the beginning
	accepting int                  // Accept calls that may come back with a connection
	others    int                  // connections that this package does not wrap
	reserved  int                  // connections that an Accept is certain to return
	publish   func(Counts)         // or nil
	roomier   sync.Cond            // with mu: what beginAccept waits for may have changed
	files     map[*file]struct{}
}

// list are connections, one after another, so that none has to be looked for.
type list struct {
	first *conn
	n     int
}

func (l *list) add(c *conn) {
	if c.next = l.first; c.next != nil {
		c.next.prev = c
	}
	l.first = c
	l.n++
}

// remove removes c, which is in the list.
func (l *list) remove(c *conn) {
	if c.next != nil {
		c.next.prev = c.prev
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.first = c.next
	}
	c.prev, c.next = nil, nil
	l.n--
}

// stopper is something that a drain stops from taking on work.
type stopper interface{ stop() }

// file is the file of a unix socket that only this worker has.
type file struct{ remove func() }

// Limits are how many connections a worker takes. 0 is any number.
type Limits struct {
	Ever int // in all; then Hooks.Full is called
	Open int // at a time: see places.go
}

func newTracker(limits Limits, full, accepts, filled, room func()) *Tracker {
	t := &Tracker{
		limit: int64(limits.Ever), full: full, most: limits.Open, filled: filled, room: room, accepts: accepts,
		stoppers: make(map[stopper]struct{}),
		files:    make(map[*file]struct{}),
	}
	t.roomier.L = &t.mu
	return t
}

// Draining reports whether the drain has begun.
func (t *Tracker) Draining() bool { return t.draining.Load() }

// Counts returns how many connections were accepted in all, and how many of those
// are not closed yet.
func (t *Tracker) Counts() (accepted int64, active int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.accepted, t.conns.n + t.others
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
	t.lookAgain() // Accept calls that waited for room
}

// entered returns what a drain stops.
func (t *Tracker) entered() []stopper {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.stoppers))
}

// Asks says that the program asks for a connection or a datagram. It is for sockets that
// this package does not wrap.
func (t *Tracker) Asks() { t.asks() }

// asks is called when the program asks for a connection or a datagram. The first time, on
// whatever socket, says that the worker may take traffic.
func (t *Tracker) asks() {
	if !t.asked.Load() && !t.asked.Swap(true) {
		t.accepts()
	}
}

// beginAccept waits for room and notes that a connection may come to l. It returns false
// if a drain has begun. A connection that accept(2) has returned and that is in no list
// yet counts here.
func (t *Tracker) beginAccept(l *Listener) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		if t.Draining() && !t.lastCall.Load() {
			return false
		}
		if l.reserves || !t.isFull() || l.ended() {
			t.accepting++
			return true
		}
		t.roomier.Wait()
	}
}

// endAccept notes how an Accept of l ended: c, unless nil, is in flight until it is
// closed.
func (t *Tracker) endAccept(l *Listener, c *conn) {
	t.mu.Lock()
	t.accepting--
	if c != nil && l.reserves {
		t.reserved--
	}
	t.noteAndUnlock(c)
}

// arrived notes that c, which came with a message, is in flight.
func (t *Tracker) arrived(c *conn) {
	t.mu.Lock()
	t.noteAndUnlock(c)
}

// noteAndUnlock notes that c, unless nil, is in flight, and calls the hooks that follow
// from it. It is called with t.mu held, and releases it.
func (t *Tracker) noteAndUnlock(c *conn) {
	last, filled := false, false
	if c != nil {
		t.conns.add(c)
		t.accepted++
		last, filled = t.accepted == t.limit, t.isFull()
		t.show()
	}
	t.mu.Unlock()
	if filled {
		t.interrupt()
	}
	if last {
		t.full()
	}
}

func (t *Tracker) forget(c *conn) {
	t.mu.Lock()
	was := t.isFull()
	t.conns.remove(c)
	t.leftAndUnlock(was)
}

// inFlight appends the connections that are open to conns, and tells how many
// Accept calls may come back with another one.
func (t *Tracker) inFlight(conns []*conn) (all []*conn, accepting int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	conns = slices.Grow(conns, t.conns.n)
	for c := t.conns.first; c != nil; c = c.next {
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

// removeFiles removes all files of OwnFile. It may be called twice.
func (t *Tracker) removeFiles() {
	t.mu.Lock()
	files := t.files
	t.files = make(map[*file]struct{})
	t.mu.Unlock()
	for f := range files {
		f.remove()
	}
}
