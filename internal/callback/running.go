package callback

import "sync"

// Running counts calls that have begun and not ended. Wait waits until there are none. A
// sync.WaitGroup would not do: its count must not rise from 0 while somebody still waits,
// and requests do arrive during a drain. The zero value is ready.
type Running struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // closed when n becomes 0; nil while nobody waits
}

// Begin counts one call more.
func (r *Running) Begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
}

// End counts one call less.
func (r *Running) End() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n--; r.n == 0 && r.none != nil {
		close(r.none)
		r.none = nil
	}
}

// Wait returns when there was a moment without a call under way.
func (r *Running) Wait() {
	r.mu.Lock()
	if r.n == 0 {
		r.mu.Unlock()
		return
	}
	if r.none == nil {
		r.none = make(chan struct{})
	}
	none := r.none
	r.mu.Unlock()
	<-none
}
