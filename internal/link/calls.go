package link

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/wire"
)

// calls are the requests of this side that are under way. Those that are made
// before the peer is known are held until then.
type calls struct {
	*core

	mu   sync.Mutex
	peer PeerKind
	err  error  // once the link is closed
	last uint64 // the last id that was given
	byID map[uint64]*call
	held []*call
}

// call is one Request, or one SendContext, under way.
type call struct {
	id    uint64
	began time.Duration // since epoch
	alone bool          // no other call was under way when it began
	line  []byte        // set if it is held
	done  chan struct{} // closed at the end; msg and err are set before
	msg   []byte
	err   error
}

func newCall() *call { return &call{began: time.Since(epoch), done: make(chan struct{})} }

// end ends the call.
func (c *call) end(err error) {
	c.err = err
	close(c.done)
}

// over reports whether the call has ended.
func (c *call) over() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// wait waits for the end of the call, or returns false when ctx ends first.
func (c *call) wait(ctx context.Context) (ended bool) {
	select {
	case <-c.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// RemoteError is an error of the other side: what a handler returned there, or why a
// message could not be answered or taken.
type RemoteError struct {
	text string
	is   error // the sentinel that it wraps, or nil
}

func (e *RemoteError) Error() string { return e.text }
func (e *RemoteError) Unwrap() error { return e.is }

// remoteError is the error that m tells, or nil.
func remoteError(m wire.Extra) error {
	if m.Error == nil {
		return nil
	}
	e := &RemoteError{text: wire.Plain(*m.Error)}
	if m.Code == wire.CodeTooLong {
		e.is = errs.MessageTooLong
	}
	return e
}

var errNodeRequest = fmt.Errorf("a node peer answers no requests: %w", errs.NotSupported)

// start sends msg as the question of c: a Request, or another act that has an answer.
func (cs *calls) start(c *call, act string, msg []byte) error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.err != nil {
		return cs.err
	}
	if cs.peer == PeerNode {
		return errNodeRequest
	}
	cs.last++
	c.id = cs.last
	var room [wire.CallHead]byte
	head, body, tail := wire.CallParts(room[:0], act, c.id, msg)
	if err := cs.check(len(head)+len(body)+len(tail), msg, 1); err != nil {
		return err
	}
	if cs.peer == PeerUnknown {
		c.line = slices.Concat(head, body, tail)
		cs.held = append(cs.held, c)
		return nil
	}
	c.alone = len(cs.byID) == 0
	cs.byID[c.id] = c
	_, err := cs.out.put(promptLine, nil, head, body, tail)
	if err != nil {
		delete(cs.byID, c.id)
	}
	return err
}

// setPeer is called when it is known what the peer understands. It sends the calls that
// were held.
func (cs *calls) setPeer(k PeerKind) {
	cs.mu.Lock()
	cs.peer = k
	held := cs.held
	cs.held = nil
	failed := make(map[*call]error)
	for _, c := range held {
		err := error(errNodeRequest)
		if k == PeerGo {
			err = cs.check(len(c.line), nil, 0)
		}
		if err == nil {
			cs.byID[c.id] = c
			_, err = cs.out.put(orderLine, nil, c.line)
		}
		if err != nil {
			delete(cs.byID, c.id)
			failed[c] = err
		}
	}
	cs.mu.Unlock()
	for c, err := range failed {
		c.end(err)
	}
}

// forget gives up waiting. An answer that still comes is ignored.
func (cs *calls) forget(c *call) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.byID, c.id)
	if i := slices.Index(cs.held, c); i >= 0 {
		cs.held = slices.Delete(cs.held, i, i+1)
	}
}

// replied hands the peer's answer to the call that waits for it.
func (cs *calls) replied(m wire.Extra) {
	cs.mu.Lock()
	c := cs.byID[m.ID]
	delete(cs.byID, m.ID)
	cs.mu.Unlock()
	if c == nil {
		return
	}
	c.msg = bytes.Clone(m.Msg)
	c.end(remoteError(m))
}

// any reports whether a call waits for a reply.
func (cs *calls) any() bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.byID) > 0
}

// close ends all calls: no answer will come.
func (cs *calls) close(err error) {
	cs.mu.Lock()
	cs.err = err
	byID, held := cs.byID, cs.held
	cs.byID, cs.held = nil, nil
	cs.mu.Unlock()
	for _, c := range byID {
		c.end(err)
	}
	for _, c := range held {
		c.end(err)
	}
}
