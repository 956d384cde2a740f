package link

import (
	"bytes"
	"slices"
)

// readBatch is the messages of one read that are not passed on yet.
type readBatch struct {
	messages [][]byte
	size     int    // of messages, in bytes that count against the input bound
	unread   int    // about how many bytes of this read are not looked at yet
	slab     []byte // memory for small messages of this read
	kept     int    // bytes of small messages of this read
}

const (
	// maxBatch is how many messages are passed on at once, so that callbacks need not
	// wait for a whole read.
	maxBatch = 256
	// slabSize is the size in bytes of an allocation that small messages of one read
	// share. As long as one of them is kept, all of it is.
	slabSize = 2 << 10
)

// MessageCost is how many bytes a message counts against the input bound, beside its own.
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
		// A guess: the next messages are as large as this one.
		b.messages = make([][]byte, 0, 1+min(max(0, b.unread)/(len(raw)+1), maxBatch-1))
	}
	b.messages = append(b.messages, raw)
	b.size += len(raw) + MessageCost
	return len(b.messages) == maxBatch
}

// take empties the batch and returns its messages. The list may be kept for a slow
// callback, so it must not be much larger than what it counts for.
func (b *readBatch) take() (messages [][]byte, size int) {
	messages, size = b.messages, b.size
	b.messages, b.size = nil, 0
	if cap(messages) > 2*len(messages) {
		messages = slices.Clone(messages)
	}
	return messages, size
}

// keep copies a message out of the buffer of this read. The slabs grow with the bytes
// kept, so that a single small message does not keep a large slab.
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
