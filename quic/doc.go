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
// The master opens a group of sockets on the address (SO_REUSEPORT). The first ones, the
// shares, take what begins a connection, by a hash of the client's address and port. Each
// is read by one of the workers that take connections. Then each worker has a socket of
// its own. The connection IDs that it gives begin with four bytes of the group and two of
// that socket, so that the kernel (a classic BPF program, for which no privilege is
// needed) finds it wherever the client is now: a client may change its address.
//
// In a drain a worker gives its shares to the others, finishes the connections that it
// has, and goes on reading its own socket for that. When a worker is dead the next one
// gets its socket, knows none of its connections, and tells their clients so by a
// stateless reset. The keys for that, for address tokens and for session tickets are the
// master's, so that any worker takes up what another one has begun.
//
// This is Linux. On other systems, where a sandbox refuses the program, and with a node
// primary, [Listen] in a worker returns an error that wraps cluster.ErrNotSupported.
// A process that is no worker, and has forked none, can Listen everywhere.
//
// # Parts
//
// A [Listener] owns the quic-go Transport and the conn below it, and knows the connections
// that are there. A conn (of Linux) owns the sockets, with one goroutine for each that is
// read, and one that begins and ends reads as the master says. Listener.mu guards the
// connections, conn.mu which sockets are read; neither is held while the other one is
// taken, or while anything is sent.
//
// The tests have real processes, and quic-go's clients.
package quic
