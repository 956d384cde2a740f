package link

import (
	"context"
	"errors"
)

// In a pause nobody reads the channel of a link and nobody writes to it. So its state
// stands still, and the program that replaces this one can go on with it. Reading and
// writing are paused separately: rooms that answer what arrives, as the broker does, have
// to come to rest after the one and before the other.

// errPaused says that the outbox has not taken the line. It goes no further than unpaused.
var errPaused = errors.New("link: paused")

// writePause is the pause of an outbox. It is guarded by the outbox's lock.
type writePause struct {
	on    bool
	rests chan struct{} // closed when the writer at work has ended; nil after
	over  chan struct{} // closed at the end of the pause
}

// PauseReading returns nil when nobody reads the link any more, or ctx's error. Either way
// Resume has to be called. It deadlocks if the reader waits for its caller.
func PauseReading(ctx context.Context, l *Link) error {
	rests := l.turn.pause()
	l.flow.pause(true)
	l.ch.Interrupt()
	select {
	case <-rests:
		return nil
	case <-l.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// PauseWriting returns when nobody writes to the link any more. From now on messages of
// the application wait for Resume. Lines of the protocol are queued.
func PauseWriting(l *Link) {
	o := &l.out
	o.mu.Lock()
	o.pause = writePause{on: true, over: make(chan struct{})}
	var rests chan struct{}
	if o.writing {
		rests = make(chan struct{})
		o.pause.rests = rests
	}
	o.mu.Unlock()
	if rests != nil {
		<-rests // the writer does not wait for the peer
	}
}

// Resume ends the pause.
func Resume(l *Link) {
	o := &l.out
	o.mu.Lock()
	if o.pause.on {
		close(o.pause.over)
	}
	o.pause = writePause{}
	o.mu.Unlock()
	o.flush(false)
	l.flow.pause(false)
	l.turn.goOn()
}

// rest is called when a writer ends. o.mu is held.
func (o *outbox) rest() {
	o.writing = false
	if o.pause.rests != nil {
		close(o.pause.rests)
		o.pause.rests = nil
	}
}

// unpaused calls put, which may put a line of the application. If a pause has refused the
// line, it waits for the end of the pause and calls put again.
func (o *outbox) unpaused(put func() error) error {
	for {
		err := put()
		if err != errPaused {
			return err
		}
		o.mu.Lock()
		over := o.pause.over
		o.mu.Unlock()
		if over != nil {
			<-over
		}
	}
}
