package socket

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// MergedPackets reads from several sockets of one UDP address as if they were one socket.
// Sockets come and go while it reads. It writes by one socket that it always has; of an address
// with a socket for each family, by the one of the destination's family. It has all methods of a
// *net.UDPConn.
type MergedPackets struct {
	*net.UDPConn // writes; it is read only if Add was called with its socket
	families     families
	*readiness
	received func() // called for each read

	zones sync.Map // names of interfaces, by their index

	mu     sync.Mutex
	closed bool
	all    map[int]*packets // by index
}

// packets is one of the sockets.
type packets struct {
	using sync.RWMutex // readers of the socket share it; close holds it alone
	fd    int          // -1 when it is closed
}

// NewMergedPackets makes a MergedPackets that writes by h and reads from no socket yet. It
// takes a descriptor of its own. received is called for each read that has brought
// something, and must not wait.
func NewMergedPackets(h *handle.Handle, received func()) (*MergedPackets, error) {
	c, err := NewPacketConn(h)
	if err != nil {
		return nil, err
	}
	udp, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return nil, &net.OpError{Op: "listen", Net: c.LocalAddr().Network(), Addr: c.LocalAddr(), Err: unix.EOPNOTSUPP}
	}
	r, err := newReadiness()
	if err != nil {
		udp.Close()
		return nil, err
	}
	return &MergedPackets{UDPConn: udp, families: families{first: udp}, readiness: r, received: received, all: make(map[int]*packets)}, nil
}

// Add makes m read from h as well. It takes a descriptor of its own. index is for Remove. The
// options that the program has set on the socket that m writes by are set on h too.
func (m *MergedPackets) Add(index int, h *handle.Handle) error {
	d, err := DuplicateFD(h.FD())
	if err != nil {
		return err
	}
	s := &packets{fd: d.FD()}
	m.Remove(index)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		d.Release()
		return net.ErrClosed
	}
	if err := m.families.meet(h); err != nil {
		d.Release()
		return err
	}
	unix.SetNonblock(s.fd, true)
	m.copyOptions(s.fd)
	if err := m.control(unix.EPOLL_CTL_ADD, index, s.fd); err != nil {
		d.Release()
		return err
	}
	m.all[index] = s
	return nil
}

// Remove makes m read from the socket no more.
func (m *MergedPackets) Remove(index int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.all[index]; s != nil {
		delete(m.all, index)
		m.control(unix.EPOLL_CTL_DEL, index, s.fd)
		go s.close() // waits for a read, which another process may have made a blocking one
	}
}

func (s *packets) close() {
	s.using.Lock()
	defer s.using.Unlock()
	unix.Close(s.fd)
	s.fd = -1
}

func (m *MergedPackets) control(op, index, fd int) (err error) {
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(index)} // level-triggered, as in Merged
	outerErr := m.rc.Control(func(epoll uintptr) { err = unix.EpollCtl(int(epoll), op, fd, &e) })
	if outerErr != nil {
		return outerErr
	}
	return os.NewSyscallError("epoll_ctl", err)
}

// inherited are the options of a socket that add to what a read returns.
var inherited = [...]struct{ level, name int }{
	{unix.SOL_SOCKET, unix.SO_RXQ_OVFL},
	{unix.SOL_SOCKET, unix.SO_TIMESTAMP}, {unix.SOL_SOCKET, unix.SO_TIMESTAMPNS}, {unix.SOL_SOCKET, unix.SO_TIMESTAMPING},
	{unix.IPPROTO_IP, unix.IP_PKTINFO}, {unix.IPPROTO_IP, unix.IP_RECVTOS}, {unix.IPPROTO_IP, unix.IP_RECVTTL},
	{unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO}, {unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS}, {unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVORIGDSTADDR},
	{unix.IPPROTO_UDP, unix.UDP_GRO},
}

