// Package gauge has the numbers of a worker that its master reads without asking: how
// many connections the worker has accepted, how many of those are open, and how often it
// has read datagrams that come to several workers.
//
// The numbers are in one page of memory that both processes have. The master makes a [Page]
// and sends its descriptor over the channel, to a worker that has said that it takes one.
// The worker makes a [Writer] of the descriptor, and nobody else writes. Neither process
// waits for the other, and a connection costs no message.
//
// On Linux the page is a memfd whose size is sealed. On the other unixes it is a file
// without a name. The master reads that file with pread and does not map it: a worker could
// truncate it, and the next read of the mapped memory would end the master. Windows has no
// page, so there the numbers are those of the worker's last heartbeat.
//
// The page is never trusted. A worker can lie about itself, and nothing else: numbers out
// of bounds are cut, and nothing that the worker does to the page makes the master's read
// fail or wait.
//
// The master owns a Page until Close, which gives memory and descriptor back. One lock
// keeps Close and Read apart. While it is held no other lock is taken, and nothing is
// waited for. A Writer has its memory until its process ends. It has no lock: its callers
// see to it that only one of them calls Set at a time.
//
// The tests here map a page twice in one process, and try what a hostile worker can do to
// the page. The tests of the root have both processes.
package gauge

import (
	"sync"
	"sync/atomic"
)

// Counts are the numbers of a worker.
type Counts struct {
	Accepted int64 // connections, ever
	Open     int64 // connections that are open, and those that the worker is certain to accept
	Received int64 // reads of datagrams on sockets that several workers read, ever
}

// size is the size of the page in bytes, on every system: a page of the hardware is at
// least as large.
const size = 4096

// words is the layout of the page.
type words struct {
	accepted, open atomic.Int64
	mark           atomic.Uint64 // marked, once the worker has called Set
	received       atomic.Int64
}

const (
	// marked tells a page that the worker has written from a new one, which is all zero.
	marked = 0x636c7573746572_01
	// most is more than any worker has, and so little that sums do not overflow.
	most = 1 << 48
)

// read returns the numbers, and false as long as the worker has not written them.
func (w *words) read() (Counts, bool) {
	if w.mark.Load() != marked {
		return Counts{}, false
	}
	return Counts{bounded(w.accepted.Load()), bounded(w.open.Load()), bounded(w.received.Load())}, true
}

func bounded(n int64) int64 { return min(max(n, 0), most) }

// Page is the master's side. The zero value and nil are pages without numbers.
type Page struct {
	mu     sync.RWMutex
	source source
	open   bool
}

// New makes a page and returns the descriptor for the worker, which the caller closes. The
// error is the system's: no memory or no descriptor is free, or the system has no such page.
// A worker can do without a page.
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

// Descriptor returns the descriptor of the page, for the program that goes on with the page
// after an upgrade (see [Adopt]). The Page still owns it. ok is false for nil, and after
// Close.
func (p *Page) Descriptor() (fd int, ok bool) {
	if p == nil {
		return -1, false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.source.descriptor(), p.open
}

// Adopt makes a Page of the descriptor that this process's program had before an upgrade.
// The Page owns the descriptor from then on.
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

// Set writes all numbers but Received. One goroutine at a time may call it.
func (w Writer) Set(c Counts) {
	w.accepted.Store(c.Accepted)
	w.open.Store(c.Open)
	if w.mark.Load() != marked {
		w.mark.Store(marked)
	}
}

// Receive adds one to Received. Any goroutine may call it.
func (w Writer) Receive() { w.received.Add(1) }
