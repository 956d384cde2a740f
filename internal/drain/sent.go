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

// SentListener is Listener for a listener that another process has opened and sent. It
// drains, but an Accept on it does not make this worker ready.
func (t *Tracker) SentListener(source Source) *Listener {
	l := t.Listener(source, source.Addr(), net.KeepAliveConfig{}, func() {})
	l.asks = func() {}
	return l
}

// SentPacketConn is SentListener for datagrams.
func (t *Tracker) SentPacketConn(source PacketSource) net.PacketConn {
	return t.packetConn(source, source.LocalAddr(), func() {}, func() {})
}
