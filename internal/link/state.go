package link

import (
	"errors"
	"fmt"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
)

// State is a paused link as data, for the program that replaces this one in the same
// process: there Restore makes the link again. Descriptors stand in it by number; they
// stay the link's.
type State struct {
	FD      int // of the channel
	Peer    PeerKind
	PeerMax int

	// What was read and not delivered:
	Line        []byte  // the beginning of a line
	Dropping    bool    // the rest of that line is to be dropped
	FDs         []int   // descriptors that no message has claimed
	Held        int     // as in reader
	Dropped     string  // why the last line was dropped
	TooLong     bool    // it was longer than the bound
	Requests    []Asked // requests of the peer that wait for a handler
	MessagesIn  int64
	MessagesOut int64

	// What was not written:
	Out     []byte
	Marks   []Mark
	Answers int // how many bytes of Out count as answers

	// The last numbers that were given:
	LastReceipt, LastCall uint64
	Calls                 [][]byte // requests that wait for the peer to be known

	Handles []Handle // of the internal protocol, not acknowledged yet
	Up      bool     // the first of them is on its way
	Exiting bool     // as nodeExit.begun
	Granted []string // as nodeExit.granted
}

// Asked is a request that waits for a handler.
type Asked struct {
	ID  uint64
	Msg []byte
}

// Mark says that a descriptor goes with bytes of Out.
type Mark struct{ Start, End, FD int }

// Handle is a descriptor and its line.
type Handle struct {
	Line  []byte
	Seq   int64
	Tries int
	FD    int
}

// Waits names something that the link waits for and that cannot be handed to another
// program. It returns "" if there is nothing of the kind. A message whose number is in
// again is sent again by the next program, and not waited for.
func Waits(l *Link, again map[int64]bool) string {
	l.handover.mu.Lock()
	behind := len(l.handover.wait) > 0 || l.handover.up
	l.handover.mu.Unlock()
	if behind {
		return "a handle that it has not acknowledged"
	}
	l.exchange.mu.Lock()
	defer l.exchange.mu.Unlock()
	for _, one := range l.exchange.handles {
		if one.acked != nil || l.exchange.answers[one.seq] != nil && !again[one.seq] {
			return "a connection that it has not taken"
		}
	}
	for seq := range l.exchange.answers {
		if !again[seq] {
			return "an answer of it"
		}
	}
	return ""
}

// StateOf returns the state of a link that is paused, without what is not under way yet
// and is sent again.
func StateOf(l *Link, again map[int64]bool) (s State) {
	s.FD = l.ch.Descriptor()
	s.Peer, s.PeerMax = l.peer(), int(l.most.Load())
	s.MessagesIn, s.MessagesOut = l.Counts()
	l.in.state(&s)
	l.out.state(&s)
	l.requests.mu.Lock()
	for _, a := range l.requests.waiting {
		s.Requests = append(s.Requests, Asked{a.id, a.msg})
	}
	l.requests.mu.Unlock()
	l.receipts.mu.Lock()
	s.LastReceipt = l.receipts.sent
	l.receipts.mu.Unlock()
	l.calls.mu.Lock()
	s.LastCall = l.calls.last
	for _, c := range l.calls.held {
		s.Calls = append(s.Calls, c.line)
	}
	l.calls.mu.Unlock()
	x := &l.exchange
	x.mu.Lock()
	defer x.mu.Unlock()
	s.Up, s.Exiting, s.Granted = x.up, x.exit.begun, x.exit.granted
	for i, one := range x.handles {
		if again[one.seq] && (i > 0 || !x.up) {
			continue
		}
		s.Handles = append(s.Handles, Handle{one.line, one.seq, one.tries, one.h.FD()})
	}
	return s
}

func (r *reader) state(s *State) {
	s.Line, s.Dropping = r.lines.Rest()
	s.FDs, s.Held = r.fds, r.held
	if r.dropped != nil {
		s.Dropped, s.TooLong = r.dropped.Error(), errors.Is(r.dropped, errs.MessageTooLong)
	}
}

func (o *outbox) state(s *State) {
	o.mu.Lock()
	defer o.mu.Unlock()
	off := len(o.batch.whole) - len(o.batch.left)
	for _, m := range o.batch.marks {
		s.Marks = append(s.Marks, Mark{m.start - off, m.end - off, m.h.FD()})
	}
	s.Out = append(append(s.Out, o.batch.left...), o.buf...)
	for _, m := range o.marks {
		s.Marks = append(s.Marks, Mark{m.start + len(o.batch.left), m.end + len(o.batch.left), m.h.FD()})
	}
	s.Answers = min(o.answers, len(s.Out))
}

// Descriptors returns all descriptors that s names, except the channel's.
func (s *State) Descriptors() (fds []int) {
	fds = append(fds, s.FDs...)
	for _, m := range s.Marks {
		fds = append(fds, m.FD)
	}
	for _, h := range s.Handles {
		fds = append(fds, h.FD)
	}
	return fds
}

// Restore makes a link of its state, and takes over its descriptors. taken has those that
// other rooms hold as well. The link does not read or write before Launch.
func Restore(s State, taken handle.Taken, to Receiver, side Side, o Options) (*Link, error) {
	ch, err := channel.Restore(s.FD)
	if err != nil {
		return nil, fmt.Errorf("the channel of %s: %w", o.Name, err)
	}
	o.PeerMax = s.PeerMax
	l := New(ch, to, side, s.Peer, o)
	l.in.restore(s)
	l.out.restore(s, taken)
	for _, a := range s.Requests {
		waiting := asked{a.ID, a.Msg}
		l.requests.waiting = append(l.requests.waiting, waiting)
		l.flow.add(waiting.size())
	}
	l.flow.addRequests(len(s.Requests))
	l.receipts.sent, l.calls.last = s.LastReceipt, s.LastCall
	for _, line := range s.Calls {
		l.calls.held = append(l.calls.held, &call{line: line, done: make(chan struct{})})
	}
	x := &l.exchange
	x.up, x.exit = s.Up, nodeExit{s.Exiting, s.Granted}
	for _, h := range s.Handles {
		x.handles = append(x.handles, outHandle{line: h.Line, h: taken.Take(h.FD), seq: h.Seq, tries: h.Tries})
	}
	return l, nil
}

func (r *reader) restore(s State) {
	r.lines.Resume(s.Line, s.Dropping)
	r.fds, r.held = s.FDs, s.Held
	r.messages.Store(s.MessagesIn)
	if s.Dropped != "" {
		r.dropped = &RemoteError{text: s.Dropped}
		if s.TooLong {
			r.dropped = &RemoteError{text: s.Dropped, is: errs.MessageTooLong}
		}
	}
}

func (o *outbox) restore(s State, taken handle.Taken) {
	o.buf, o.enqueued, o.answers = s.Out, uint64(len(s.Out)), s.Answers
	o.messages.Store(s.MessagesOut)
	for _, m := range s.Marks {
		o.marks = append(o.marks, fdMark{m.Start, m.End, taken.Take(m.FD)})
	}
}

// Launch begins to read and to write a restored link.
func Launch(l *Link, pid int) {
	l.out.flush(false)
	l.Start(pid)
}
