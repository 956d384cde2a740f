package link

import "sync"

// flow bounds, in bytes, the input that was read and not delivered. Beyond the bound the
// channel is not read, so that the peer has to wait.
type flow struct {
	mu       sync.Mutex
	changed  sync.Cond
	max      int
	bytes    int
	waiting  int  // messages for which there is no handler
	requests int  // requests for which there is no handler
	reported bool // that they fill the bound was reported
	waiters  int  // calls of this side, whose answers may stand behind other input
	final    bool // there is no bound any more: see open
	paused   bool // nothing is delivered, and nobody reads: see PauseReading
}

// floodAllowance is how far beyond the bound the channel is read while a call
// waits for its answer: the default MaxQueue of package cluster once more.
const floodAllowance = 64 << 20

func (f *flow) init(max int) {
	f.max = max
	f.changed.L = &f.mu
}

// full reports whether the reader has to wait. f.mu is held.
func (f *flow) full() bool {
	return !f.final && !f.paused && f.bytes > f.max && (f.waiters == 0 || f.bytes > f.max+floodAllowance)
}

// enter reports whether the reader may go on.
func (f *flow) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.full()
}

// unclaimed reports whether messages or requests without a handler fill the bound. It
// returns true once each time that this happens.
func (f *flow) unclaimed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := f.waiting+f.requests > 0 && !f.reported
	f.reported = f.reported || first
	return first
}

// wait returns when the reader may go on, or when unclaimed would return true.
func (f *flow) wait() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.full() && (f.waiting+f.requests == 0 || f.reported) {
		f.changed.Wait()
	}
}

// update calls change with the lock held, and wakes a reader that waits.
func (f *flow) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	wasFull := f.full()
	change()
	if wasFull {
		f.changed.Broadcast()
	}
}

// add counts n bytes that were read.
func (f *flow) add(n int) { f.update(func() { f.bytes += n }) }

// release counts n bytes that are delivered.
func (f *flow) release(n int) { f.update(func() { f.bytes -= n }) }

// expect notes that a call waits (1) or has ended (-1).
func (f *flow) expect(n int) { f.update(func() { f.waiters += n }) }

// setWaiting notes how many messages wait for a handler.
func (f *flow) setWaiting(n int) {
	f.update(func() {
		f.waiting = n
		f.reported = f.reported && f.waiting+f.requests > 0
	})
}

// addRequests notes that n more requests wait for a handler.
func (f *flow) addRequests(n int) {
	f.update(func() {
		f.requests += n
		f.reported = f.reported && f.waiting+f.requests > 0
	})
}

// pause makes a reader that waits for deliveries go on, so that it comes to its rest in
// readTurn.
func (f *flow) pause(paused bool) { f.update(func() { f.paused = paused }) }

// open removes the bound, at the end of the channel: little is left in the kernel.
func (f *flow) open() { f.update(func() { f.final = true }) }
