package link

import (
	"context"
	"errors"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/wire"
)

// What package coord says goes beside the messages and requests of the application,
// which cannot reach it. A question is a call like a Request, but the reader of the
// other side answers it.

// Call sends the question msg, a line, and waits for the answer.
func (l *Link) Call(ctx context.Context, act string, msg []byte) (answer []byte, err error) {
	c := newCall()
	if err := l.calls.start(c, act, msg); err != nil {
		return nil, err
	}
	l.flow.expect(1)
	defer l.flow.expect(-1)
	if !l.in.waitFor(ctx, c) {
		l.calls.forget(c)
		return nil, ctx.Err()
	}
	return c.msg, c.err
}

// Reply answers the question id of the peer with msg, a line.
func (l *Link) Reply(id uint64, msg []byte) {
	var room [wire.CallHead]byte
	head, body, tail := wire.CallParts(room[:0], wire.ActReply, id, msg)
	if err := l.check(len(head)+len(body)+len(tail), msg, 1); err != nil {
		l.requests.fail(id, "the reply: "+err.Error(), wire.CodeTooLong)
		return
	}
	l.answerAs(promptLine, head, body, tail)
}

// Tell sends a line of the protocol that must not be lost. How many there can be
// is bounded by who makes them.
func (l *Link) Tell(line []byte) error {
	_, err := l.out.put(orderLine, nil, line)
	return err
}

// Offer sends a line, unless more than most bytes would wait for the peer then. It
// reports false if so; on a link that is closed the line is taken, and gone.
func (l *Link) Offer(line []byte, most int) (taken bool) {
	if queued := l.out.queued(); queued > 0 && queued+len(line) > most {
		return false
	}
	_, err := l.out.put(userLine, nil, line)
	return !errors.Is(err, errs.Backlog)
}

// SendLine sends a line that counts as a message of the application's.
func (l *Link) SendLine(line []byte) error {
	if err := l.check(len(line), line, 0); err != nil {
		return err
	}
	_, err := l.out.put(userLine, nil, line)
	return err
}
