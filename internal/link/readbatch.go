package link

import (
	"bytes"
	"slices"
)

// readBatch is the messages of one read that are not passed on yet.
type readBatch struct {
	messages [][]byte
	size     int    // of messages, in the flow's bytes
	unread   int    // bytes of this read, about, that are not looked at yet
	slab     []byte // where small messages of this read are kept
	kept     int    // bytes of those
}

const (
	// maxBatch is how many messages are passed on at once: the callbacks need not
	// wait for a whole read.
	maxBatch = 256
	// slabSize is what small messages of one read share an allocation of. Any of
	// them keeps it all.
	slabSize = 2 << 10
)

// MessageCost is what a message costs beside its bytes.
const MessageCost = 64

// begin begins a read of n bytes.
func (b *readBatch) begin(n int) { b.unread = n }

// end ends it: the next read has a slab of its own.
func (b *readBatch) end() { b.slab, b.kept = nil, 0 }

// seen notes that n bytes are looked at.
func (b *readBatch) seen(n int) { b.unread -= n }

// add takes a message, and reports whether the batch is full.
func (b *readBatch) add(raw []byte) (full bool) {
	if b.messages == nil {
		// The next messages are about as large.
		b.messages = make([][]byte, 0, 1+min(max(0, b.unread)/(len(raw)+1), maxBatch-1))
	}
	b.messages = append(b.messages, raw)
	b.size += len(raw) + MessageCost
	return len(b.messages) == maxBatch
}

// take empties the batch. One that is kept for a slow callback must not be much
// larger than what it counts.
func (b *readBatch) take() (messages [][]byte, size int) {
	messages, size = b.messages, b.size
	b.messages, b.size = nil, 0
	if cap(messages) > 2*len(messages) {
		messages = slices.Clone(messages)
	}
	return messages, size
}

// keep copies a message out of the buffer of this read. The slabs grow with
// what is kept, so that a single small message keeps no large one.
func (b *readBatch) keep(raw []byte) []byte {
	if len(raw) > slabSize/8 {
		return bytes.Clone(raw)
	}
	if len(raw) > cap(b.slab)-len(b.slab) {
		b.slab = make([]byte, 0, max(len(raw), min(4*b.kept, b.unread, slabSize)))
	}
	b.kept += len(raw)
	start := len(b.slab)
	b.slab = append(b.slab, raw...)
	return b.slab[start:len(b.slab):len(b.slab)]
}
