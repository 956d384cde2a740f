package link

import (
	"context"
	"errors"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/wire"
)

// Lines is a link as packages coord and admin use it. What they say goes beside the
// messages and requests of the application, which cannot reach it. A question is a
// call like a Request, but the reader of the other side answers it.
type Lines struct{ l *Link }

// Lines returns the link as packages coord and admin use it.
func (l *Link) Lines() Lines { return Lines{l} }

// Call sends the question msg, a line, and waits for the answer.
func (n Lines) Call(ctx context.Context, act string, msg []byte) (answer []byte, err error) {
	c := newCall()
	if err := n.l.calls.start(c, act, msg); err != nil {
		return nil, err
	}
	if err := n.l.await(ctx, c); err != nil {
		return nil, err
	}
	return c.msg, nil
}

// Reply answers the question id of the peer with msg, a line.
func (n Lines) Reply(id uint64, msg []byte) {
	var room [wire.CallHead]byte
	head, body, tail := wire.CallParts(room[:0], wire.ActReply, id, msg)
	if err := n.l.check(len(head)+len(body)+len(tail), msg, 1); err != nil {
		n.l.requests.fail(id, "the reply: "+err.Error(), wire.CodeTooLong)
		return
	}
	n.l.answerAs(promptLine, head, body, tail)
}

// Tell sends a line of the protocol that must not be lost. No bound applies: the callers
// see to it that there are few such lines.
func (n Lines) Tell(line []byte) error {
	_, err := n.l.out.put(orderLine, nil, line)
	return err
}

// Note sends what the peer has asked to be told. It counts as an answer: a peer that asks
// for much and does not read is given up.
func (n Lines) Note(line []byte) { n.l.answerAs(answerLine, line) }

// Offer sends a line, unless more than most bytes would wait for the peer then: in that
// case it returns false. On a closed link it returns true, and the line is lost.
func (n Lines) Offer(line []byte, most int) (taken bool) {
	if queued := n.l.out.queued(); queued > 0 && queued+len(line) > most {
		return false
	}
	kind := userLine
	kind.app = false // an upgrade pauses the broker, which calls this, before the link
	_, err := n.l.out.put(kind, nil, line)
	return !errors.Is(err, errs.Backlog)
}

// Send sends a line that counts as a message of the application.
func (n Lines) Send(line []byte) error {
	if err := n.l.check(len(line), line, 0); err != nil {
		return err
	}
	return n.l.out.unpaused(func() error {
		_, err := n.l.out.put(userLine, nil, line)
		return err
	})
}

// maxStreams bounds the connections on their way to one peer, which may be stopped:
// the kernel lets a user have only so many descriptors under way.
const maxStreams = 8

// Stream sends the peer one end of a connection, which it takes over. The error is
// errs.Backlog if the peer has not taken what was sent before.
func (n Lines) Stream(h *handle.Handle) error {
	defer h.Release()
	l := n.l
	if !l.SpeaksExtra() {
		return errs.NotSupported
	}
	if l.streams.Add(1) > maxStreams {
		l.streams.Add(-1)
		return errs.Backlog
	}
	line, beside, kept := l.ch.Attach(wire.StreamLine(), h)
	taken := func(error) {
		l.streams.Add(-1)
		kept.Release()
	}
	_, err := l.receipts.send(orderLine, beside, line, taken)
	if err != nil {
		taken(err)
	}
	return err
}
