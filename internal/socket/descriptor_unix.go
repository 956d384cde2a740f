//go:build unix

package socket

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// Sockets that somebody else opened: descriptors, and package net's types made of them.

// openDescriptor shares a socket that this process has at a number (node's listen({fd})). A
// peer chose the number, so only a listening socket and a bound UDP socket are shared: no
// connection, and no other worker's channel.
func openDescriptor(a Address) (*handle.Handle, net.Addr, error) {
	packet, addr, err := Listens(a.FD)
	if err != nil {
		return nil, nil, err
	}
	if packet != a.IsPacket() {
		return nil, nil, fmt.Errorf("descriptor %d of the master is a socket of another type: %w", a.FD, unix.EINVAL)
	}
	h, err := DuplicateFD(a.FD)
	if err != nil {
		return nil, nil, err
	}
	unix.SetNonblock(h.FD(), true)
	return h, addr, nil
}

// Listens returns the address of fd, and whether it is a socket of datagrams. It returns an
// error if fd is anything else than a listening TCP or unix socket, or a bound UDP socket.
func Listens(fd int) (packet bool, addr net.Addr, err error) {
	network, addr, err := Inspect(fd)
	if err != nil {
		return false, nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	listening, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if network == "udp" {
		listening = addr.(*net.UDPAddr).Port
	}
	if listening == 0 {
		return false, nil, fmt.Errorf("descriptor %d is no listening socket: %w", fd, unix.EINVAL)
	}
	return network == "udp", addr, nil
}

// Inspect returns the network of the socket fd, without an IP version, and its address. It
// returns an error if fd is not a socket.
func Inspect(fd int) (network string, addr net.Addr, err error) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return "", nil, err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return "", nil, err
	}
	_, local := sa.(*unix.SockaddrUnix)
	switch packet := typ == unix.SOCK_DGRAM; {
	case packet && local:
		network = "unixgram"
	case packet:
		network = "udp"
	case local:
		network = "unix"
	default:
		network = "tcp"
	}
	return network, addrOf(sa, network), nil
}

// addrOf returns sa as a type of package net.
func addrOf(sa unix.Sockaddr, network string) net.Addr {
	var ip net.IP
	port, zone := 0, ""
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		ip, port = net.IP(sa.Addr[:]), sa.Port
	case *unix.SockaddrInet6:
		ip, port = net.IP(sa.Addr[:]), sa.Port
		if sa.ZoneId != 0 {
			zone = strconv.Itoa(int(sa.ZoneId))
			if i, err := net.InterfaceByIndex(int(sa.ZoneId)); err == nil {
				zone = i.Name
			}
		}
	case *unix.SockaddrUnix:
		return &net.UnixAddr{Name: sa.Name, Net: network}
	}
	if IsPacket(network) {
		return &net.UDPAddr{IP: ip, Port: port, Zone: zone}
	}
	return &net.TCPAddr{IP: ip, Port: port, Zone: zone}
}

// Duplicate returns a new descriptor of c's socket. It does not touch the flags that all
// holders of the socket share. The File method of c, and that file's Fd, would make the
// socket blocking for every process.
func Duplicate(c syscall.Conn) (h *handle.Handle, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	ctlErr := rc.Control(func(s uintptr) { h, err = DuplicateFD(int(s)) })
	if ctlErr != nil {
		return nil, ctlErr
	}
	return h, os.NewSyscallError("fcntl", err)
}

// DuplicateFD is [Duplicate] for a bare descriptor.
func DuplicateFD(fd int) (*handle.Handle, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return handle.New(dup), nil
}

// NewListener makes a listener of a shared socket, with a descriptor of its own. The socket
// stays non-blocking: os.NewFile and FileListener leave one so that is non-blocking already.
func NewListener(h *handle.Handle) (net.Listener, error) {
	f, err := fileOf(h)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

// NewPacketConn is [NewListener] for datagrams.
func NewPacketConn(h *handle.Handle) (net.PacketConn, error) {
	f, err := fileOf(h)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FilePacketConn(f)
}

// NewConn makes a connection of h, which nobody else holds, and takes h over. The descriptor
// may be blocking: FileConn changes that. The error may say that the connection was reset.
func NewConn(h *handle.Handle) (net.Conn, error) {
	f := os.NewFile(uintptr(h.FD()), "cluster-socket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return connected(c)
}

// NewFile makes a file of h, which nobody else holds, and takes h over. It leaves O_NONBLOCK
// as it is, since all processes that have the file share the flag. By the flag os.NewFile
// decides whether the runtime's poller gets the file.
func NewFile(h *handle.Handle) (*os.File, error) {
	return os.NewFile(uintptr(h.FD()), "cluster-file"), nil
}

// fileOf duplicates h's descriptor and makes it non-blocking.
func fileOf(h *handle.Handle) (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(h.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "cluster-socket"), nil
}

// ListenBound calls listen(2) on a socket that a node primary has only bound. If the address
// is in use, node sends a socket that is not even bound, and listen(2) would give that one a
// random port. So ListenBound first compares the socket's port with that of a.
func ListenBound(h *handle.Handle, a Address) error {
	sa, err := unix.Getsockname(h.FD())
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	if a.FD < 0 && !a.IsUnix() {
		_, port := ipPort(addrOf(sa, a.Network))
		if port == 0 || a.Port() != 0 && port != a.Port() {
			return unix.EADDRINUSE
		}
	}
	backlog := a.Backlog
	if backlog == 0 {
		backlog = maxBacklog()
	}
	return os.NewSyscallError("listen", unix.Listen(h.FD(), backlog))
}

// maxBacklog returns the system's limit for a backlog.
func maxBacklog() int {
	if b, err := os.ReadFile("/proc/sys/net/core/somaxconn"); err == nil {
		if n, err := strconv.Atoi(string(b[:max(0, len(b)-1)])); err == nil && n > 0 {
			return n
		}
	}
	return unix.SOMAXCONN
}
