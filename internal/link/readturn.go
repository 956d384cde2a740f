package link

import (
	"sync"
	"sync/atomic"
	"time"
)

// readTurn says who reads a link: its reader, or a caller of Request. A caller that
// asks again and again reads the answers itself. If the reader had to wake it, that
// would cost more than all the rest: where a P is idle, the runtime wakes another
// thread for it as well.
//
// Between two requests of such a caller nobody reads. To pass the turn back and
// forth would cost what it saves. The reader gets it back when no caller has come
// for one to two graces.
//
// The reader leaves the turn to nobody as well, while it answers a request itself
// whose handler will return soon, as far as one can tell from the last ones. If that
// takes longer than a grace, another goroutine becomes the reader.
type readTurn struct {
	mu      sync.Mutex
	changed sync.Cond
	holder  holder
	granted chan struct{} // closed when the caller that asked has it
	free    atomic.Bool   // nobody has it; for a look without the lock
	timer   *time.Timer   // gives it back to the reader
	armed   bool          // timer is running
	pausing atomic.Bool   // nobody reads any more; set under mu
	rests   chan struct{} // closed when the reader has come to rest in that; nil after

	end  time.Duration // when the last request ended, since epoch
	left time.Duration // when it was last left to nobody
	run  int           // requests that followed so soon on another, in a row

	answering bool   // the reader answers a request, and comes back
	quick     int    // requests of the peer that were answered so soon, in a row
	replace   func() // makes another goroutine the reader; takes no lock
}

type holder int

const (
	byReader  holder = iota
	byLeaving        // by the reader, which is to pass the turn to a caller
	byCaller
	byNobody
)

const (
	// soon is after how long a request still follows on the last one, and how long
	// its answer may take, if the reader is to answer the next one itself.
	soon = 50 * time.Microsecond
	// soonRun is how many have to before the caller asks for the turn: that
	// costs more than a request. So many have to be answered soon before the reader
	// answers one itself.
	soonRun = 8
	// grace is how long nobody holds it, about. The runtime's timers make a
	// millisecond of it where nothing else runs.
	grace = 400 * time.Microsecond
)

func (t *readTurn) init(replace func()) { t.changed.L, t.replace = &t.mu, replace }

// await returns when the reader has the turn. It passes it to a caller that has
// asked.
func (t *readTurn) await() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.holder != byReader || t.pausing.Load() {
		switch {
		case t.holder == byLeaving:
			t.holder = byCaller
			close(t.granted)
		case t.holder == byReader && t.rests != nil:
			close(t.rests)
			t.rests = nil
		}
		t.changed.Wait()
	}
}

// pause asks for a rest, in which nobody reads, and returns what is closed when it has
// come. The reader, and a caller that reads, are to be interrupted.
func (t *readTurn) pause() (rests <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rests = make(chan struct{})
	rests = t.rests
	t.pausing.Store(true)
	if t.holder == byNobody {
		t.giveBack()
	}
	t.changed.Signal()
	return rests
}

// goOn ends the rest.
func (t *readTurn) goOn() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pausing.Store(false)
	t.rests = nil
	t.changed.Signal()
}

// begin is called once c is on its way. It reports whether the caller has the turn.
// If it will get the turn from the reader it returns what is closed then, and the
// reader is to be interrupted.
func (t *readTurn) begin(c *call) (mine bool, granted <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.holder == byNobody {
		t.holder = byCaller
		t.free.Store(false)
		return true, nil
	}
	if !c.alone || c.began-t.end > soon || t.pausing.Load() {
		t.run = 0
		return false, nil
	}
	if t.run++; t.run < soonRun || t.holder != byReader {
		return false, nil
	}
	t.run = 0
	t.holder = byLeaving
	t.granted = make(chan struct{})
	return false, t.granted
}

// withdraw is for a caller that has asked for the turn and needs it no more. It
// reports whether the caller got it all the same.
func (t *readTurn) withdraw() (mine bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.holder == byCaller {
		return true
	}
	t.holder = byReader
	return false
}

// ended is called at the end of a request whose answer the reader has read.
func (t *readTurn) ended() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = time.Since(epoch)
}

// leave is called at the end of a request whose answer the caller has read. Nobody
// has the turn now.
func (t *readTurn) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = time.Since(epoch)
	t.leaveAt(t.end)
}

// lend is called by the reader before it answers a request. It reports whether the
// reader may do so itself, with nobody reading meanwhile: then it calls back at the
// end, and else lets another goroutine read.
func (t *readTurn) lend(now time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.quick < soonRun || t.holder != byReader || t.pausing.Load() {
		return false
	}
	t.answering = true
	t.leaveAt(now)
	return true
}

// answered notes how long it took to answer a request.
func (t *readTurn) answered(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.quick++; took > soon {
		t.quick = 0
	}
}

// back is called by the reader when it has answered a request itself. It reports
// whether the caller is still the reader: if not, another goroutine is by now.
func (t *readTurn) back() (reads bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.answering {
		return false
	}
	t.answering = false
	if t.holder == byNobody {
		t.holder = byReader
		t.free.Store(false)
	}
	return true
}

// leaveAt leaves the turn to nobody. t.mu is held.
func (t *readTurn) leaveAt(now time.Duration) {
	t.left = now
	if t.pausing.Load() {
		t.giveBack() // which rests
		return
	}
	t.holder = byNobody
	t.free.Store(true)
	if t.armed {
		return
	}
	t.armed = true
	if t.timer == nil {
		t.timer = time.AfterFunc(grace, t.expire)
	} else {
		t.timer.Reset(grace)
	}
}

// giveUp is called by a caller that has the turn and reads no more, without an
// answer.
func (t *readTurn) giveUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = time.Since(epoch)
	t.giveBack()
}

// giveBack gives the turn to the reader. If that one answers a request, there is a new
// one. t.mu is held.
func (t *readTurn) giveBack() {
	t.holder = byReader
	t.free.Store(false)
	if t.answering {
		t.answering = false
		t.replace()
		return
	}
	t.changed.Signal()
}

// expire is what the timer does. It gives the turn back when no caller has come for
// a grace, and else sets the timer for what remains. So a caller that asks again and
// again costs a timer for each grace and not for each request.
func (t *readTurn) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	remains := grace
	if t.holder == byNobody {
		remains -= time.Since(epoch) - t.left
	}
	if t.holder == byNobody && remains <= 0 {
		t.giveBack()
	}
	if t.armed = t.holder != byReader; t.armed {
		t.timer.Reset(remains)
	}
}

// pickUp gives the turn to the reader if nobody has it: something waits for the
// peer, or the link is at its end.
func (t *readTurn) pickUp() {
	if !t.free.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.holder == byNobody {
		t.giveBack()
	}
}
