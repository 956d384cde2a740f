package link

import (
	"sync"
	"sync/atomic"
	"time"
)

// readTurn says who reads a link: its reader, or a caller of Request that asks again
// and again and reads the answers itself. Being woken by the reader would cost
// it more than all the rest: where a P is idle, the runtime wakes another thread
// for that as well.
//
// Between two requests of such a caller nobody reads, since to pass the turn back
// and forth would cost what it saves: until the next one, or until no caller has
// come back for one to two graces.
type readTurn struct {
	mu      sync.Mutex
	changed sync.Cond
	holder  holder
	granted chan struct{} // closed when the caller that asked has it
	free    atomic.Bool   // nobody has it; for a look without the lock
	timer   *time.Timer   // gives it back to the reader
	armed   bool          // timer is running

	end  time.Duration // when the last request ended, since epoch
	left time.Duration // when a caller last left it to nobody
	run  int           // requests that followed so soon on another, in a row
}

type holder int

const (
	reader  holder = iota
	leaving        // the reader, which is to pass it to a caller
	caller
	nobody
)

const (
	// soon is after how long a request still follows on the last one.
	soon = 50 * time.Microsecond
	// soonRun is how many have to before the caller asks for the turn: that
	// costs more than a request.
	soonRun = 8
	// grace is how long nobody holds it, about. The runtime's timers make a
	// millisecond of it where nothing else runs.
	grace = 400 * time.Microsecond
)

func (b *readTurn) init() { b.changed.L = &b.mu }

// await returns when the reader has the turn. It passes it to a caller that has
// asked.
func (b *readTurn) await() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.holder != reader {
		if b.holder == leaving {
			b.holder = caller
			close(b.granted)
		}
		b.changed.Wait()
	}
}

// begin is called once c is on its way. It reports whether the caller has the
// readTurn, or returns what is closed when it will: then the reader is to be
// interrupted.
func (b *readTurn) begin(c *call) (mine bool, granted <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.holder == nobody {
		b.holder = caller
		b.free.Store(false)
		return true, nil
	}
	if !c.alone || c.began-b.end > soon {
		b.run = 0
		return false, nil
	}
	if b.run++; b.run < soonRun || b.holder != reader {
		return false, nil
	}
	b.run = 0
	b.holder = leaving
	b.granted = make(chan struct{})
	return false, b.granted
}

// withdraw is for a caller that has asked for the turn and needs it no more. It
// reports whether it got it all the same.
func (b *readTurn) withdraw() (mine bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.holder == caller {
		return true
	}
	b.holder = reader
	return false
}

// ended is called at the end of a request of which the caller did not read.
func (b *readTurn) ended() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end = time.Since(epoch)
}

// leave is called at the end of a request of which the caller has read the answer:
// nobody has the turn now.
func (b *readTurn) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end = time.Since(epoch)
	b.left = b.end
	b.holder = nobody
	b.free.Store(true)
	if b.armed {
		return
	}
	b.armed = true
	if b.timer == nil {
		b.timer = time.AfterFunc(grace, b.expire)
	} else {
		b.timer.Reset(grace)
	}
}

// giveUp is called by a caller that has the turn and reads no more, without an
// answer.
func (b *readTurn) giveUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end = time.Since(epoch)
	b.giveBack()
}

// giveBack gives the turn to the reader. b.mu is held.
func (b *readTurn) giveBack() {
	b.holder = reader
	b.free.Store(false)
	b.changed.Signal()
}

// expire is what the timer does, for as long as callers come back. It is set for
// what remains of the grace, so that a caller that asks again and again costs a
// timer for each grace and not for each request.
func (b *readTurn) expire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	remains := grace
	if b.holder == nobody {
		remains -= time.Since(epoch) - b.left
	}
	if b.holder == nobody && remains <= 0 {
		b.giveBack()
	}
	if b.armed = b.holder != reader; b.armed {
		b.timer.Reset(remains)
	}
}

// pickUp gives the turn to the reader if nobody has it: something waits for the
// peer, or the link is at its end.
func (b *readTurn) pickUp() {
	if !b.free.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.holder == nobody {
		b.giveBack()
	}
}
