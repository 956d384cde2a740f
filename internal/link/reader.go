package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/callback"
	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/wire"
)

// reader takes what arrives, from the bytes to the message or the call. It has no lock,
// since it belongs to whoever has the turn to read: nearly always one goroutine of the
// workers.
type reader struct {
	*core
	receipts *receipts
	calls    *calls
	requests *requests
	exchange *exchange
	workers  *workers
	end      func() // what follows the last byte

	messages atomic.Int64 // messages of the peer's application, since the beginning
	lines    wire.Framer
	batch    readBatch
	fds      []int  // received and not yet claimed, oldest first
	held     int    // how many of fds came with the line that is half read
	asked    uint64 // the last receipt that the peer asked for in this read
	dropped  error  // why the last line was dropped; nil if it was not
	job      job    // the last request of this read
	acked    bool   // an acknowledgement may have to be written
	byCaller bool   // a caller of Request reads
	here     bool   // who reads may deliver the messages of this read
	claimed  bool   // a message has claimed a descriptor in this read
	stuck    bool   // the peer has sent descriptors that cannot be closed
	scarce   bool   // a descriptor has not come, and none since
	missed   missed // an answer whose descriptor has not come
}

// missed is how often an answer, by the number of its question, came without its descriptor.
type missed struct {
	ack   int64
	times int
}

// maxHeld bounds the descriptors that a peer can make this side hold with a line
// that it does not end.
const maxHeld = 4

// read reads to the end, or until another goroutine reads instead, because this one
// has a request to answer.
func (r *reader) read() {
	for {
		r.turn.await()
		r.pause()
		if r.turn.pausing.Load() {
			continue
		}
		in, err := r.ch.Recv()
		if in != nil && !r.final.Load() && r.to.Prompt() {
			if !r.takeHere(in) {
				return
			}
		} else {
			r.take(in)
		}
		switch {
		case r.final.Load():
			r.readRest()
		case err == nil:
			if r.job.by != nil && !r.answer() {
				return
			}
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			r.resume() // an interrupt: await says whether this goroutine still reads
			continue
		case err != io.EOF && !errors.Is(err, os.ErrClosed):
			r.to.Report(fmt.Errorf("cluster: channel of %s: %w", r.name, err), 0)
		}
		break
	}
	if r.job.by != nil {
		r.workers.spawn(r.job)
	}
	r.end()
}

// answer answers the last request of this read on the goroutine that has read it: a lone
// request costs no switch then. It reports whether this goroutine reads on. If the last
// handlers returned soon, it does, unless this one takes too long: then another goroutine
// becomes the reader. Otherwise another goroutine is the reader from the beginning.
func (r *reader) answer() (reads bool) {
	j := r.job
	r.job = job{}
	began := time.Since(epoch)
	return r.aside(r.turn.lend(began, soonRun), func() {
		r.requests.answer(j)
		r.turn.answered(time.Since(epoch) - began)
	})
}

// aside calls fn, which calls functions of the application, and reports whether the calling
// goroutine reads on. If lent, it does, unless fn takes too long. Otherwise another
// goroutine reads from the beginning.
func (r *reader) aside(lent bool, fn func()) (reads bool) {
	if !lent {
		r.workers.spawn(job{read: true})
	}
	callback.Guard(func() {
		fn()
		reads = lent && r.turn.back()
	}, func() {
		if lent && r.turn.back() { // fn has ended this goroutine
			r.workers.spawn(job{read: true})
		}
	})
	return reads
}

// takeHere is take for a reader that delivers the messages itself, out of the buffer of
// the read, if nothing is being delivered. It reports whether it reads on.
func (r *reader) takeHere(in *channel.Input) (reads bool) {
	r.here = true
	r.look(in)
	r.here = false
	batch, size := r.batch.messages, r.batch.size
	if len(batch) == 0 || r.job.by != nil || !r.to.Reserve() {
		r.deliver()
		r.batch.end(in)
		in.Free()
		return true
	}
	r.batch.end(in)
	r.count(batch, size)
	return r.aside(r.turn.lend(time.Since(epoch), 0), func() { r.to.Deliver(batch, size, in.Free) })
}

// pause stops reading while too much input waits to be delivered.
func (r *reader) pause() {
	for !r.flow.enter() {
		if r.flow.unclaimed() {
			r.to.Report(fmt.Errorf("cluster: %s: %d bytes of messages and requests wait for a handler; its channel is not read until one takes them: %w",
				r.name, r.flow.max, errs.Backlog), 0)
		}
		r.waitDelivered()
	}
}

// waitDelivered waits until something was delivered. Nothing is read meanwhile. So
// another goroutine watches for the end of the channel, which may be the master's death.
func (r *reader) waitDelivered() {
	watched := make(chan struct{})
	var delivered atomic.Bool
	go func() {
		defer close(watched)
		for !r.ch.WaitHangup() {
			if delivered.Load() || r.final.Load() {
				return
			}
			r.resume() // the interrupt was for the turn
			if delivered.Load() {
				return // resume may have undone the interrupt below, which ends this watch
			}
		}
		r.flow.open()
	}()
	r.flow.wait()
	delivered.Store(true)
	r.ch.Interrupt()
	<-watched
	r.resume()
}

