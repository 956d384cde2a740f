package drain

import (
	"net"
	"net/netip"
	"os"
)

// udpConn is a packetConn of UDP. It has all methods of a *net.UDPConn, since
// protocols over UDP ask for those that they need: quic-go for ReadMsgUDP and
// WriteMsgUDP, without which it has neither ECN nor GSO, and x/net for the methods of a
// net.Conn, without which it reads no batches.
type udpConn struct {
	*packetConn
	udp udpSource
}

// udpSource is a *net.UDPConn, or several sockets that are like one.
type udpSource interface {
	net.Conn
	ReadFromUDP(b []byte) (n int, from *net.UDPAddr, err error)
	ReadFromUDPAddrPort(b []byte) (n int, from netip.AddrPort, err error)
	ReadMsgUDP(b, oob []byte) (n, oobn, flags int, from *net.UDPAddr, err error)
	ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, from netip.AddrPort, err error)
	WriteToUDP(b []byte, to *net.UDPAddr) (int, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error)
	WriteMsgUDPAddrPort(b, oob []byte, to netip.AddrPort) (n, oobn int, err error)
	File() (*os.File, error)
}

func (c *udpConn) Read(b []byte) (n int, err error) {
	err = c.read(func() (err error) { n, err = c.udp.Read(b); return err })
	return n, err
}

func (c *udpConn) ReadFromUDP(b []byte) (n int, from *net.UDPAddr, err error) {
	err = c.read(func() (err error) { n, from, err = c.udp.ReadFromUDP(b); return err })
	return n, from, err
}

func (c *udpConn) ReadFromUDPAddrPort(b []byte) (n int, from netip.AddrPort, err error) {
	err = c.read(func() (err error) { n, from, err = c.udp.ReadFromUDPAddrPort(b); return err })
	return n, from, err
}

func (c *udpConn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, from *net.UDPAddr, err error) {
	err = c.read(func() (err error) { n, oobn, flags, from, err = c.udp.ReadMsgUDP(b, oob); return err })
	return n, oobn, flags, from, err
}

func (c *udpConn) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, from netip.AddrPort, err error) {
	err = c.read(func() (err error) { n, oobn, flags, from, err = c.udp.ReadMsgUDPAddrPort(b, oob); return err })
	return n, oobn, flags, from, err
}

func (c *udpConn) Write(b []byte) (int, error) { return c.udp.Write(b) }

func (c *udpConn) WriteToUDP(b []byte, to *net.UDPAddr) (int, error) { return c.udp.WriteToUDP(b, to) }

func (c *udpConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return c.udp.WriteToUDPAddrPort(b, to)
}

func (c *udpConn) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	return c.udp.WriteMsgUDP(b, oob, to)
}

func (c *udpConn) WriteMsgUDPAddrPort(b, oob []byte, to netip.AddrPort) (n, oobn int, err error) {
	return c.udp.WriteMsgUDPAddrPort(b, oob, to)
}

func (c *udpConn) RemoteAddr() net.Addr { return c.udp.RemoteAddr() }

// File returns a duplicate of the socket. The drain does not know of reads from it.
func (c *udpConn) File() (*os.File, error) { return c.udp.File() }
