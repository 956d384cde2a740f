package socket

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// families are the sockets by which a MergedPackets writes. There are two if its address has
// a socket for each family, and nearly always only the first.
type families struct {
	first *net.UDPConn
	is6   bool // the first is of IPv6; set before other is
	other atomic.Pointer[net.UDPConn]
}

// meet notes the socket h if it is the first one of the other family. It takes a descriptor of
// its own. There is one call at a time.
func (f *families) meet(h *handle.Handle) error {
	if f.other.Load() != nil {
		return nil
	}
	rc, err := f.first.SyscallConn()
	if err != nil {
		return err
	}
	own := 0
	if err := rc.Control(func(fd uintptr) { own = familyOf(int(fd)) }); err != nil {
		return err
	}
	if own == familyOf(h.FD()) {
		return nil
	}
	c, err := NewPacketConn(h)
	if err != nil {
		return err
	}
	udp, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return &net.OpError{Op: "listen", Net: c.LocalAddr().Network(), Addr: c.LocalAddr(), Err: unix.EOPNOTSUPP}
	}
	f.is6 = own == unix.AF_INET6
	f.other.Store(udp)
	return nil
}

// familyOf is the address family of a socket, or 0.
func familyOf(fd int) int {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return 0
	}
	return n
}

// by is the socket that writes to an address.
func (f *families) by(to netip.Addr) *net.UDPConn {
	other := f.other.Load()
	if other == nil || to.Unmap().Is6() == f.is6 {
		return f.first
	}
	return other
}

func (f *families) byUDP(to *net.UDPAddr) *net.UDPConn {
	if to == nil {
		return f.first // which says that it needs an address
	}
	return f.by(to.AddrPort().Addr())
}

// close closes the other one.
func (f *families) close() error {
	if other := f.other.Load(); other != nil {
		return other.Close()
	}
	return nil
}

// WriteTo sends a datagram.
func (m *MergedPackets) WriteTo(b []byte, to net.Addr) (int, error) {
	udp, _ := to.(*net.UDPAddr)
	return m.families.byUDP(udp).WriteTo(b, to)
}

// WriteToUDP sends a datagram.
func (m *MergedPackets) WriteToUDP(b []byte, to *net.UDPAddr) (int, error) {
	return m.families.byUDP(to).WriteToUDP(b, to)
}

// WriteToUDPAddrPort sends a datagram.
func (m *MergedPackets) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return m.families.by(to.Addr()).WriteToUDPAddrPort(b, to)
}

// WriteMsgUDP sends a datagram with a control message.
func (m *MergedPackets) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	return m.families.byUDP(to).WriteMsgUDP(b, oob, to)
}

// WriteMsgUDPAddrPort sends a datagram with a control message.
func (m *MergedPackets) WriteMsgUDPAddrPort(b, oob []byte, to netip.AddrPort) (n, oobn int, err error) {
	return m.families.by(to.Addr()).WriteMsgUDPAddrPort(b, oob, to)
}

// SetWriteDeadline sets the deadline of writes.
func (m *MergedPackets) SetWriteDeadline(t time.Time) error {
	return m.families.each(func(c *net.UDPConn) error { return c.SetWriteDeadline(t) })
}

// SetWriteBuffer sets the size of the send buffer, in bytes.
func (m *MergedPackets) SetWriteBuffer(bytes int) error {
	return m.families.each(func(c *net.UDPConn) error { return c.SetWriteBuffer(bytes) })
}

// each calls fn with the sockets that write.
func (f *families) each(fn func(c *net.UDPConn) error) error {
	err := fn(f.first)
	if other := f.other.Load(); other != nil {
		err = errors.Join(err, fn(other))
	}
	return err
}
