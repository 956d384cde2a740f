package link

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// readTurn says who reads a link: its reader, or a caller of Request. A caller that
// asks again and again reads the answers itself. For the reader to wake that caller would
// cost more than all the rest, since the runtime wakes another thread as well where a P is
// idle.
//
// Between two requests of such a caller nobody has the turn: to pass it back and forth
// would cost what it saves. The reader gets it back when no request has come for one to
// two graces.
//
// Nobody has the turn either while the reader answers a request itself, or delivers messages
// (takeHere). It does so if the last handlers have returned soon. If this one takes longer
// than a grace, another goroutine becomes the reader.
type readTurn struct {
	mu      sync.Mutex
	changed sync.Cond
	holder  holder
	granted chan struct{} // closed when the caller that asked for the turn has it
	free    atomic.Bool   // nobody has the turn; for a look without the lock
	timer   *time.Timer   // gives the turn back to the reader
	armed   bool          // timer is running
	pausing atomic.Bool   // nobody may read; set under mu
	rests   chan struct{} // closed when nobody reads in a pause; nil after

	end  time.Duration // when the last request ended, since epoch
	left time.Duration // when the turn was last left to nobody
	run  int           // requests in a row, each within soon of the end of the one before

	answering bool   // the reader answers a request or delivers, and calls back after it
	quick     int    // requests of the peer in a row, each answered within soon
	replace   func() // makes another goroutine the reader; takes no lock
}

type holder int

const (
	byReader  holder = iota
	byLeaving        // by the reader, which will pass the turn to a caller
	byCaller
	byNobody
)

const (
	// soon bounds the time from the end of a request to the next one, for the next one
	// to count as following at once. It also bounds the time in which a request of the
	// peer is answered, for its handler to count as quick.
	soon = 50 * time.Microsecond
	// soonRun is how many requests in a row have to follow at once before the caller
	// asks for the turn, which costs more than a request. It is also how many handlers
	// in a row have to be quick before the reader answers the next request itself.
	soonRun = 8
	// grace is about how long nobody holds the turn. The runtime's timers make a
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

// pause asks for a rest in which nobody reads. rests is closed when the rest has come.
// The caller of pause has to interrupt whoever reads.
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

// begin is called once c is on its way. mine reports that its caller has the turn. If
// granted is not nil, the caller will get the turn from the reader: it has to interrupt
// the reader, and granted is closed when it has the turn.
func (t *readTurn) begin(c *call) (mine bool, granted <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.holder == byNobody {
		t.holder = byCaller
		t.free.Store(false)
		t.unarm()
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

// withdraw takes back a caller's wish for the turn. It reports whether the caller has got
// the turn before.
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

// lend is called by the reader before it answers a request, or delivers messages. If it
// returns true, nobody reads meanwhile, and the reader calls back afterwards. Otherwise the
// reader has to let another goroutine read. quick is how many requests in a row have to have
// been answered soon.
func (t *readTurn) lend(now time.Duration, quick int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.quick < quick || t.holder != byReader || t.pausing.Load() {
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

// back is called after lend, when the request is answered, or the messages are delivered. It reports whether the calling
// goroutine is still the reader. If not, another goroutine has become the reader.
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
		t.unarm()
	}
	return true
}

// leaveAt leaves the turn to nobody. t.mu is held.
func (t *readTurn) leaveAt(now time.Duration) {
	t.left = now
	if t.pausing.Load() {
		t.giveBack() // the reader rests in await
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

// unarm stops the timer, now that somebody has the turn again, if GOMAXPROCS is 1. While a
// timer is pending, each wait for the peer sets the clock of the core and sets it back. In a
// virtual machine that takes microseconds, and to stop and set a timer takes a fraction of
// one. With a larger GOMAXPROCS it is the other way round: a timer that is set wakes another
// thread. t.mu is held.
func (t *readTurn) unarm() {
	if t.armed && runtime.GOMAXPROCS(0) == 1 {
		t.timer.Stop() // if expire has begun already, it finds that somebody has the turn
		t.armed = false
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

// giveBack gives the turn to the reader. If the reader is answering a request, another
// goroutine becomes the reader. t.mu is held.
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

// expire is called by the timer. It gives the turn back if no request has come for
// a grace, and otherwise sets the timer for what remains of the grace. So a caller that
// asks again and again costs a timer for each grace and not for each request.
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

// pickUp gives the turn to the reader if nobody has it. It is called when something waits
// for the peer, and at the end of the link.
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
