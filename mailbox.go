package cluster

import "sync"

// mailbox is the one goroutine that owns a state: functions posted to it run
// one after another. The goroutine exists only while there is something to run,
// so that an idle master has none. A posted function must not wait for anything.
type mailbox struct {
	mu      sync.Mutex
	queue   []func()
	running bool
}

// post queues fn and returns.
func (b *mailbox) post(fn func()) {
	b.mu.Lock()
	b.queue = append(b.queue, fn)
	start := !b.running
	b.running = true
	b.mu.Unlock()
	if start {
		go b.run()
	}
}

// call runs fn in its turn and returns when it has run. It must not be called
// by a posted function.
func (b *mailbox) call(fn func()) {
	done := make(chan struct{})
	b.post(func() {
		defer close(done)
		fn()
	})
	<-done
}

func (b *mailbox) run() {
	for {
		b.mu.Lock()
		queue := b.queue
		b.queue = nil
		b.running = len(queue) > 0
		b.mu.Unlock()
		if len(queue) == 0 {
			return
		}
		for _, fn := range queue {
			fn()
		}
	}
}
