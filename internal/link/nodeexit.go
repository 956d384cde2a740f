package link

import (
	"slices"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/wire"
)

// nodeExit is how far a worker is on its way out, as its link knows it; under
// the link's lock. A Go worker takes whatever still comes. A node worker does
// not: it disconnects on the order to do so and on the answer to its own word
// that it will, dies of an error when it gets both or when a descriptor comes
// behind, and never ends if it is granted an address after it has closed all
// that it had.
type nodeExit struct {
	begun   bool     // it was told to disconnect, or said that it does
	granted []string // addresses, by key, that it has not said that it listens on
}

// leaves reports whether the peer takes nothing new any more. l.mu is held.
func (l *Link) leaves() bool { return l.nodeExit.begun && l.peer != PeerGo }

// Grants notes that the worker is about to be granted the address, or returns
// false: it is on its way out.
func (l *Link) Grants(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leaves() {
		return false
	}
	if l.peer != PeerGo {
		l.nodeExit.granted = append(l.nodeExit.granted, key)
	}
	return true
}

// Listens notes that the worker listens on the oldest address that it was
// granted: it says so in the order of the answers, and not for which.
func (l *Link) Listens() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.nodeExit.granted) > 0 {
		l.nodeExit.granted = l.nodeExit.granted[1:]
	}
}

// Closes notes that the worker has closed the address, and reports whether it did
// so while it stays: what a worker on its way out closes its successor listens on.
func (l *Link) Closes(key string) (stays bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.nodeExit.granted, key); i >= 0 {
		l.nodeExit.granted = slices.Delete(l.nodeExit.granted, i, i+1)
	}
	return !l.nodeExit.begun
}

// WorkerEnds answers a worker that says that it is to end of its own accord, with m.
// A node worker that has been told to disconnect gets no second word. One that
// closed what it had while a grant was under way to it is told to disconnect
// instead, which closes that too.
func (l *Link) WorkerEnds(m *wire.Message) {
	l.mu.Lock()
	told, crossed := l.leaves(), len(l.nodeExit.granted) > 0
	l.nodeExit.begun = true
	dropped := l.dropHandles()
	l.mu.Unlock()
	switch {
	case told:
	case crossed:
		l.Order(&wire.Message{Act: wire.ActDisconnect})
	default:
		l.Answer(m.Line())
	}
	refuseHandles(dropped)
}

// OrderDisconnect tells the worker to drain, and a Go worker how long it may and
// whether all workers are told, so that nobody takes what is queued after it. One
// that is not online yet may be gone before it can be asked what it has received:
// it is asked now, which node ignores.
func (l *Link) OrderDisconnect(timeout time.Duration, all bool) {
	m := &wire.Message{Act: wire.ActDisconnect}
	l.mu.Lock()
	told := l.leaves()
	l.nodeExit.begun = true
	if l.peer == PeerGo {
		m.Go = &wire.Extension{Timeout: timeout.Milliseconds(), Stop: all} // less than before, maybe
	}
	if n := len(l.receipts); n > 0 && l.peer == PeerUnknown {
		l.out.put(orderLine, nil, wire.AppendCount(nil, wire.ActAsk, l.receipts[n-1].n))
	}
	dropped := l.dropHandles()
	l.mu.Unlock()
	if !told {
		l.Order(m)
	}
	refuseHandles(dropped)
}

// dropHandles takes back the descriptors that a worker on its way out cannot
// take: all but the one that it has to acknowledge. It returns who waits for
// what was to become of them. l.mu is held.
func (l *Link) dropHandles() (answers []func(*wire.Message, *handle.Handle)) {
	if !l.leaves() {
		return nil
	}
	keep := 0
	if l.handleUp {
		keep = 1
	}
	for _, h := range l.handles[min(keep, len(l.handles)):] {
		h.h.Release()
		if answer := l.answers[h.seq]; answer != nil {
			answers = append(answers, answer)
			delete(l.answers, h.seq)
		}
	}
	l.handles = l.handles[:min(keep, len(l.handles))]
	return answers
}

// refuseHandles tells them that the peer will not take what they sent.
func refuseHandles(answers []func(*wire.Message, *handle.Handle)) {
	for _, answer := range answers {
		answer(nil, nil)
	}
}
