package link

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/wire"
)

// handovers are the messages of this side that go with a descriptor. They keep their
// place among the other messages.
//
// To a Go peer such a message is a line like any other. To node it is a NODE_HANDLE. That
// waits until the peer has acknowledged the NODE_HANDLE before it, and all later messages
// wait until it is acknowledged itself, since node may ask for it once more. A peer that
// is not known yet may be either. There the first message with a descriptor waits until
// the peer is known, and all later messages wait behind it.
type handovers struct {
	*core
	receipts *receipts
	exchange *exchange

	flying  atomic.Int32 // descriptors that the peer is not known to have
	blocked atomic.Bool  // the next message has to wait; set under mu

	mu     sync.Mutex
	closed bool
	up     bool      // node has not acknowledged the last one
	wait   []passage // oldest first
	size   int       // bytes of the lines in wait
}

// passage is a line with a descriptor, or one that may have to wait behind such a line.
type passage struct {
	kind lineKind
	line []byte         // of the application; if empty, told is called when its turn has come
	h    *handle.Handle // or nil
	as   wire.HandleType
	told func(error) // or nil
}

// maxFlying bounds the descriptors on their way to one peer. The kernel lets a user
// have only so many under way.
const maxFlying = 256

var (
	errManyHandles = fmt.Errorf("%d handles are on their way to it: %w", maxFlying, errs.Backlog)
	errNodeHandle  = fmt.Errorf("node takes connections, listeners and UDP sockets only: %w", errs.NotSupported)
)

// send sends a message with a descriptor, which it takes over.
func (x *handovers) send(p passage) (err error) {
	if x.flying.Add(1) > maxFlying {
		err = errManyHandles
	} else {
		err = x.out.unpaused(func() error { return x.enter(p) })
	}
	if err != nil {
		x.flying.Add(-1)
		p.h.Release()
	}
	return err
}

// enter sends p, or appends it to those that wait.
func (x *handovers) enter(p passage) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	peer := x.peer()
	switch {
	case x.closed:
		return errs.Closed
	case peer == PeerNode && p.as.Type == "":
		return errNodeHandle
	case peer == PeerNode && x.exchange.leaving():
		return fmt.Errorf("a node peer that was told to disconnect takes no handle: %w", errs.Closed)
	case peer == PeerUnknown || x.blocked.Load():
		return x.append(p)
	case p.tooMany(&x.out, 0):
		return errs.Backlog
	}
	return x.start(p)
}

// behind sends a line that must not overtake those that wait. With an empty line, told is
// called when its turn has come.
func (x *handovers) behind(kind lineKind, line []byte, told func(error)) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := passage{kind: kind, line: line, told: told}
	if x.blocked.Load() {
		return x.append(p)
	}
	return x.pass(p)
}

// tooMany reports whether p is beyond the bound of the queue, of which size bytes wait
// here. A line that is itself larger than the bound is taken when nothing else waits.
func (p *passage) tooMany(out *outbox, size int) bool {
	queued := size + out.queued()
	return p.kind.bound == maxQueue && queued > 0 && queued+len(p.line) > out.max
}

// append adds p to those that wait. x.mu is held.
func (x *handovers) append(p passage) error {
	if p.tooMany(&x.out, x.size) {
		return errs.Backlog
	}
	if p.kind.bound == maxQueue {
		p.kind.bound = unbounded // it is counted here, and not once more by the outbox
		x.out.messages.Add(1)
	}
	p.line = bytes.Clone(p.line)
	x.size += len(p.line)
	x.wait = append(x.wait, p)
	x.blocked.Store(true)
	return nil
}

// pass sends a line without a descriptor. x.mu is held.
func (x *handovers) pass(p passage) error {
	switch {
	case len(p.line) == 0:
		p.told(nil)
		return nil
	case p.told != nil:
		if err := x.check(len(p.line), p.line, 0); err != nil { // the peer's bound may be known only now
			return err
		}
		_, err := x.receipts.send(p.kind, nil, p.line, p.told)
		return err
	}
	_, err := x.out.put(p.kind, nil, p.line)
	return err
}

// start sends p and its descriptor. No other descriptor is in the way. x.mu is held.
func (x *handovers) start(p passage) error {
	if x.peer() == PeerNode {
		if p.kind.bound == maxQueue {
			x.out.messages.Add(1)
		}
		one := outHandle{line: wire.NodeHandleLine(p.as, p.line), h: p.h, told: p.told, acked: x.acked}
		if !x.exchange.sendUser(one) {
			return errs.Closed
		}
		x.up = true
		x.blocked.Store(true)
		return nil
	}
	framed := wire.HandleLine(p.line)
	if err := x.check(len(framed)+channel.AttachRoom, p.line, 1); err != nil {
		return err
	}
	counted := p.kind.bound == maxQueue
	p.kind.bound = unbounded // the bound was checked before. From here on the peer may have a copy of h
	line, beside, kept := x.ch.Attach(framed, p.h)
	_, err := x.receipts.send(p.kind, beside, line, func(err error) {
		x.flying.Add(-1)
		kept.Release()
		if p.told != nil {
			p.told(err)
		}
	})
	if err != nil {
		kept.Release()
		return err
	}
	if counted {
		x.out.messages.Add(1)
	}
	p.h.Release()
	return nil
}

// acked is called by the exchange, without a lock, when node has taken the descriptor
// that was on its way (ok) or has refused it for good.
func (x *handovers) acked(ok bool) {
	if !ok {
		x.to.Report(fmt.Errorf("cluster: %s: a message was dropped, since its handle did not reach the peer: is it out of descriptors?", x.name), 0)
	}
	x.flying.Add(-1)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.up = false
	x.goOn()
}

// setPeer is called when the peer is known.
func (x *handovers) setPeer() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.goOn()
}

// goOn sends those that wait, as far as nothing is in their way any more. x.mu is held.
func (x *handovers) goOn() {
	for !x.closed && !x.up && len(x.wait) > 0 {
		p := x.wait[0]
		x.wait[0] = passage{}
		x.wait = x.wait[1:]
		x.size -= len(p.line)
		var err error
		switch {
		case p.h == nil:
			err = x.pass(p)
		case x.peer() == PeerNode && p.as.Type == "":
			err = errNodeHandle
		default:
			err = x.start(p)
		}
		if err != nil {
			x.fail(p, err)
		}
	}
	x.blocked.Store(!x.closed && (x.up || len(x.wait) > 0))
}

// fail gives up p.
func (x *handovers) fail(p passage, err error) {
	if p.h != nil {
		p.h.Release()
		x.flying.Add(-1)
	}
	switch {
	case p.told != nil:
		p.told(err)
	case p.h != nil:
		x.to.Report(fmt.Errorf("cluster: %s: a message with a handle was dropped: %w", x.name, err), 0)
	}
}

// close gives up all passages that wait.
func (x *handovers) close() {
	x.mu.Lock()
	x.closed = true
	wait := x.wait
	x.wait = nil
	x.blocked.Store(false)
	x.mu.Unlock()
	for _, p := range wait {
		p.h.Release()
		if p.told != nil {
			p.told(errs.Closed)
		}
	}
}
