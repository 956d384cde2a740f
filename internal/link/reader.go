package link

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/wire"
)

// What arrives over a link, from the bytes to the message or the call. Who has the
// turn to read runs all of it: nearly always the link's one reader.

// maxInternal bounds, in bytes, a message of the protocol: what an address is
// asked for with is kept for as long as the address is open.
const maxInternal = 64 << 10

const (
	// maxHeld bounds the descriptors that a peer can make this side hold with a
	// line that it does not end.
	maxHeld = 64
)

// read is the reader: it reads to the end, or until it passes the reading on to
// another goroutine, because it has a request to answer.
func (l *Link) read() {
	for {
		l.readTurn.await()
		l.pause()
		in, err := l.ch.Recv()
		l.take(in)
		switch {
		case l.final.Load():
			l.readRest()
		case err == nil:
			if l.job.by != nil {
				l.passOn()
				return
			}
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			l.resume() // somebody's interrupt; for what, the turn knows
			continue
		case err != io.EOF && !errors.Is(err, os.ErrClosed):
			l.to.Report(fmt.Errorf("cluster: channel of %s: %w", l.name, err), 0)
		}
		break
	}
	if l.job.by != nil {
		l.spawn(l.job)
	}
	l.shut()
	close(l.done)
}

// passOn lets another goroutine read, and answers the request that came last in
// this read: a lone request is answered by who has read it, without a switch.
func (l *Link) passOn() {
	j := l.job
	l.job = job{}
	l.spawn(job{read: true})
	l.do(j)
}

// pause stops reading while too much input waits to be delivered.
func (l *Link) pause() {
	for !l.flow.enter() {
		if l.flow.unclaimed() {
			l.to.Report(fmt.Errorf("cluster: %s: %d bytes of messages and requests wait for a handler; its channel is not read until one takes them: %w",
				l.name, l.flow.max, errs.Backlog), 0)
		}
		l.waitDelivered()
	}
}

// waitDelivered waits until something was delivered. Nothing is read meanwhile,
// so the end of the channel, which may be the master's death, has to be watched
// for on the side.
func (l *Link) waitDelivered() {
	watched := make(chan struct{})
	var delivered atomic.Bool
	go func() {
		defer close(watched)
		for !l.ch.WaitHangup() {
			if delivered.Load() || l.final.Load() {
				return
			}
			l.resume() // it was for the turn
			if delivered.Load() {
				return // and that has just undone the other one
			}
		}
		l.flow.open()
	}()
	l.flow.wait()
	delivered.Store(true)
	l.ch.Interrupt()
	<-watched
	l.resume()
}

// resume undoes an interrupt, except that of PeerExited.
func (l *Link) resume() {
	if l.final.Load() {
		return
	}
	l.ch.Resume()
	if l.final.Load() { // just now
		l.ch.Interrupt()
	}
}

// readFor reads for the caller that has the turn, until c is answered. Whatever
// else comes up it leaves to the reader, who finds it again.
func (l *Link) readFor(ctx context.Context, c *call) {
	l.byCaller = true
	defer func() { l.byCaller = false }()
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, l.ch.Interrupt)()
	}
	for !c.over() && ctx.Err() == nil && !l.final.Load() && l.flow.enter() {
		in, err := l.ch.Recv()
		l.take(in)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			l.resume()
		} else if err != nil {
			return
		}
	}
}

// PeerExited makes the reader take what is there and end: the peer has exited. A
// grandchild that inherited the channel could hold it open for ever.
func (l *Link) PeerExited() {
	l.final.Store(true)
	l.flow.open()
	l.ch.Interrupt()
	l.readTurn.pickUp()
}

// readRest takes what the kernel has now and no more: who still holds the other
// end could write for ever.
func (l *Link) readRest() {
	for left := l.ch.Unread(); left > 0; {
		in, err := l.ch.TryRecv()
		if err == nil {
			left -= in.N
		}
		l.take(in)
		if err != nil {
			return
		}
	}
}

// take handles what one recvmsg returned.
func (l *Link) take(in *channel.Input) {
	if in == nil {
		return
	}
	defer in.Free()
	l.fds = append(l.fds, in.FDs...)
	l.unread = in.N
	l.in.Feed(in.Data[:in.N], l.line, l.tooLong)
	l.slab, l.kept = nil, 0
	l.deliver()
	l.confirm()
	if l.acked {
		l.acked = false
		l.out.flush(true)
	}
	l.held = 0
	if l.in.Partial() {
		l.held = min(len(l.fds), maxHeld)
	}
	l.dropDescriptors(l.held, len(l.fds))
}

