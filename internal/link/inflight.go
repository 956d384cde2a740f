package link

import "sync"

// inFlight counts what has begun and not ended, for somebody who waits until
// nothing is under way. It is no sync.WaitGroup: there the first of a new row may
// not begin while somebody still waits for the last one, and requests do arrive
// during a drain.
type inFlight struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // closed when n becomes 0; nil while nobody waits
}

func (f *inFlight) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
}

func (f *inFlight) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n == 0 && f.none != nil {
		close(f.none)
		f.none = nil
	}
}

// wait returns when there was a moment with nothing under way.
func (f *inFlight) wait() {
	f.mu.Lock()
	if f.n == 0 {
		f.mu.Unlock()
		return
	}
	if f.none == nil {
		f.none = make(chan struct{})
	}
	none := f.none
	f.mu.Unlock()
	<-none
}