// copyOptions sets the options on fd as they are on the socket that m writes by. An option
// that the system does not have, or not for this family, is left out.
func (m *MergedPackets) copyOptions(fd int) {
	rc, err := m.UDPConn.SyscallConn()
	if err != nil {
		return
	}
	rc.Control(func(own uintptr) {
		for _, o := range inherited {
			v, err := unix.GetsockoptInt(int(own), o.level, o.name)
			if has, hasErr := unix.GetsockoptInt(fd, o.level, o.name); err == nil && hasErr == nil && v != has {
				unix.SetsockoptInt(fd, o.level, o.name, v)
			}
		}
		// getsockopt returns twice the size that was asked for. A smaller size than the
		// system's own is seldom wanted.
		wanted, err := unix.GetsockoptInt(int(own), unix.SOL_SOCKET, unix.SO_RCVBUF)
		if has, hasErr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil && hasErr == nil && wanted > has {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, wanted/2)
		}
	})
}

// errAgain is the error of a read that has found nothing.
const errAgain = unix.EAGAIN

// receive calls fn with a socket that has something. While fn returns EAGAIN it waits again:
// another process, or another goroutine, was faster.
func (m *MergedPackets) receive(fn func(fd int) error) error {
	for {
		index, err := m.ready()
		if err != nil {
			return m.failed(err)
		}
		m.mu.Lock()
		s := m.all[index]
		m.mu.Unlock()
		if s == nil {
			continue // it has just gone
		}
		switch err = s.use(fn); err {
		case errAgain, unix.EINTR:
			continue
		case nil:
			m.received()
			return nil
		}
		return m.failed(os.NewSyscallError("recvmsg", err))
	}
}

func (s *packets) use(fn func(fd int) error) error {
	s.using.RLock()
	defer s.using.RUnlock()
	if s.fd < 0 {
		return errAgain
	}
	return fn(s.fd)
}

func (m *MergedPackets) failed(err error) error {
	return &net.OpError{Op: "read", Net: "udp", Source: m.LocalAddr(), Err: err}
}

// message reads one datagram.
func (m *MergedPackets) message(b, oob []byte) (n, oobn, flags int, from netip.AddrPort, err error) {
	err = m.receive(func(fd int) (err error) {
		var sa unix.Sockaddr
		n, oobn, flags, sa, err = unix.Recvmsg(fd, b, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			from = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
		case *unix.SockaddrInet6:
			ip := netip.AddrFrom16(sa.Addr)
			if sa.ZoneId != 0 {
				ip = ip.WithZone(m.zone(sa.ZoneId))
			}
			from = netip.AddrPortFrom(ip, uint16(sa.Port))
		}
		return err
	})
	if err != nil {
		return 0, 0, 0, netip.AddrPort{}, err
	}
	return n, oobn, flags, from, nil
}

// zone returns the name of an interface, or its number if it has none. It keeps the names,
// since one does not change.
func (m *MergedPackets) zone(id uint32) string {
	if name, ok := m.zones.Load(id); ok {
		return name.(string)
	}
	name := strconv.Itoa(int(id))
	if i, err := net.InterfaceByIndex(int(id)); err == nil {
		name = i.Name
	}
	m.zones.Store(id, name)
	return name
}

// Read is the method of a *net.UDPConn.
func (m *MergedPackets) Read(b []byte) (n int, err error) {
	n, _, _, _, err = m.message(b, nil)
	return n, err
}

// ReadFrom is the method of a *net.UDPConn.
func (m *MergedPackets) ReadFrom(b []byte) (n int, from net.Addr, err error) {
	n, udp, err := m.ReadFromUDP(b)
	if err != nil {
		return 0, nil, err // an interface without a nil pointer in it
	}
	return n, udp, nil
}

// ReadFromUDP is the method of a *net.UDPConn.
func (m *MergedPackets) ReadFromUDP(b []byte) (n int, from *net.UDPAddr, err error) {
	n, _, _, from, err = m.ReadMsgUDP(b, nil)
	return n, from, err
}

