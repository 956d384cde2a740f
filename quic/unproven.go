package quic

import (
	"net"

	quicgo "github.com/quic-go/quic-go"
)

// Whoever sends a ClientHello from a forged address has a place of MaxConnections until
// quic-go ends the handshake. So a few places are for clients that have not proved where
// they are. The others are asked to prove it first, by a Retry: they get a token, send their
// first datagram once more with it, and have no place until then. The key of the tokens is
// the master's, so that any worker takes one.

// unprovenParts says how many of the places that are free, or taken by handshakes of unproven
// clients, those have: one of so many.
const unprovenParts = 4

// doubts reports whether the client at an address, which has no token, has to prove that it
// is there.
func (l *Listener) doubts(net.Addr) bool {
	room, bounded := l.place.Room()
	if !bounded {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return unprovenParts*(l.unproven+1) > room+l.unproven
}

// proven notes that the client of c is where it says, or that c is over. l.mu is held.
func (l *Listener) proven(c *connection) {
	if c.unproven {
		c.unproven = false
		l.unproven--
	}
}

// provenBy notes it when the handshake of conn, which is that of c, is complete. It may not be
// when Accept returns: see Allow0RTT.
func (l *Listener) provenBy(c *connection, conn *quicgo.Conn) {
	prove := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.proven(c)
	}
	select {
	case <-conn.HandshakeComplete():
		prove()
		return
	default:
	}
	go func() {
		select {
		case <-conn.HandshakeComplete():
			prove()
		case <-conn.Context().Done():
		}
	}()
}
