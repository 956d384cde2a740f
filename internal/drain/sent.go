package drain

import "net"

// Sockets that another process has sent here.

// Conn takes in a connection that another process has accepted. From here on it is
// in flight like those that a Listener returned.
func (t *Tracker) Conn(raw net.Conn) net.Conn {
	wrapped, c := t.track(nil, raw)
	t.arrived(c)
	return wrapped
}

// SentListener is Listener for one that another process has opened. It drains, but
// that the program accepts on it says nothing about this worker's own addresses.
func (t *Tracker) SentListener(source Source) *Listener {
	l := t.Listener(source, source.Addr(), net.KeepAliveConfig{}, func() {})
	l.asks = func() {}
	return l
}

// SentPacketConn is SentListener for datagrams.
func (t *Tracker) SentPacketConn(source PacketSource) net.PacketConn {
	return t.packetConn(source, source.LocalAddr(), func() {}, func() {})
}
