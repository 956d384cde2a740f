package link

import (
	"bytes"

	"github.com/go-cluster/cluster/internal/channel"
)

// readBatch is the messages of one read that are not passed on yet. They lie in the buffer
// of the read.
type readBatch struct {
	messages [][]byte
	size     int // of messages, in bytes that count against the input bound
}

const (
	// maxBatch is how many messages are passed on at once, so that callbacks need not
	// wait for a whole read.
	maxBatch = 256
	// slabSize is the size in bytes of an allocation that small messages of one batch
	// share. As long as one of them is kept, all of it is.
	slabSize = 2 << 10
)

// MessageCost is how many bytes a message counts against the input bound, beside its own.
const MessageCost = 64

// begin begins a read, whose buffer has room for the list of messages.
func (b *readBatch) begin(in *channel.Input) { b.messages = in.Lines[:0] }

// end ends it, and gives the room back.
func (b *readBatch) end(in *channel.Input) { in.Lines, b.messages, b.size = b.messages, nil, 0 }

// add takes a message.
func (b *readBatch) add(raw []byte) {
	b.messages = append(b.messages, raw)
	b.size += len(raw) + MessageCost
}

// take empties the batch and returns copies of its messages. They may be kept for a slow
// callback, so the list and what they share are not larger than they have to be.
func (b *readBatch) take() (messages [][]byte, size int) {
	small := 0
	for _, raw := range b.messages {
		if isSmall(raw) {
			small += len(raw)
		}
	}
	messages, size = make([][]byte, len(b.messages)), b.size
	var slab []byte
	for i, raw := range b.messages {
		if !isSmall(raw) {
			messages[i] = bytes.Clone(raw)
			continue
		}
		if len(raw) > cap(slab)-len(slab) {
			slab = make([]byte, 0, min(small, slabSize))
		}
		small -= len(raw)
		start := len(slab)
		slab = append(slab, raw...)
		messages[i] = slab[start:len(slab):len(slab)]
	}
	b.messages, b.size = b.messages[:0], 0
	return messages, size
}

func isSmall(raw []byte) bool { return len(raw) <= slabSize/8 }
