package socket

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/windows"
)

// newSocket makes a TCP socket that no child inherits.
func newSocket(family int) (windows.Handle, error) {
	s, err := windows.WSASocket(int32(family), windows.SOCK_STREAM, windows.IPPROTO_TCP, nil, 0,
		windows.WSA_FLAG_OVERLAPPED|windows.WSA_FLAG_NO_HANDLE_INHERIT)
	return s, os.NewSyscallError("WSASocket", err)
}

// openTCP opens a, a TCP address. It does not use package net, which would put the socket on
// this process's completion port, and cannot set the backlog.
func openTCP(a Address) (*handle.Handle, net.Addr, error) {
	family := windows.AF_INET6
	if a.Network == "tcp4" {
		family = windows.AF_INET
	}
	h, addr, err := bindTCP(a, family)
	if a.Network == "tcp" && errnoIs(err, windows.WSAEAFNOSUPPORT) { // no IPv6 here
		h, addr, err = bindTCP(a, windows.AF_INET)
	}
	if err != nil {
		return nil, nil, &net.OpError{Op: "listen", Net: a.Network, Addr: a.tcpAddr(), Err: err}
	}
	return h, addr, nil
}

func errnoIs(err error, errno syscall.Errno) bool {
	se, ok := err.(*os.SyscallError)
	return ok && se.Err == errno
}

func bindTCP(a Address, family int) (*handle.Handle, net.Addr, error) {
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
		if a.Network == "tcp" {
			v6only = 0 // the system's default is 1
		}
		if err := windows.SetsockoptInt(s, windows.IPPROTO_IPV6, windows.IPV6_V6ONLY, v6only); err != nil {
			return fail("setsockopt", err)
		}
	}
	if err := windows.Bind(s, a.sockaddr(family)); err != nil {
		return fail("bind", err)
	}
	backlog := a.Backlog
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
	return h, addrOf(sa), nil
}

func (a Address) tcpAddr() *net.TCPAddr {
	ap, _ := netip.ParseAddrPort(a.Literal)
	if a.Network == "tcp" { // without a host
		ap = netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(a.Port()))
	}
	return net.TCPAddrFromAddrPort(ap)
}

func (a Address) sockaddr(family int) windows.Sockaddr {
	tcp := a.tcpAddr()
	if family == windows.AF_INET {
		sa := &windows.SockaddrInet4{Port: tcp.Port}
		copy(sa.Addr[:], tcp.IP.To4())
		return sa
	}
	sa := &windows.SockaddrInet6{Port: tcp.Port, ZoneId: zoneID(tcp.Zone)}
	copy(sa.Addr[:], tcp.IP.To16())
	return sa
}

// zoneID returns the number of the interface that a link-local address belongs to.
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

// addrOf returns sa as a type of package net.
func addrOf(sa windows.Sockaddr) *net.TCPAddr {
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
