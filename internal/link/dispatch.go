package link

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/wire"
)

// What the reader does with a line.

var errNotJSON = errors.New("dropped, since it is no JSON or nested too deep")

// maxInternal is the size in bytes of the longest message of the protocol. The message
// that asks for an address is kept for as long as the address is open.
const maxInternal = 64 << 10

// tooLong is called for a line that is longer than the bound.
func (r *reader) tooLong() {
	r.dropped = fmt.Errorf("%w: dropped, the bound is %d bytes", errs.MessageTooLong, r.lines.Max)
	r.fault("%w", r.dropped)
	r.dropHeld()
}

// line handles one line.
func (r *reader) line(raw []byte, owned bool) {
	read, ok := wire.Read(raw)
	if !ok {
		r.dropped = errNotJSON
		r.fault("not JSON: %s", wire.Excerpt(raw))
	} else {
		if cmd, ok := read.Internal(); ok {
			r.deliver()
			r.internal(cmd, &read)
		} else {
			r.message(raw, owned)
		}
		r.dropped = nil
	}
	r.dropHeld()
}

// internal handles a message of the protocol. It ignores an unknown one, as node does.
func (r *reader) internal(cmd string, read *wire.Line) {
	raw := read.Raw
	switch cmd {
	case wire.CmdExtra:
		m, err := read.Extra()
		if err != nil {
			r.fault("bad internal message %s: %w", wire.Excerpt(raw), err)
			return
		}
		r.ours(m, raw)
	case wire.CmdAck:
		r.exchange.handleAcked(true)
	case wire.CmdNack:
		r.exchange.handleAcked(false)
	case wire.CmdHandle:
		r.handle(raw)
	case wire.CmdCluster:
		r.confirm() // before the message, which may be the order to disconnect
		r.cluster(raw, nil)
	case wire.CmdSocketsClose:
		r.sockets(raw, wire.Message{Cmd: wire.CmdSocketsClosed})
	case wire.CmdSocketsCount:
		r.sockets(raw, wire.Message{Cmd: wire.CmdSocketsNumber, Count: new(0)})
	}
}

// sockets answers node's questions about sockets that it has sent here: none of them
// counts for its server any more.
func (r *reader) sockets(raw []byte, answer wire.Message) {
	var m wire.Message
	if err := json.Unmarshal(raw, &m); err != nil {
		r.fault("bad internal message %s: %w", wire.Excerpt(raw), err)
		return
	}
	answer.Key = m.Key
	r.answerAs(answerLine, answer.Line())
}

// acknowledge answers a message that came with a descriptor. The answer is written when
// all of this read has been looked at, so that other lines may go with it.
func (r *reader) acknowledge(cmd string) {
	r.acked = true
	r.answerAs(lateLine, []byte(`{"cmd":"`+cmd+`"}`+"\n"))
}

// handle takes a message that came with a descriptor. It is acknowledged before
// it is looked at, as node does: its sender sends nothing more until then.
func (r *reader) handle(raw []byte) {
	h := r.claim(raw)
	if h == nil {
		r.acknowledge(wire.CmdNack)
		r.withoutHandle("a handle message came without its descriptor: %s", wire.Excerpt(raw))
		r.unanswered(raw)
		return
	}
	r.acknowledge(wire.CmdAck)
	outer, err := wire.Parse(raw)
	if err != nil {
		h.Release()
		r.fault("bad internal message %s: %w", wire.Excerpt(raw), err)
		return
	}
	if cmd, ok := wire.InternalCmd(outer.Msg); ok {
		// Nothing else of the protocol comes with a descriptor. In particular no
		// further NODE_HANDLE: nested ones would each hold a copy of the rest.
		if cmd == wire.CmdCluster {
			r.cluster(outer.Msg, h)
			return
		}
		h.Release()
		r.fault("a handle came with %q; closed", cmd)
		return
	}
	if len(outer.Msg) == 0 {
		h.Release()
		r.fault("a handle came without a message; closed")
		return
	}
	r.messageWith(outer.Msg, h)
}

// withoutHandle is fault for a message that came without its descriptor. A process that has
// none free hears of it once, and again when one has come in between: its peer goes on to send
// what it has.
func (r *reader) withoutHandle(format string, args ...any) {
	if !r.scarce {
		r.scarce = true
		r.fault(format+" (is this process out of descriptors? see RLIMIT_NOFILE)", args...)
	}
}

// maxNodeTries is how often a node peer sends a descriptor.
const maxNodeTries = 4

