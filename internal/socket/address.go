package socket

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// Address is an address to listen on, with the options of its socket. It is resolved, and
// all spellings of one socket's address give the same Address. So workers that ask for the
// same socket get the same socket.
type Address struct {
	Network string // tcp, tcp4, tcp6, udp, udp4, udp6, unix or unixgram
	Literal string // host and port in figures, an absolute path, or "@" and a name
	Named   string // the address as the application wrote it
	Index   int    // which of the sockets that one worker has of this address
	FD      int    // a descriptor of the master's to use instead, or -1
	Where   string // the place of a unix socket's file, the same for all paths to it: see Locate
	Guarded bool   // the path comes from another user's process: see guardedPlace

	Options
}

// Options are the options of a socket that are set before it listens.
type Options struct {
	Backlog   int         // length of the queue of connections; 0 is the system's limit
	Multipath bool        // MPTCP
	Reuse     bool        // SO_REUSEADDR, for UDP
	Mode      fs.FileMode // of a unix socket's file; 0 leaves it to the umask
	Owner     *Owner      // of a unix socket's file; nil: the user that opens it
}

// Owner is a user and a group. -1 means that it stays as it is.
type Owner struct{ UID, GID int }

// IsUnix reports whether the network is one of unix sockets.
func IsUnix(network string) bool { return strings.HasPrefix(network, "unix") }

// IsPacket reports whether the network is one of datagrams.
func IsPacket(network string) bool {
	return strings.HasPrefix(network, "udp") || network == "unixgram"
}

// Resolve returns the Address for a network and an address as an application writes them.
// With an error it still returns both as they were written, for an error message.
func Resolve(network, address string, v6only bool, o Options) (Address, error) {
	a := Address{Network: network, Named: address, FD: -1, Options: o}
	var err error
	switch network {
	case "tcp", "tcp4", "tcp6":
		var tcp *net.TCPAddr
		if tcp, err = net.ResolveTCPAddr(network, address); err == nil {
			err = a.SetIP(tcp.AddrPort(), tcp.Zone, v6only)
		}
	case "udp", "udp4", "udp6":
		var udp *net.UDPAddr
		if udp, err = net.ResolveUDPAddr(network, address); err == nil {
			err = a.SetIP(udp.AddrPort(), udp.Zone, v6only)
		}
	case "unix", "unixgram":
		err = a.SetPath(address)
	default:
		err = net.UnknownNetworkError(network)
	}
	return a, err
}

// SetIP makes a the IP address ap. As in package net, a wildcard (0.0.0.0 or ::) with a
// network that names no family means both families. A multicast group is bound as the
// wildcard of its family, and with SO_REUSEADDR, so that other sockets can be bound too.
func (a *Address) SetIP(ap netip.AddrPort, zone string, v6only bool) error {
	base, family := a.Network[:3], a.Network[3:]
	ip := ap.Addr().Unmap().WithZone(zoneName(ap.Addr(), zone))
	if base == "udp" && ip.IsMulticast() {
		a.Reuse = true
		if family = "6"; ip.Is4() {
			family = "4"
		}
		ip = netip.Addr{}
	}
	host := ""
	switch wild := !ip.IsValid() || ip.IsUnspecified(); {
	case v6only && (family == "4" || !wild && ip.Is4()):
		return fmt.Errorf("IPv6Only does not go with an IPv4 address")
	case wild && family == "4":
		a.Network, host = base+"4", "0.0.0.0"
	case wild && (family == "6" || v6only):
		a.Network, host = base+"6", "::"
	case wild:
		a.Network = base
	case ip.Is4():
		a.Network, host = base+"4", ip.String()
	default:
		a.Network, host = base+"6", ip.String()
	}
	a.Literal = net.JoinHostPort(host, strconv.Itoa(int(ap.Port())))
	return nil
}