// waitFor waits for the end of c, reading the channel itself if it has the turn.
// It returns false if ctx ends first. Any goroutine may call it.
func (r *reader) waitFor(ctx context.Context, c *call) (ended bool) {
	mine, granted := r.turn.begin(c)
	if granted != nil {
		r.ch.Interrupt()
		select {
		case <-granted:
			mine = true
		case <-c.done:
			mine = r.turn.withdraw()
		case <-ctx.Done():
			mine = r.turn.withdraw()
		}
		if mine {
			r.resume()
		} // else the reader resumes: by now there may be another interrupt, which is for it
	}
	if !mine {
		ended = c.wait(ctx)
		// After the wait, since the time that counts is from an answer to the next call.
		r.turn.ended()
		return ended
	}
	r.readFor(ctx, c)
	if !c.over() {
		r.turn.giveUp() // the reader reads on, for those who still wait
		return c.wait(ctx)
	}
	r.turn.leave()
	if r.final.Load() || r.receipts.any() || r.calls.any() || r.exchange.any() {
		r.turn.pickUp() // others wait for the peer, and did not pick up the turn while a caller had it
	}
	return true
}

// readFor reads for the caller that has the turn, until c is answered. It stops at errors
// and at the end of the channel, and leaves them to the reader, which will meet them too.
func (r *reader) readFor(ctx context.Context, c *call) {
	r.byCaller = true
	defer func() { r.byCaller = false }()
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, r.ch.Interrupt)()
	}
	for !c.over() && ctx.Err() == nil && !r.final.Load() && !r.turn.pausing.Load() && r.flow.enter() {
		in, err := r.ch.Recv()
		r.take(in)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			r.resume()
		} else if err != nil {
			return
		}
	}
}

// readRest takes what the kernel has now and no more: another process that still holds
// the other end could write for ever.
func (r *reader) readRest() {
	for left := r.ch.Unread(); left > 0; {
		in, err := r.ch.TryRecv()
		if err == nil {
			left -= in.N
		}
		r.take(in)
		if err != nil {
			return
		}
	}
}

// take handles what one read has returned.
func (r *reader) take(in *channel.Input) {
	if in == nil {
		return
	}
	r.look(in)
	r.deliver()
	r.batch.end(in)
	in.Free()
}

// look takes all that a read has returned but the last messages, which are in the batch
// afterwards.
func (r *reader) look(in *channel.Input) {
	r.fds = append(r.fds, in.FDs...)
	r.batch.begin(in)
	r.lines.Feed(in.Data[:in.N], r.line, r.tooLong)
	r.confirm()
	if r.acked {
		r.acked = false
		r.out.flush(true)
	}
	r.held = 0
	if r.lines.Partial() {
		r.held = min(len(r.fds), maxHeld)
	}
	r.dropDescriptors(r.held, len(r.fds))
	came := len(in.FDs) > 0 || r.claimed
	r.claimed = false
	if came && !r.stuck && !r.ch.Closes() {
		r.stuck = true
		r.fault("what it has sent cannot be closed")
		r.side.Overrun()
	}
}

// confirm tells the peer what has been received, if it has asked.
func (r *reader) confirm() {
	if r.asked > 0 {
		r.answerAs(answerLine, wire.AppendCount(nil, wire.ActReceived, r.asked))
		r.asked = 0
	}
}

// dropHeld closes the descriptors that came while the line that has just ended was
// half read. They were for that line, and it has not claimed them.
func (r *reader) dropHeld() {
	n := r.held
	r.held = 0
	r.dropDescriptors(0, n)
}

// dropDescriptors closes fds[from:to], which belong to no message.
func (r *reader) dropDescriptors(from, to int) {
	if from >= to {
		return
	}
	r.ch.Drop(r.fds[from:to])
	r.fds = append(r.fds[:from], r.fds[to:]...)
	r.fault("%d descriptors came with no message that takes them; closed", to-from)
}

// dropAll closes the descriptors that nothing will claim any more.
func (r *reader) dropAll() {
	r.ch.Drop(r.fds)
	r.fds = nil
}

// deliver passes on the messages that were read so far. It is called before anything else
// is reported, which keeps the order.
func (r *reader) deliver() {
	if len(r.batch.messages) > 0 {
		batch, size := r.batch.take()
		r.count(batch, size)
		r.to.Messages(batch, size)
	}
}

// count counts messages that are passed on.
func (r *reader) count(batch [][]byte, size int) {
	r.messages.Add(int64(len(batch)))
	r.flow.add(size)
}

// message takes one for the application. If it is owned, it does not lie in the buffer of
// the read.
func (r *reader) message(raw []byte, owned bool) {
	switch {
	case owned:
		r.deliver()
		size := len(raw) + MessageCost
		r.count([][]byte{raw}, size)
		r.to.Messages([][]byte{raw}, size)
	default:
		r.batch.add(raw)
		if len(r.batch.messages) == maxBatch && !r.here {
			r.deliver()
		}
	}
}

// FaultCost is how many bytes a report counts against the input bound, beside its text.
const FaultCost = 512

// fault reports that the peer broke the protocol.
func (r *reader) fault(format string, args ...any) {
	r.deliver()
	err := fmt.Errorf("cluster: %s: "+format, append([]any{r.name}, args...)...)
	cost := FaultCost + len(err.Error()) // the text may quote the peer, and is kept whole
	r.flow.add(cost)
	r.to.Report(wire.PlainError(err), cost)
}
