package link

import (
	"cmp"
	"slices"
	"sync"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/wire"
)

// receipts are the callbacks that wait until the peer has received a message. A question
// with a number follows such a message, and the peer answers with the number when it has
// read that far. A peer that is not known yet is asked when it is known. Node is not
// asked: with node a message counts as received when it is written.
type receipts struct {
	*core

	mu        sync.Mutex
	peer      PeerKind
	sent      uint64    // the last number that was given
	wait      []receipt // oldest first
	forgotten int       // how many in wait are forgotten
}

// receipt has fn called when the peer has received all up to n.
type receipt struct {
	n    uint64
	size int         // of the line
	pos  uint64      // in the outbox, for a peer that gives no receipts
	fn   func(error) // nil if it is forgotten
}

// send sends line, with h unless that is nil. It takes h over. fn is called when the line
// has arrived. n is the receipt's number, for forget.
func (r *receipts) send(kind lineKind, h *handle.Handle, line []byte, fn func(error)) (n uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := receipt{n: r.sent + 1, size: len(line), fn: fn}
	if r.peer == PeerGo {
		var room [wire.CallHead]byte
		one.pos, err = r.out.put(kind, h, line, wire.AppendCount(room[:0], wire.ActAsk, one.n))
	} else {
		one.pos, err = r.out.put(kind, h, line)
	}
	if err != nil {
		return 0, err
	}
	r.sent++
	if r.peer == PeerNode {
		// Under the lock, for the order of the callbacks: fn does not wait.
		r.out.whenWritten(one.pos, fn)
		return one.n, nil
	}
	r.wait = append(r.wait, one)
	if kind != promptLine || r.peer == PeerUnknown { // otherwise the caller may read the receipt itself
		r.turn.pickUp()
	}
	return one.n, nil
}

// forget is called when nobody waits for the receipt n any more: a receipt that never
// comes must not take memory for as long as the peer lives. Forgotten receipts are removed
// when they are more than half of all, so that each costs little.
func (r *receipts) forget(n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, waits := slices.BinarySearchFunc(r.wait, n, func(one receipt, n uint64) int { return cmp.Compare(one.n, n) })
	if !waits || r.wait[i].fn == nil {
		return
	}
	r.wait[i].fn = nil
	r.forgotten++
	if 2*r.forgotten > len(r.wait) {
		r.wait = r.remembered()
		r.forgotten = 0
	}
}

// remembered is a copy of wait without the forgotten receipts. r.mu is held.
func (r *receipts) remembered() []receipt {
	kept := make([]receipt, 0, len(r.wait)-r.forgotten)
	for _, one := range r.wait {
		if one.fn != nil {
			kept = append(kept, one)
		}
	}
	return kept
}

// setPeer is called when it is known what the peer understands. One question then asks for
// all receipts that wait. The peer has dropped messages that were longer than it takes.
func (r *receipts) setPeer(k PeerKind) {
	r.mu.Lock()
	r.peer = k
	var written, dropped, kept []receipt
	if all := r.remembered(); k == PeerNode {
		written = all
	} else {
		for _, one := range all {
			if r.check(one.size, nil, 0) == nil {
				kept = append(kept, one)
			} else {
				dropped = append(dropped, one)
			}
		}
	}
	r.wait, r.forgotten = kept, 0
	r.ask()
	r.mu.Unlock()
	for _, one := range written {
		r.out.whenWritten(one.pos, one.fn)
	}
	for _, one := range dropped {
		one.fn(r.check(one.size, nil, 0))
	}
}

// askEarly asks a peer that is not known yet.
func (r *receipts) askEarly() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.peer == PeerUnknown {
		r.ask()
	}
}

// ask asks for all receipts that wait. r.mu is held. A question with the number 0 goes
// first. The peer takes a question to be about the line before it: were that line dropped,
// the peer would say of the last message here that it was.
func (r *receipts) ask() {
	if n := len(r.wait); n > 0 {
		r.out.put(orderLine, nil, wire.AppendCount(nil, wire.ActAsk, 0), wire.AppendCount(nil, wire.ActAsk, r.wait[n-1].n))
	}
}

// received is called when the peer has received all messages up to n. If dropped is not
// nil, it says why the peer has dropped the message n.
func (r *receipts) received(n uint64, dropped error) {
	r.mu.Lock()
	i := 0
	for i < len(r.wait) && r.wait[i].n <= n {
		if r.wait[i].fn == nil {
			r.forgotten--
		}
		i++
	}
	told := r.wait[:i]
	r.wait = r.wait[i:]
	r.mu.Unlock()
	for _, one := range told {
		switch {
		case one.fn == nil:
		case one.n == n:
			one.fn(dropped)
		default:
			one.fn(nil)
		}
	}
}

// any reports whether a receipt is waited for.
func (r *receipts) any() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.wait) > r.forgotten
}

// close tells all that wait that no receipt will come. The outbox is closed before, so no
// further one begins to wait.
func (r *receipts) close(err error) {
	r.mu.Lock()
	told := r.remembered()
	r.wait, r.forgotten = nil, 0
	r.mu.Unlock()
	for _, one := range told {
		one.fn(err)
	}
}
