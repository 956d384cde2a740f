// Package link is the protocol over one channel, the same on both sides: messages,
// receipts for them, requests and their replies, descriptors, and the questions of
// the internal protocol. A [Link] owns its channel.
//
// What arrives goes up to a [Receiver] (messages, errors, who answers a request)
// and to a [Side] (the internal messages that master and worker treat
// differently). A link knows no process and no cluster.
//
// Each part of a link has one task:
//   - reader: takes what arrives, from the bytes to the message or the call;
//   - readTurn: says who reads, and flow how much may be read;
//   - outbox: gives lines to the kernel, some of them together (holdBack);
//   - receipts: what to call when the peer has received a message;
//   - calls: the requests of this side that wait for their reply;
//   - requests: the peer's requests, from their handler to the reply;
//   - exchange: the questions and the descriptors of the internal protocol;
//   - workers: the goroutines that read and that answer requests.
//
// docs/timing.md says why readTurn, holdBack, workers and takeHere decide as they do, with the
// benchmark of each.
//
// Goroutines: one reads at a time, one of the workers or a caller of Request that
// has the turn. It waits for nothing but the peer, except that it stops reading
// while too much is undelivered. Each request of the peer is answered on a
// goroutine of its own, or by the reader if the last ones took next to no time. The reader
// also delivers messages itself while the Receiver says that callbacks are prompt. One
// such goroutine rests until there is the next request. Whoever sends writes to the
// kernel itself. A goroutine of the outbox later writes what the kernel does not take at
// once.
//
// Locks, in the order in which they may be taken: first that of receipts, calls or
// exchange; then the outbox's; then the channel's. The locks of readTurn, flow,
// requests and callback.Running are taken alone or under one of the first three, and
// nothing is taken under them. No two locks of one row are held at once. Callbacks
// run under no lock. There is one exception: a receipt by a node peer, which must
// not wait. What the reader owns has no lock: it belongs to whoever has the turn.
//
// The tests have a real channel of which the test is the peer, with a Receiver of
// their own; those of the outbox have a kernel that takes as much as they say.
package link