// unanswered gives up an answer that has come as often as a node peer sends it, without its
// descriptor. A Go peer says that itself.
func (r *reader) unanswered(raw []byte) {
	outer, err := wire.Parse(raw)
	if err != nil || r.peer() == PeerGo {
		return
	}
	m, err := wire.Parse(outer.Msg)
	if err != nil || m.Ack == nil {
		return
	}
	if r.missed.ack != *m.Ack {
		r.missed = missed{ack: *m.Ack}
	}
	if r.missed.times++; r.missed.times < maxNodeTries {
		return
	}
	r.missed = missed{}
	if told := r.exchange.answered(*m.Ack); told != nil {
		m.Errno, m.Go = new(-int(syscall.EMFILE)), &wire.Extension{Reason: wire.NoDescriptor}
		told(&m, nil)
	}
}

// claim returns the descriptor that came with the line, or nil.
func (r *reader) claim(raw []byte) *handle.Handle {
	h, rest := r.ch.Claim(raw, r.fds)
	if h != nil {
		r.scarce = false
	}
	if len(rest) < len(r.fds) && r.held > 0 {
		r.held--
	}
	r.fds = rest
	r.claimed = r.claimed || h != nil
	return h
}

// HandleCost is how many bytes a message with a descriptor counts against the input
// bound, beside its own.
const HandleCost = 64 << 10

// messageWith takes a message for the application with the descriptor that came
// with it.
func (r *reader) messageWith(msg []byte, h *handle.Handle) {
	r.deliver()
	size := len(msg) + HandleCost
	r.messages.Add(1)
	r.flow.add(size)
	r.to.Handle(msg, h, size)
}

// handed takes a message with a descriptor from a Go peer. If the descriptor did not
// come, the message is delivered without it.
func (r *reader) handed(m wire.Extra, raw []byte) {
	h := r.claim(raw)
	msg := bytes.Clone(m.Msg)
	if cmd, ok := wire.InternalCmd(msg); ok || len(msg) == 0 {
		h.Release()
		r.fault("a handle came with %q; closed", cmd)
		return
	}
	if h == nil {
		r.fault("a message came without its handle: is this process out of descriptors?")
		r.message(msg, true)
		return
	}
	r.messageWith(msg, h)
}

// cluster handles a NODE_CLUSTER message: the answer to a question of this side, or
// something for the Side.
func (r *reader) cluster(raw []byte, h *handle.Handle) {
	if len(raw) > maxInternal {
		h.Release()
		r.fault("an internal message of %d bytes is ignored: %s", len(raw), wire.Excerpt(raw))
		return
	}
	m, err := wire.Parse(raw)
	if err != nil {
		h.Release()
		r.fault("bad internal message %s: %w", wire.Excerpt(raw), err)
		return
	}
	if m.Ack == nil {
		r.side.Internal(&m, h)
		return
	}
	if told := r.exchange.answered(*m.Ack); told != nil {
		told(&m, h)
	} else {
		h.Release()
	}
}

// requested has a request of the peer answered. It keeps the last one of this read for
// reader.answer.
func (r *reader) requested(a asked) {
	j, ok := r.requests.came(a)
	if !ok {
		return
	}
	if r.byCaller { // a caller reads, which waits for its own answer
		r.workers.spawn(j)
		return
	}
	if r.job.by != nil {
		r.workers.spawn(r.job)
	}
	r.job = j
}

// ask notes that the peer wants to know that all messages up to number n have come. If
// the line before this question was dropped, that line was message n, and the peer is
// told so.
func (r *reader) ask(n uint64) {
	if r.dropped == nil || n == 0 {
		r.asked = max(r.asked, n)
		return
	}
	r.confirm() // the messages before n
	code := ""
	if errors.Is(r.dropped, errs.MessageTooLong) {
		code = wire.CodeTooLong
	}
	r.answerAs(answerLine, wire.AppendDropped(nil, n, r.dropped.Error(), code))
}

// ours handles a NODE_GO_CLUSTER message. raw is its line.
func (r *reader) ours(m wire.Extra, raw []byte) {
	switch m.Act {
	case wire.ActAsk:
		r.ask(m.N)
	case wire.ActReceived:
		r.receipts.received(m.N, remoteError(m))
	case wire.ActRequest:
		r.requested(asked{m.ID, bytes.Clone(m.Msg)})
	case wire.ActReply:
		r.calls.replied(m)
	case wire.ActCoord, wire.ActTopic:
		r.side.Coord(m.Act, m.ID, m.Msg)
	case wire.ActHandle:
		r.handed(m, raw)
	case wire.ActStream:
		r.side.Internal(&wire.Message{Cmd: wire.CmdExtra, Act: m.Act}, r.claim(raw))
	default:
		if len(m.Msg) > maxInternal {
			r.fault("an internal message of %d bytes is ignored: %s", len(m.Msg), wire.Excerpt(m.Msg))
			return
		}
		r.side.Internal(&wire.Message{Cmd: wire.CmdExtra, Act: m.Act, Msg: m.Msg}, nil)
	}
}
