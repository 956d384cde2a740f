package cluster

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/windows"

	"github.com/go-cluster/cluster/internal/handle"
)

// newSocket makes a TCP socket that no child inherits.
func newSocket(family int) (windows.Handle, error) {
	s, err := windows.WSASocket(int32(family), windows.SOCK_STREAM, windows.IPPROTO_TCP, nil, 0,
		windows.WSA_FLAG_OVERLAPPED|windows.WSA_FLAG_NO_HANDLE_INHERIT)
	return s, os.NewSyscallError("WSASocket", err)
}

// openSocket opens t, a TCP address. The socket is not package net's, which
// would put it on this process's completion port, and has no way to set the
// backlog.
func openSocket(t target) (*handle.Handle, net.Addr, error) {
	family := windows.AF_INET6
	if t.network == "tcp4" {
		family = windows.AF_INET
	}
	h, addr, err := bindSocket(t, family)
	if t.network == "tcp" && errnoIs(err, windows.WSAEAFNOSUPPORT) { // no IPv6 here
		h, addr, err = bindSocket(t, windows.AF_INET)
	}
	if err != nil {
		return nil, nil, &net.OpError{Op: "listen", Net: t.network, Addr: t.tcpAddr(), Err: err}
	}
	return h, addr, nil
}

func errnoIs(err error, errno syscall.Errno) bool {
	se, ok := err.(*os.SyscallError)
	return ok && se.Err == errno
}

func bindSocket(t target, family int) (*handle.Handle, net.Addr, error) {
	s, err := newSocket(family)
	if err != nil {
		return nil, nil, err
	}
	h := handle.New(int(s))
	fail := func(call string, err error) (*handle.Handle, net.Addr, error) {
		h.Release()
		return nil, nil, os.NewSyscallError(call, err)
	}
	if family == windows.AF_INET6 {
		v6only := 1
		if t.network == "tcp" {
			v6only = 0 // the system's default is 1
		}
		if err := windows.SetsockoptInt(s, windows.IPPROTO_IPV6, windows.IPV6_V6ONLY, v6only); err != nil {
			return fail("setsockopt", err)
		}
	}
	if err := windows.Bind(s, t.sockaddr(family)); err != nil {
		return fail("bind", err)
	}
	backlog := t.backlog
	if backlog == 0 {
		backlog = windows.SOMAXCONN // the largest that the provider has
	}
	if err := windows.Listen(s, backlog); err != nil {
		return fail("listen", err)
	}
	sa, err := windows.Getsockname(s)
	if err != nil {
		return fail("getsockname", err)
	}
	return h, tcpAddrOf(sa), nil
}

func (t *target) tcpAddr() *net.TCPAddr {
	ap, _ := netip.ParseAddrPort(t.address)
	if t.network == "tcp" { // without a host
		ap = netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(t.port()))
	}
	return net.TCPAddrFromAddrPort(ap)
}

func (t *target) sockaddr(family int) windows.Sockaddr {
	a := t.tcpAddr()
	if family == windows.AF_INET {
		sa := &windows.SockaddrInet4{Port: a.Port}
		copy(sa.Addr[:], a.IP.To4())
		return sa
	}
	sa := &windows.SockaddrInet6{Port: a.Port, ZoneId: zoneID(a.Zone)}
	copy(sa.Addr[:], a.IP.To16())
	return sa
}

// zoneID is the number of the interface that a link-local address belongs to.
func zoneID(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if ifi, err := net.InterfaceByName(zone); err == nil {
		return uint32(ifi.Index)
	}
	n, _ := strconv.ParseUint(zone, 10, 32)
	return uint32(n)
}

// tcpAddrOf is sa as package net has it.
func tcpAddrOf(sa windows.Sockaddr) *net.TCPAddr {
	switch sa := sa.(type) {
	case *windows.SockaddrInet4:
		return &net.TCPAddr{IP: net.IP(sa.Addr[:]), Port: sa.Port}
	case *windows.SockaddrInet6:
		a := &net.TCPAddr{IP: net.IP(sa.Addr[:]), Port: sa.Port}
		if sa.ZoneId != 0 {
			a.Zone = strconv.Itoa(int(sa.ZoneId))
			if ifi, err := net.InterfaceByIndex(int(sa.ZoneId)); err == nil {
				a.Zone = ifi.Name
			}
		}
		return a
	}
	return &net.TCPAddr{}
}