// confirm tells the peer what has been received, if it has asked.
func (l *Link) confirm() {
	if l.asked > 0 {
		l.Answer(wire.AppendCount(nil, wire.ActReceived, l.asked))
		l.asked = 0
	}
}

// dropDescriptors closes fds[from:to], which belong to no message.
func (l *Link) dropDescriptors(from, to int) {
	if from >= to {
		return
	}
	channel.CloseAll(l.fds[from:to])
	l.fds = append(l.fds[:from], l.fds[to:]...)
	l.Fault("%d descriptors came with no message that takes them; closed", to-from)
}

// deliver posts the messages read so far, so that what is reported next comes
// after them.
func (l *Link) deliver() {
	if len(l.batch) == 0 {
		return
	}
	if cap(l.batch) > 2*len(l.batch) {
		// One that is kept for a slow callback must not be much larger than what
		// it counts.
		l.batch = slices.Clone(l.batch)
	}
	l.messages.Add(int64(len(l.batch)))
	l.flow.add(l.size)
	l.to.Messages(l.batch, l.size)
	l.batch, l.size = nil, 0
}

// maxBatch is how many messages are posted at once: the callbacks need not
// wait for a whole read.
const maxBatch = 256

// message takes one for the application.
func (l *Link) message(raw []byte) {
	if l.batch == nil {
		// The next messages are about as large.
		l.batch = make([][]byte, 0, 1+min(max(0, l.unread)/(len(raw)+1), maxBatch-1))
	}
	l.batch = append(l.batch, raw)
	l.size += len(raw) + MessageCost
	if len(l.batch) == maxBatch {
		l.deliver()
	}
}

// slabSize is what small messages of one read share an allocation of. Any of
// them keeps it all.
const slabSize = 2 << 10

// keep copies a message out of the buffer of this read. The slabs grow with
// what is kept, so that a single small message keeps no large one.
func (l *Link) keep(raw []byte) []byte {
	if len(raw) > slabSize/8 {
		return bytes.Clone(raw)
	}
	if len(raw) > cap(l.slab)-len(l.slab) {
		l.slab = make([]byte, 0, max(len(raw), min(4*l.kept, l.unread, slabSize)))
	}
	l.kept += len(raw)
	start := len(l.slab)
	l.slab = append(l.slab, raw...)
	return l.slab[start:len(l.slab):len(l.slab)]
}

// MessageCost is what a message costs beside its bytes.
const MessageCost = 64

// FaultCost is what a report counts against the input bound, beside its text.
const FaultCost = 512

// Fault reports that the peer broke the protocol.
func (l *Link) Fault(format string, args ...any) {
	l.deliver()
	err := fmt.Errorf("cluster: %s: "+format, append([]any{l.name}, args...)...)
	cost := FaultCost + len(err.Error()) // which can quote what the peer said
	l.flow.add(cost)
	l.to.Report(err, cost)
}

func (l *Link) tooLong() {
	l.Fault("%w: dropped, the bound is %d bytes", errs.MessageTooLong, l.in.Max)
	l.dropHeld()
}

// dropHeld closes the descriptors that came while the line that ends now was
// half read: they were for it, and not for a later one.
func (l *Link) dropHeld() {
	n := l.held
	l.held = 0
	l.dropDescriptors(0, n)
}

// line handles one line.
func (l *Link) line(raw []byte, owned bool) {
	if read, ok := wire.Read(raw); !ok {
		l.Fault("not JSON: %s", wire.Excerpt(raw))
	} else if cmd, ok := read.Internal(); ok {
		l.deliver()
		l.internal(cmd, &read)
	} else {
		if !owned {
			raw = l.keep(raw)
		}
		l.message(raw)
	}
	l.unread -= len(raw) + 1
	l.dropHeld()
}

