package share

import (
	"syscall"

	"github.com/go-cluster/cluster/internal/wire"
)

// What a worker is given for an address.

// grant gives m its share of e, unless m is on its way out. It runs in the mailbox that also
// orders m to disconnect, so that order comes either before or after it. A node worker that
// gets an address after it has disconnected keeps listening, without a channel, and never ends.
func (r *Registry) grant(m Member, w *wire.Message, e *entry) error {
	if !m.Grants(e.key) {
		return nil
	}
	if _, twice := e.holders[m]; twice {
		return syscall.EADDRINUSE // asked twice before it was open
	}
	fresh := !e.granted && e.held == 0
	e.holders[m] = struct{}{}
	e.granted = true
	e.generation = max(e.generation, m.Generation())
	e.slotted = e.slotted || m.Slotted()
	out := &wire.Message{Ack: w.Seq, Key: e.key, Data: e.data, Go: &wire.Extension{Listening: true}}
	if e.dispatcher == nil && (e.shards == nil || e.query.IsPacket()) {
		typ := wire.TypeNative
		if e.query.IsPacket() {
			typ = wire.TypeDgram
		}
		out.Errno = ptr(0)
		out.Go.Sharded = e.shards != nil && w.Go != nil && w.Go.TakesShards // the socket is to write by
		m.SendHandle(typ, out, e.sockets[0].Retain(), func() { lost(r, m, w, e, fresh) })
		if out.Go.Sharded {
			r.Shards.join(e, m)
		}
		return nil
	}
	out.Cmd, out.Seq, out.Sockname = wire.CmdCluster, wire.NextSeq(), socknameOf(e.addr)
	out.Go.Sharded = e.shards != nil
	m.Answer(out.Line())
	switch {
	case e.dispatcher != nil:
		e.dispatcher.add(m)
	case w.Go != nil && w.Go.TakesShards:
		r.Shards.join(e, m)
	}
	return nil
}

// lost takes back what m was granted with a descriptor that has not come to it, and tells
// it so: without an answer its Listen would wait for ever. first says that nobody had the
// address before. It then ends, unless others listen on it by now.
func lost(r *Registry, m Member, w *wire.Message, e *entry, first bool) {
	r.host.Turn(func() {
		delete(e.holders, m)
		r.Shards.part(e, m)
		if first && r.entries[e.key] == e && len(e.holders) == 0 {
			r.endUnused(e)
		}
	})
	if !m.Leaving() { // one that leaves takes no answer any more
		r.Refuse(m, w, syscall.EMFILE, wire.NoDescriptor)
	}
}
