package link

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/go-cluster/cluster/internal/callback"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/wire"
)

// requests are those of the peer. Each is answered by a goroutine of workers, or
// waits until there is a handler for it.
type requests struct {
	*core
	workers *workers

	mu      sync.Mutex
	waiting []asked          // that no handler fits yet
	running callback.Running // being answered
}

// asked is a Request of the peer's.
type asked struct {
	id  uint64
	msg []byte
}

// requestCost is what a request that is being answered costs beside its bytes:
// a goroutine.
const requestCost = 4 << 10

func (a *asked) size() int { return len(a.msg) + requestCost }

// came is told of a request. It returns the job to answer it, if there is a
// handler for it. The reader does not wait for the callbacks before it: nested
// calls could deadlock.
func (r *requests) came(a asked) (j job, ok bool) {
	r.flow.add(a.size())
	if j, ok := r.jobFor(a); ok {
		return j, true
	}
	r.flow.addRequests(1)
	r.mu.Lock()
	r.waiting = append(r.waiting, a)
	r.mu.Unlock()
	if r.to.Responder(a.msg) != nil { // it has come in between
		r.retry()
	}
	return job{}, false
}

// jobFor is the answering of a, if a handler fits.
func (r *requests) jobFor(a asked) (j job, ok bool) {
	by := r.to.Responder(a.msg)
	if by == nil {
		return job{}, false
	}
	r.running.Begin()
	return job{asked: a, by: by}, true
}

// answer runs the handler and sends what it returns. A handler that does not return
// is answered for: it has ended its goroutine, or this process is about to end by
// its panic.
func (r *requests) answer(j job) {
	defer r.running.End()
	defer r.flow.release(j.size())
	callback.Guard(func() {
		reply, err := j.by.Respond(r.to, j.msg)
		r.reply(j.id, reply, err)
	}, func() { r.fail(j.id, "the handler did not return: it called runtime.Goexit, or panicked", "") })
}

// reply sends the answer to a request. The encoder may call functions of the
// application as well.
func (r *requests) reply(id uint64, reply any, err error) {
	code := ""
	if err == nil {
		err = wire.Encode(reply, func(line []byte) error {
			var room [wire.CallHead]byte
			head, body, tail := wire.CallParts(room[:0], wire.ActReply, id, line)
			if err := r.check(len(head)+len(body)+len(tail), line, 1); err != nil {
				if errors.Is(err, errs.MessageTooLong) {
					code = wire.CodeTooLong
				}
				return fmt.Errorf("the reply: %w", err)
			}
			r.answerAs(promptLine, head, body, tail)
			return nil
		})
	}
	if err != nil { // of the handler, of the encoder, or there is too much
		r.fail(id, err.Error(), code)
	}
}

// fail answers with an error, whose text is cut to what the peer takes.
func (r *requests) fail(id uint64, text, code string) {
	line := wire.AppendFailure(nil, id, text, code)
	for r.check(len(line), nil, 0) != nil && text != "" {
		text = strings.ToValidUTF8(text[:len(text)/2], "")
		line = wire.AppendFailure(nil, id, text, code)
	}
	r.answerAs(promptLine, line)
}

// retry answers the waiting requests for which there is a handler now.
func (r *requests) retry() {
	r.mu.Lock()
	waiting := r.waiting
	r.waiting = nil
	r.mu.Unlock()
	var still []asked
	for _, a := range waiting {
		if j, ok := r.jobFor(a); ok {
			r.workers.spawn(j)
		} else {
			still = append(still, a)
		}
	}
	r.flow.addRequests(len(still) - len(waiting))
	if len(still) > 0 {
		r.mu.Lock()
		r.waiting = append(still, r.waiting...)
		r.mu.Unlock()
	}
}

// drop gives up the requests that wait, and returns how many there were.
func (r *requests) drop() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = len(r.waiting)
	r.waiting = nil
	return n
}
