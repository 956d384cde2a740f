// Package quic lets all workers of a cluster serve QUIC, and with it HTTP/3, on one UDP
// port, so that a connection stays with its worker over a reload. It is a module of its
// own, since it needs quic-go.
//
//	cluster.AutoFork()
//	ln, err := quic.Listen(":443", http3.ConfigureTLSConfig(tlsConf), nil)
//	…
//	err = quic.Serve(ln, &http3.Server{Handler: handler})
//
// # How a datagram finds its worker
//
// The master opens a group of sockets on the address (SO_REUSEPORT). The first ones are the
// shares. The datagrams that begin a connection come to them, by a hash of the client's address
// and port, and each share is read by one of the workers that take connections. Besides, each
// worker has a socket of its own. Its connection IDs begin with four bytes of the group and two
// of that socket. By these the kernel finds the socket, wherever the client is now: a client may
// change its address. A classic BPF program does that, for which no privilege is needed.
//
// In a drain a worker gives its shares to the others. It finishes its connections, and goes on
// reading its own socket for that. When a worker is dead, the next one gets its socket. That
// one knows none of the connections, and tells their clients so by a stateless reset. The keys
// for resets, address tokens and session tickets come from the master, so that any worker can
// go on with what another one has begun.
//
// This works on Linux. On other systems, if a sandbox refuses the program, and under a node
// primary, [Listen] in a worker returns an error that wraps cluster.ErrNotSupported. A process
// that is not a worker, and has forked none, can Listen everywhere.
//
// # Parts
//
// A [Listener] owns the quic-go Transport and the conn below it, and knows its connections. A
// conn (on Linux) owns the sockets. It has one goroutine for each socket that is read, and one
// that begins and ends reads as the master says. Listener.mu guards the connections, and
// conn.mu which sockets are read. Neither is held while the other one is taken, or while
// anything is sent.
//
// The tests have real processes, and quic-go's clients.
package quic