// zoneName returns the zone of ip as the name of the interface, which may be given by its
// number. An address that needs no zone gets none.
func zoneName(ip netip.Addr, zone string) string {
	if !ip.IsLinkLocalUnicast() && !ip.IsLinkLocalMulticast() && !ip.IsInterfaceLocalMulticast() {
		return ""
	}
	if n, err := strconv.Atoi(zone); err == nil {
		if i, err := net.InterfaceByIndex(n); err == nil {
			return i.Name
		}
	}
	return zone
}

// SetPath makes a the unix socket at path, or the abstract one of that name if
// path begins with "@".
func (a *Address) SetPath(path string) error {
	switch {
	case path == "" || path == "@":
		return fmt.Errorf("a unix socket needs a path, or @ and a name")
	case path[0] == '@':
		a.Literal = path
		return nil
	case strings.ContainsRune(path, 0):
		return fmt.Errorf("path %q contains a NUL byte", path)
	case filepath.IsAbs(path):
		a.Literal = filepath.Clean(path)
		return nil
	}
	abs, err := filepath.Abs(path)
	a.Literal = abs
	return err
}

// Key names the socket. Two addresses with the same key mean the same socket. The index is
// a part of the key where one worker can have several sockets of an address: for port 0, and
// for a UDP port with SO_REUSEADDR. There the n-th socket is the same one in every worker.
func (a Address) Key() string {
	if a.FD >= 0 {
		return a.Network + " fd " + strconv.Itoa(a.FD)
	}
	key := a.Network + " " + a.Place()
	if a.Port() == 0 || a.Reuse && a.Index > 0 {
		key += "#" + strconv.Itoa(a.Index)
	}
	return key
}

// Place returns Where, or Literal if that is not known.
func (a Address) Place() string {
	if a.Where != "" {
		return a.Where
	}
	return a.Literal
}

// IsUnix reports whether a is a unix socket.
func (a Address) IsUnix() bool { return IsUnix(a.Network) }

// IsPacket reports whether a is a datagram socket.
func (a Address) IsPacket() bool { return IsPacket(a.Network) }

// HasFile reports whether a is a unix socket that has a file.
func (a Address) HasFile() bool { return a.IsUnix() && a.Literal[0] != '@' }

// Port returns the port that was asked for, or -1 for a unix socket.
func (a Address) Port() int {
	if a.IsUnix() {
		return -1
	}
	_, port, _ := net.SplitHostPort(a.Literal)
	n, _ := strconv.Atoi(port)
	return n
}

// Wildcard reports whether a means every address of both families.
func (a Address) Wildcard() bool { return a.Network == "tcp" || a.Network == "udp" }

// Shown returns the address that a listener of a shows to the application: for a unix
// socket the path as the application wrote it, and real for others.
func (a Address) Shown(real net.Addr) net.Addr {
	if a.IsUnix() {
		return &net.UnixAddr{Name: a.Named, Net: a.Network}
	}
	return real
}

// Means reports whether a socket that is bound to real is the one that a asks for. It
// compares only the spelling of paths.
func (a Address) Means(real net.Addr) bool {
	if u, ok := real.(*net.UnixAddr); ok {
		return a.IsUnix() && u.Name == a.Literal
	}
	if a.IsUnix() {
		return false
	}
	ip, port := ipPort(real)
	if port != a.Port() || port == 0 {
		return false
	}
	host, _, _ := net.SplitHostPort(a.Literal)
	if host == "" {
		return ip.IsUnspecified()
	}
	want, err := netip.ParseAddr(host)
	return err == nil && ip == want
}

// ipPort returns the parts of a TCP or UDP address.
func ipPort(addr net.Addr) (netip.Addr, int) {
	var ap netip.AddrPort
	switch addr := addr.(type) {
	case *net.TCPAddr:
		ap = addr.AddrPort()
	case *net.UDPAddr:
		ap = addr.AddrPort()
	}
	ip := ap.Addr().Unmap()
	return ip.WithZone(zoneName(ip, ip.Zone())), int(ap.Port())
}
