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

// requests are the requests of the peer. Each is answered by a goroutine of workers, or
// waits until there is a handler for it.
type requests struct {
	*core
	workers *workers

	mu      sync.Mutex
	waiting []asked          // no handler fits them yet
	running callback.Running // those that are being answered
}

// asked is a request of the peer.
type asked struct {
	id  uint64
	msg []byte
}

// requestCost is how many bytes a request counts against the input bound, beside its own:
// it takes a goroutine to answer it.
const requestCost = 4 << 10

func (a *asked) size() int { return len(a.msg) + requestCost }

// came takes a request. If there is a handler for it, it returns the job of answering it.
// A request does not wait for the callbacks of earlier messages: nested calls could
// deadlock.
func (r *requests) came(a asked) (j job, ok bool) {
	r.flow.add(a.size())
	if j, ok := r.jobFor(a); ok {
		return j, true
	}
	r.flow.addRequests(1)
	r.mu.Lock()
	r.waiting = append(r.waiting, a)
	r.mu.Unlock()
	if r.to.Responder(a.msg) != nil { // a handler was registered in between
		r.retry()
	}
	return job{}, false
}

// jobFor returns the job of answering a, if a handler fits.
func (r *requests) jobFor(a asked) (j job, ok bool) {
	by := r.to.Responder(a.msg)
	if by == nil {
		return job{}, false
	}
	r.running.Begin()
	return job{asked: a, by: by}, true
}

// answer runs the handler and sends what it returns. For a handler that does not return
// it sends an error: the handler has ended its goroutine, or its panic is about to end
// this process.
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
	if err != nil { // of the handler, of the encoder, or the reply is too long
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
