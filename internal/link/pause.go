package link

import (
	"context"
	"errors"
)

// The pause of a link: nobody reads its channel and nobody writes to it, so that its state
// is what another program of this process can go on with. It has two halves, for what is
// between the rooms: who is asked by what arrives has to rest after the reading, and
// before the writing.

// errPaused says that the line was not taken, since nobody writes for now.
var errPaused = errors.New("link: paused")

// writePause is that of an outbox. It is guarded by the outbox's lock.
type writePause struct {
	on    bool
	rests chan struct{} // closed when the writer at work has come to an end; nil after
	over  chan struct{} // closed at the end of the pause
}

// PauseReading returns when nobody reads the link any more, or with ctx's error.
// Resume is to be called in any case. The reader must not wait for the caller.
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

// PauseWriting returns when nobody writes to the link any more. What applications say
// from now on waits for Resume; what this side says itself is queued.
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

// rest is called where a writer ends. o.mu is held.
func (o *outbox) rest() {
	o.writing = false
	if o.pause.rests != nil {
		close(o.pause.rests)
		o.pause.rests = nil
	}
}

// unpaused calls what may put a line of the application's, again after each pause.
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
