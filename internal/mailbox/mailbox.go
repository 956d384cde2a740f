// Package mailbox has one goroutine that owns a state. Functions posted to a Mailbox run
// one after another, in the order in which they were posted. State that only they touch
// needs no lock.
//
// The goroutine exists only while there is something to run: an idle cluster has none. A
// posted function must not wait, since all others would wait with it: not for the
// network, not for a callback, not for another function of the same mailbox.
//
// There is one lock, on the queue. It is never held while a posted function runs. So a
// caller of Post may hold a lock of its own. Any goroutine may call Post.
//
// A posted function may end its goroutine by runtime.Goexit, for instance if it calls a
// function of the application. Then another goroutine goes on.
package mailbox

import (
	"sync"

	"github.com/go-cluster/cluster/internal/callback"
)

// Mailbox runs posted functions one after another. The zero value is ready.
type Mailbox struct {
	mu      sync.Mutex
	queue   []func()
	running bool // the goroutine exists, and will look at queue again

	// Of the goroutine alone:
	batch []func() // taken from queue
}

// Post queues fn and returns.
func (b *Mailbox) Post(fn func()) {
	b.mu.Lock()
	b.queue = append(b.queue, fn)
	start := !b.running
	b.running = true
	b.mu.Unlock()
	if start {
		go callback.Loop(b.step)
	}
}

// Call posts fn and returns when fn has run. A posted function must not use Call: it would
// wait for itself.
func (b *Mailbox) Call(fn func()) {
	done := make(chan struct{})
	b.Post(func() {
		defer close(done)
		fn()
	})
	<-done
}

// step runs the next function. It returns false if there is none, and then the goroutine
// ends.
func (b *Mailbox) step() (more bool) {
	if len(b.batch) == 0 && !b.fetch() {
		return false
	}
	fn := b.batch[0]
	b.batch[0] = nil
	b.batch = b.batch[1:]
	fn()
	return true
}

func (b *Mailbox) fetch() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.batch, b.queue = b.queue, nil
	b.running = len(b.batch) > 0
	return b.running
}
