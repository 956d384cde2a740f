package link

import (
	"cmp"
	"slices"
	"sync"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/wire"
)

// receipts are those who wait until the peer has received what they sent. Behind
// their message goes a question with a number. The peer answers with the number
// when it has read that far. A peer that is not known yet is asked when it is.
// Node is not asked: there a message that is written counts as received.
type receipts struct {
	*core

	mu        sync.Mutex
	peer      PeerKind
	sent      uint64    // of numbers, all that were asked for or are to be
	wait      []receipt // oldest first
	forgotten int       // of those
}

// receipt is told when the peer has received all up to n.
type receipt struct {
	n    uint64
	size int         // of the line
	pos  uint64      // in the outbox, for a peer that gives no receipts
	fn   func(error) // nil if it is forgotten
}

// send sends line, with h unless that is nil, which it takes over. fn is told when
// it has arrived. n is what forget takes.
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
	if kind != promptLine || r.peer == PeerUnknown { // else the caller may read it
		r.turn.pickUp()
	}
	return one.n, nil
}

// forget is called when nobody waits for the receipt n any more. One that never comes
// must not take memory for as long as the peer lives. What is forgotten is swept out
// when it is the greater part, so that each costs little.
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

// remembered is a copy of wait without what is forgotten. r.mu is held.
func (r *receipts) remembered() []receipt {
	kept := make([]receipt, 0, len(r.wait)-r.forgotten)
	for _, one := range r.wait {
		if one.fn != nil {
			kept = append(kept, one)
		}
	}
	return kept
}

// setPeer is told what the peer understands. Receipts that wait for it are asked
// for, all by the last one. What was longer than the peer takes it has dropped.
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

// ask asks for all that wait. r.mu is held. A question for nothing goes first: if
// the line before was dropped, that says nothing of the message that the other
// question is about.
func (r *receipts) ask() {
	if n := len(r.wait); n > 0 {
		r.out.put(orderLine, nil, wire.AppendCount(nil, wire.ActAsk, 0), wire.AppendCount(nil, wire.ActAsk, r.wait[n-1].n))
	}
}

// received tells those whose messages the peer has received, up to n. If dropped is
// not nil, that is what became of the last one.
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

// any reports whether anybody waits.
func (r *receipts) any() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.wait) > r.forgotten
}

// close tells all who wait that nothing will come. The outbox is closed, so nobody
// follows.
func (r *receipts) close(err error) {
	r.mu.Lock()
	told := r.remembered()
	r.wait, r.forgotten = nil, 0
	r.mu.Unlock()
	for _, one := range told {
		one.fn(err)
	}
}
