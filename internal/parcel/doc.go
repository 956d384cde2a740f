// Package parcel is about the descriptors that travel with messages of the
// application: how one is made of a connection, a listener, a datagram socket or a
// file ([Pack]), and who has it at the other end until somebody takes it ([Parcel]).
//
// Where a descriptor is, and who closes it:
//
//   - Pack duplicates it. The original stays the sender's, the duplicate is the
//     link's from there on, which closes it when the kernel has it, when the peer
//     refuses it and when the channel ends.
//   - On its way the kernel has it. When the receiver dies the kernel closes it.
//   - What arrives is the reader's until its line is complete, and then a Parcel's.
//     The Parcel goes with the message to every callback. Conn, Listener, PacketConn
//     and File take the descriptor out of it; Drop closes what nobody took.
//
// A Parcel owns its descriptor. It has one lock, under which nothing is called, and
// no goroutine. What becomes of a connection in a drain is not known here.
//
// The tests pack and take real sockets; that nothing is left when processes die is
// tested in test/handles.
package parcel
