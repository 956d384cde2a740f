// Package parcel is about the descriptors that go with messages of the application. [Pack]
// makes one of a connection, a listener, a datagram socket or a file. A [Parcel] has it at
// the other end until somebody takes it.
//
// Where a descriptor is, and who closes it:
//
//   - Pack duplicates it. The original stays the sender's. The link owns the duplicate, and
//     closes it when the kernel has it, when the peer refuses it, or when the channel ends.
//   - On its way the kernel has it. When the receiver dies the kernel closes it.
//   - At the other end the reader of the channel has it until its line is complete, and
//     then a Parcel. The Parcel goes with the message to every callback. Conn, Listener,
//     PacketConn and File take the descriptor out of it; Drop closes one that nobody took.
//
// A Parcel owns its descriptor. It has one lock, under which nothing is called, and no
// goroutine. Of a drain this package knows nothing: the root puts a connection that is
// taken among those that the drain waits for.
//
// The tests pack and take real sockets. Those of test/handles show that nothing is left
// when processes die.
package parcel