// internal handles a message of the protocol's own. What it does not know it
// ignores, as node does.
func (l *Link) internal(cmd string, read *wire.Line) {
	raw := read.Raw
	switch cmd {
	case wire.CmdExtra:
		m, err := read.Extra()
		if err != nil {
			l.Fault("bad internal message %s: %w", wire.Excerpt(raw), err)
			return
		}
		l.ours(m)
	case wire.CmdAck:
		l.handleAcked(true)
	case wire.CmdNack:
		l.handleAcked(false)
	case wire.CmdHandle:
		l.handle(raw)
	case wire.CmdCluster:
		l.confirm() // this may be the order that ends it all
		l.cluster(raw, nil)
	case wire.CmdSocketsClose:
		l.sockets(raw, wire.Message{Cmd: wire.CmdSocketsClosed})
	case wire.CmdSocketsCount:
		l.sockets(raw, wire.Message{Cmd: wire.CmdSocketsNumber, Count: new(0)})
	}
}

// sockets answers what node asks about sockets that it has sent here: they were
// closed when they came.
func (l *Link) sockets(raw []byte, answer wire.Message) {
	var m wire.Message
	if err := json.Unmarshal(raw, &m); err != nil {
		l.Fault("bad internal message %s: %w", wire.Excerpt(raw), err)
		return
	}
	answer.Key = m.Key
	l.Answer(answer.Line())
}

// handle takes a message that came with a descriptor. It is acknowledged before
// it is looked at, as node does: its sender sends nothing more until then.
func (l *Link) handle(raw []byte) {
	h, rest := l.ch.Claim(raw, l.fds)
	if len(rest) < len(l.fds) && l.held > 0 {
		l.held--
	}
	l.fds = rest
	if h == nil {
		l.acknowledge(wire.CmdNack)
		l.Fault("a handle message came without its descriptor: %s", wire.Excerpt(raw))
		return
	}
	l.acknowledge(wire.CmdAck)
	outer, err := wire.Parse(raw)
	if err != nil {
		h.Release()
		l.Fault("bad internal message %s: %w", wire.Excerpt(raw), err)
		return
	}
	if cmd, ok := wire.InternalCmd(outer.Msg); ok {
		// Nothing else of the protocol comes with a descriptor. In particular no
		// further NODE_HANDLE: nested ones would each hold a copy of the rest.
		if cmd == wire.CmdCluster {
			l.cluster(outer.Msg, h)
			return
		}
		h.Release()
		l.Fault("a handle came with %q; closed", cmd)
		return
	}
	// A handle that the application over there sent: there is no way to hand it
	// to a callback, but the message that it came with is a message.
	h.Release()
	l.Fault("a handle of type %q was closed: %w", outer.Type, errs.NotSupported)
	if len(outer.Msg) > 0 {
		l.message(outer.Msg)
	}
}

// cluster handles a NODE_CLUSTER message: the answer to a question of ours, or
// something for the side.
func (l *Link) cluster(raw []byte, h *handle.Handle) {
	if len(raw) > maxInternal {
		h.Release()
		l.Fault("an internal message of %d bytes is ignored: %s", len(raw), wire.Excerpt(raw))
		return
	}
	m, err := wire.Parse(raw)
	if err != nil {
		h.Release()
		l.Fault("bad internal message %s: %w", wire.Excerpt(raw), err)
		return
	}
	if m.Ack == nil {
		l.side.Internal(&m, h)
		return
	}
	l.mu.Lock()
	answer := l.answers[*m.Ack]
	delete(l.answers, *m.Ack)
	l.mu.Unlock()
	if answer == nil {
		h.Release()
		return
	}
	answer(&m, h)
}

// ours handles a NODE_GO_CLUSTER message.
func (l *Link) ours(m wire.Extra) {
	switch m.Act {
	case wire.ActAsk:
		l.asked = max(l.asked, m.N)
	case wire.ActReceived:
		l.received(m.N)
	case wire.ActRequest:
		l.requested(asked{m.ID, bytes.Clone(m.Msg)})
	case wire.ActReply:
		l.replied(m)
	default:
		if len(m.Msg) > maxInternal {
			l.Fault("an internal message of %d bytes is ignored: %s", len(m.Msg), wire.Excerpt(m.Msg))
			return
		}
		l.side.Internal(&wire.Message{Cmd: wire.CmdExtra, Act: m.Act, Msg: m.Msg}, nil)
	}
}

// received tells those whose messages the peer has received.
func (l *Link) received(n uint64) {
	l.mu.Lock()
	i := 0
	for i < len(l.receipts) && l.receipts[i].n <= n {
		i++
	}
	told := l.receipts[:i]
	l.receipts = l.receipts[i:]
	l.mu.Unlock()
	for _, r := range told {
		r.fn(nil)
	}
}
