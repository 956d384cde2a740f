package drain

// This file bounds how many connections a worker has at a time. A worker that is full
// accepts no more: new connections wait in the kernel's queue, for other workers or for
// the next place here.
//
// An Accept of a shared socket waits for a place before it begins. When a worker fills up,
// by whatever listener, the Accept calls under way are interrupted (by a deadline of
// their source) and wait as well. A source whose connections were accepted by another
// process takes a place itself, with Reserve, since it can give them back. What this
// package does not wrap takes one with Connects.

// Counts are how many connections a worker has.
type Counts struct {
	Accepted int64 // since the beginning
	Open     int64 // not closed, with those that an Accept is certain to return
}

// Publish calls fn now and at each change, with the numbers of that moment. fn is called
// with the lock held, so by one goroutine at a time, and must not wait.
func (t *Tracker) Publish(fn func(Counts)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.publish = fn
	t.show()
}

// show publishes the numbers. t.mu is held.
func (t *Tracker) show() {
	if t.publish != nil {
		t.publish(Counts{t.accepted, int64(t.taken())})
	}
}

// taken is how many places are taken. t.mu is held.
func (t *Tracker) taken() int { return t.conns.n + t.others + t.reserved }

// isFull is Full with t.mu held.
func (t *Tracker) isFull() bool { return t.most > 0 && t.taken() >= t.most }

// Full reports whether this worker has as many connections as it may.
func (t *Tracker) Full() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.isFull()
}

// Room returns how many places are left, less than 0 if more are taken than there are, and
// false if there is no bound.
func (t *Tracker) Room() (places int, bounded bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.most - t.taken(), t.most > 0
}

// Reserve takes a place for a connection that an Accept is certain to return. It reports
// false if there is none.
func (t *Tracker) Reserve() bool {
	t.mu.Lock()
	if t.isFull() {
		t.mu.Unlock()
		return false
	}
	t.reserved++
	t.show()
	filled := t.isFull()
	t.mu.Unlock()
	if filled {
		t.interrupt()
	}
	return true
}

// Unreserve gives a place of Reserve back: no connection comes.
func (t *Tracker) Unreserve() {
	t.mu.Lock()
	was := t.isFull()
	t.reserved--
	t.leftAndUnlock(was)
}

// Connects takes a place for a connection that this package does not wrap, one of QUIC, if
// need be beyond the bound: its client has been heard. accepted is to be called when the
// program has it, and ended when it is no more, once each.
func (t *Tracker) Connects() (accepted, ended func()) {
	t.mu.Lock()
	t.others++
	t.show()
	filled := t.isFull()
	t.mu.Unlock()
	if filled {
		t.interrupt()
	}
	return t.countOther, func() {
		t.mu.Lock()
		was := t.isFull()
		t.others--
		t.leftAndUnlock(was)
	}
}

func (t *Tracker) countOther() {
	t.mu.Lock()
	t.accepted++
	last := t.accepted == t.limit
	t.show()
	t.mu.Unlock()
	if last {
		t.full()
	}
}

// leftAndUnlock is called when a place has become free; was says that the worker was full
// before. It is called with t.mu held, and releases it.
func (t *Tracker) leftAndUnlock(was bool) {
	t.show()
	now := was && !t.isFull()
	if now {
		t.roomier.Broadcast()
	}
	t.mu.Unlock()
	if now {
		t.room()
	}
}

// lookAgain wakes the Accept calls that wait for room.
func (t *Tracker) lookAgain() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.roomier.Broadcast()
}

// interrupt makes the Accept calls under way wait for room.
func (t *Tracker) interrupt() {
	for _, s := range t.entered() {
		if l, ok := s.(*Listener); ok && !l.reserves {
			l.interrupt()
		}
	}
	t.filled()
}
