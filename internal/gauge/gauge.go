// Package gauge has the numbers of a worker that its master reads without asking: how
// many connections the worker has accepted, how many of those are open, and how often it
// has read datagrams that come to several workers.
//
// They are in one page of memory that both processes have. The master makes a [Page]
// and sends its descriptor over the channel to a worker that has said that it knows what
// to do with it. The worker makes a [Writer] of that and is the only one who writes.
// Neither of them waits for the other, and no message is sent for a connection. On Linux
// the page is a memfd whose size is sealed. Elsewhere on unix it is a file without a
// name, which the master reads with pread: a worker that cuts it off would end a master
// that had it in its memory. On Windows there is none, and whoever wants the numbers
// has what the last heartbeat said.
//
// What is on the page is never trusted. A worker can lie about itself and do nothing
// else: what is out of bounds is cut, and nothing that the worker does to the page makes
// a read of the master's fail or wait.
//
// The master owns a Page until Close, which gives memory and descriptor back. One lock
// stands between Close and Read. No other lock is taken, and nothing is waited for, while
// it is held. A Writer has its memory until its process ends, and no lock: its callers
// see to it that there is one at a time.
//
// The tests are of two mappings in one process, and of what a hostile worker can do to the
// page; those of the root have both processes.
package gauge

import (
	"sync"
	"sync/atomic"
)

// Counts are the numbers of a worker.
type Counts struct {
	Accepted int64 // connections, ever
	Open     int64 // of those, and those that it is certain to accept
	Received int64 // reads of datagrams that may be others' as well, ever
}

// size is that of the page in bytes, on every system: one page of the hardware is at
// least as large.
const size = 4096

// words are what is on the page.
type words struct {
	accepted, open atomic.Int64
	mark           atomic.Uint64 // that somebody writes
	received       atomic.Int64
}

const (
	// marked is in words.mark when the worker has written the other two.
	marked = 0x636c7573746572_01
	// most is more than any worker has, and so little that sums do not overflow.
	most = 1 << 48
)

// read returns what is on the page, and false as long as nobody has written.
func (w *words) read() (Counts, bool) {
	if w.mark.Load() != marked {
		return Counts{}, false
	}
	return Counts{bounded(w.accepted.Load()), bounded(w.open.Load()), bounded(w.received.Load())}, true
}

func bounded(n int64) int64 { return min(max(n, 0), most) }

// Page is the master's side. The zero value, and nil, has nothing to read.
type Page struct {
	mu     sync.RWMutex
	source source
	open   bool
}

// New makes a page and returns the descriptor for the worker, which is the caller's to
// close. The error is the system's: there is no memory or no descriptor, or the system
// has no such thing. A worker can do without.
func New() (p *Page, worker int, err error) {
	s, worker, err := newSource()
	if err != nil {
		return nil, -1, err
	}
	return &Page{source: s, open: true}, worker, nil
}

// Read returns the worker's numbers, and false if there are none: the worker has not
// written yet, or the page is closed. It may be called by anyone and does not wait.
func (p *Page) Read() (Counts, bool) {
	if p == nil {
		return Counts{}, false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if !p.open {
		return Counts{}, false
	}
	return p.source.read()
}

// Descriptor is that of the page, for a process that is to go on with it by [Adopt]. It
// stays the Page's. There is none of nil, nor after Close.
func (p *Page) Descriptor() (fd int, ok bool) {
	if p == nil {
		return -1, false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.source.descriptor(), p.open
}

// Adopt makes the Page of a descriptor that another program of this process had, and
// takes it over.
func Adopt(fd int) (*Page, error) {
	s, err := adopt(fd)
	if err != nil {
		return nil, err
	}
	return &Page{source: s, open: true}, nil
}

// Close gives the page back. A second call, and one of nil, does nothing.
func (p *Page) Close() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open {
		p.open = false
		p.source.close()
	}
}

// Writer is the worker's side.
type Writer struct{ *words }

// Set writes the numbers, but for Received. One goroutine at a time may call it.
func (w Writer) Set(c Counts) {
	w.accepted.Store(c.Accepted)
	w.open.Store(c.Open)
	if w.mark.Load() != marked {
		w.mark.Store(marked)
	}
}

// Receive adds one to Received. Anybody may call it.
func (w Writer) Receive() { w.received.Add(1) }
