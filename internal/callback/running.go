package callback

import "sync"

// Running counts calls that have begun and not ended, for somebody who waits until
// nothing is under way. It is no sync.WaitGroup: there the first of a new row may
// not begin while somebody still waits for the last one, and requests do arrive
// during a drain. The zero value is ready.
type Running struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // closed when n becomes 0; nil while nobody waits
}

// Begin counts one more.
func (r *Running) Begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
}

// End counts one less.
func (r *Running) End() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n--; r.n == 0 && r.none != nil {
		close(r.none)
		r.none = nil
	}
}

// Wait returns when there was a moment with nothing under way.
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
