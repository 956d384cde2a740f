// Package link is the protocol over one channel, the same on both sides: messages,
// receipts for them, requests and their replies, descriptors, and the questions of
// the internal protocol. A [Link] owns its channel.
//
// What arrives goes up to a [Receiver] (messages, errors, who answers a request)
// and to a [Side] (the internal messages that master and worker treat
// differently). A link knows no process and no cluster.
//
// Goroutines: one reads at a time, the reader or a caller of Request (readTurn);
// it waits for nothing but the peer, except that it stops reading while too much
// is undelivered (flow). Each request of the peer is answered on a goroutine of its
// own, one of which rests until there is the next. Whoever sends writes to the
// kernel itself, and what the kernel does not take at once a goroutine of the
// outbox writes on.
//
// Locks, in the order in which they may be taken: Link.mu, then the outbox's, then
// the channel's. The locks of readTurn and flow, and those of the requests that wait
// or are in flight, are taken alone or under Link.mu, and nothing is taken under
// them. Callbacks run under no lock, but for a receipt by a node peer, which must
// not wait.
//
// The tests have a real channel of which the test is the peer, with a Receiver of
// their own; those of the outbox have a kernel that takes as much as they say.
package link