// ReadFromUDPAddrPort is the method of a *net.UDPConn.
func (m *MergedPackets) ReadFromUDPAddrPort(b []byte) (n int, from netip.AddrPort, err error) {
	n, _, _, from, err = m.message(b, nil)
	return n, from, err
}

// ReadMsgUDP is the method of a *net.UDPConn.
func (m *MergedPackets) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, from *net.UDPAddr, err error) {
	n, oobn, flags, ap, err := m.message(b, oob)
	if err != nil {
		return 0, 0, 0, nil, err
	}
	return n, oobn, flags, net.UDPAddrFromAddrPort(ap), nil
}

// ReadMsgUDPAddrPort is the method of a *net.UDPConn.
func (m *MergedPackets) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, from netip.AddrPort, err error) {
	return m.message(b, oob)
}

// SetReadDeadline bounds the reads. A deadline in the past also makes all sockets
// non-blocking: another process may have made one blocking, and then a program that reads by
// the descriptor itself (SyscallConn) would not return.
func (m *MergedPackets) SetReadDeadline(t time.Time) error {
	err := m.setDeadline(t)
	if !t.IsZero() && !t.After(time.Now()) {
		m.each(func(fd int) error { return unix.SetNonblock(fd, true) })
	}
	return err
}

// SetDeadline sets the deadlines of reads and writes.
func (m *MergedPackets) SetDeadline(t time.Time) error {
	if err := m.SetWriteDeadline(t); err != nil {
		return err
	}
	return m.SetReadDeadline(t)
}

// SetReadBuffer sets the size of the receive buffer of all sockets, in bytes. Sockets that
// Add brings later get it if it is larger than the system's own.
func (m *MergedPackets) SetReadBuffer(bytes int) error {
	return m.each(func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes))
	})
}

// each calls fn with all descriptors: that of the socket that m writes by, and those that it
// reads from.
func (m *MergedPackets) each(fn func(fd int) error) error {
	rc, err := m.UDPConn.SyscallConn()
	if err != nil {
		return err
	}
	if ctlErr := rc.Control(func(fd uintptr) { err = fn(int(fd)) }); ctlErr != nil {
		return ctlErr
	}
	for _, s := range m.sockets() {
		if one := s.use(fn); one != nil && one != errAgain && err == nil {
			err = one
		}
	}
	return err
}

func (m *MergedPackets) sockets() (all []*packets) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.all {
		all = append(all, s)
	}
	return all
}

// SyscallConn gives access to the sockets. Read calls its function with a socket that has
// something, Write and Control with the socket that m writes by, the first of two families. After
// Control the options of that socket are copied to the others.
func (m *MergedPackets) SyscallConn() (syscall.RawConn, error) {
	rc, err := m.UDPConn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return rawPackets{rc, m}, nil
}

type rawPackets struct {
	syscall.RawConn
	m *MergedPackets
}

func (r rawPackets) Control(fn func(fd uintptr)) error {
	err := r.RawConn.Control(fn)
	for _, s := range r.m.sockets() {
		s.use(func(fd int) error { r.m.copyOptions(fd); return nil })
	}
	return err
}

func (r rawPackets) Read(fn func(fd uintptr) (done bool)) error {
	return r.m.receive(func(fd int) error {
		if fn(uintptr(fd)) {
			return nil
		}
		return errAgain
	})
}

// Unsendable returns an error: no socket is the whole address.
func (m *MergedPackets) Unsendable() error { return ErrFamilies }

// Close closes this process's descriptors of all sockets, and ends the reads.
func (m *MergedPackets) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return m.failed(net.ErrClosed)
	}
	m.closed = true
	all := m.all
	m.all = nil
	m.mu.Unlock()
	err := errors.Join(m.readiness.close(), m.UDPConn.Close(), m.families.close())
	for _, s := range all {
		go s.close()
	}
	return err
}

// Len returns the number of sockets that m reads from.
func (m *MergedPackets) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.all)
}
