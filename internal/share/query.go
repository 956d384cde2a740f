package share

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// Policy says how the connections of an address reach the workers. The numbers go over the
// wire.
type Policy int

const (
	// Shared lets every worker accept on the socket itself.
	Shared Policy = 1 + iota
	// RoundRobin accepts in the master and hands connections over in turn.
	RoundRobin
	// Sharded gives each worker some of the sockets of the address: see shards.go.
	Sharded
	// LeastConnections accepts in the master and hands each connection to the worker
	// that has the fewest.
	LeastConnections
	// ByClient is Sharded, and a client's address decides which socket.
	ByClient
)

// sharded reports whether an address with the policy has many sockets, which change hands.
func (p Policy) sharded() bool { return p == Sharded || p == ByClient }

// Known reports whether p is a policy, or 0.
func (p Policy) Known() bool {
	return p >= 0 && p <= ByClient
}

// Query is what a worker asks the master for: an address, and how its connections are to be
// spread. Policy is 0 for the cluster's default.
type Query struct {
	socket.Address
	Policy  Policy
	Shards  int  // how many sockets are wanted at least, if it is sharded
	Workers int  // for how many there are to be enough
	Apart   bool // a worker asks that cannot take some of the sockets of an address
}

// The flags of queryServer.
const (
	flagIPv6Only  = 1
	flagReuseAddr = 4 // UDP
)

// null is the data of a Query that has none. TLS servers of node have some, which they share.
var null = json.RawMessage("null")

// message returns the question to the master, in node's words.
func (q Query) message() *wire.Message {
	w := &wire.Message{Act: wire.ActQuery, Index: q.Index, Data: null,
		Go: &wire.Extension{Named: q.Named, Backlog: q.Backlog, Multipath: q.Multipath, Mode: uint32(q.Mode), Scheduling: int(q.Policy), Shards: q.Shards, TakesShards: true}}
	if o := q.Owner; o != nil {
		w.Go.Owner = []int{o.UID, o.GID}
	}
	if q.Backlog > 0 {
		w.Backlog = json.RawMessage(strconv.Itoa(q.Backlog))
	}
	if q.IsPacket() {
		w.FD = ptr(-1) // as node does, for which it is a part of the socket's name
	}
	describe(w, q.Address)
	return w
}

// describe sets address, port, addressType and flags.
func describe(w *wire.Message, a socket.Address) {
	w.Port = ptr(a.Port())
	if a.IsUnix() {
		w.Address = ptr(nodePath(a.Literal))
		w.AddressType = json.RawMessage("-1")
		if a.IsPacket() {
			w.AddressType = json.RawMessage(`"unixgram"`)
		}
		return
	}
	host, _, _ := net.SplitHostPort(a.Literal)
	w.Address = ptr(host)
	switch a.Network {
	case "tcp":
		w.Address = nil // as node's listen(port): both families
		w.AddressType = json.RawMessage("4")
	case "tcp4":
		w.AddressType = json.RawMessage("4")
	case "tcp6":
		w.AddressType = json.RawMessage("6")
	case "udp":
		w.Address = ptr("::")
		w.AddressType = json.RawMessage(`"udp6"`)
	default:
		w.AddressType, _ = json.Marshal(a.Network)
	}
	if strings.HasSuffix(a.Network, "6") && host == "::" {
		w.Flags = flagIPv6Only
	}
	if a.Reuse {
		w.Flags |= flagReuseAddr
	}
}

// readQuery reads a worker's question.
func readQuery(w *wire.Message) (Query, error) {
	q := Query{Address: socket.Address{Index: w.Index, FD: -1}, Apart: true}
	if w.FD != nil && *w.FD >= 0 {
		q.FD = *w.FD
	}
	var err error
	if q.Backlog, err = readBacklog(w); err != nil {
		return q, err
	}
	if x := w.Go; x != nil {
		q.Named, q.Multipath, q.Policy, q.Shards = x.Named, x.Multipath, Policy(x.Scheduling), x.Shards
		q.Apart = !x.TakesShards
		q.Backlog = max(q.Backlog, x.Backlog)
		q.Mode = fs.FileMode(x.Mode) & fs.ModePerm
		if len(x.Owner) == 2 {
			q.Owner = &socket.Owner{UID: x.Owner[0], GID: x.Owner[1]}
		}
		if !q.Policy.Known() {
			return q, fmt.Errorf("scheduling %d", x.Scheduling)
		}
	}
	switch {
	case w.ReadableAll && w.WritableAll:
		q.Mode = 0o777
	case w.ReadableAll:
		q.Mode = 0o755
	case w.WritableAll:
		q.Mode = 0o733
	}
	err = readAddress(w, &q.Address)
	if !namesIt(q.Named, q.Address) {
		q.Named = q.Literal
	}
	return q, err
}

// maxBacklog is the largest backlog that is passed on to listen(2). The system bounds it by its
// own limit.
const maxBacklog = 1 << 20

// readBacklog reads the backlog, which is a number, false or null.
func readBacklog(w *wire.Message) (n int, err error) {
	var v any
	if len(w.Backlog) == 0 {
		return 0, nil
	}
	if err := json.Unmarshal(w.Backlog, &v); err != nil {
		return 0, err
	}
	if f, ok := v.(float64); ok && f > 0 {
		n = int(min(f, maxBacklog))
	}
	return n, nil
}

// readAddress reads address, port, addressType and flags.
func readAddress(w *wire.Message, a *socket.Address) error {
	var kind any
	if len(w.AddressType) > 0 {
		if err := json.Unmarshal(w.AddressType, &kind); err != nil {
			return err
		}
	}
	address := ""
	if w.Address != nil {
		address = *w.Address
	}
	switch kind {
	case float64(-1):
		a.Network = "unix"
		return setNodePath(a, address)
	case "unixgram":
		a.Network = "unixgram"
		return setNodePath(a, address)
	case nil, float64(4):
		a.Network = "tcp4"
		if address == "" {
			a.Network = "tcp"
		}
	case float64(6):
		a.Network = "tcp6"
	case "udp4":
		a.Network = "udp4"
	case "udp6":
		a.Network = "udp6"
	default:
		return fmt.Errorf("unknown addressType %s", wire.Excerpt(w.AddressType))
	}
	a.Reuse = a.IsPacket() && w.Flags&flagReuseAddr != 0
	return readIP(w, a, address)
}

// readIP is the part of readAddress for TCP and UDP.
func readIP(w *wire.Message, a *socket.Address, address string) error {
	port := 0
	if w.Port != nil {
		port = *w.Port
	}
	if port < 0 || port > 65535 {
		return fmt.Errorf("port %d", port)
	}
	var ip netip.Addr
	if address != "" {
		var err error
		if ip, err = netip.ParseAddr(address); err != nil {
			return fmt.Errorf("address is no literal IP: %w", err)
		}
	}
	v6only := w.Flags&flagIPv6Only != 0
	if a.Network[3:] == "6" && (!ip.IsValid() || ip.IsUnspecified()) && !v6only {
		a.Network = a.Network[:3] // "::" takes IPv4 too
	}
	return a.SetIP(netip.AddrPortFrom(ip, uint16(port)), ip.Zone(), v6only)
}

// nodePath returns a path as node's workers write it. In an abstract name a NUL byte takes the
// place of the "@", and the working directory comes before it. If a node primary were asked for
// "@name", it would make a file of that name.
func nodePath(literal string) string {
	if literal[0] != '@' {
		return literal
	}
	dir, _ := os.Getwd()
	return strings.TrimSuffix(dir, "/") + "/\x00" + literal[1:]
}

// setNodePath sets the path of a unix socket. It also reads an abstract name as node writes it:
// with a NUL byte, behind the working directory.
func setNodePath(a *socket.Address, path string) error {
	if i := strings.IndexByte(path, 0); i >= 0 {
		path = "@" + path[i+1:]
	}
	return a.SetPath(path)
}

// Report returns the message that says that a worker listens on a, at the real address addr.
func Report(a socket.Address, addr net.Addr) *wire.Message {
	w := &wire.Message{Act: wire.ActListening, Index: a.Index, Data: null}
	describe(w, a)
	switch addr := addr.(type) {
	case *net.TCPAddr:
		w.Port, w.Address = ptr(addr.Port), ptr(ipText(addr.IP, addr.Zone))
		if addr.IP.To4() == nil {
			w.AddressType = json.RawMessage("6")
		}
	case *net.UDPAddr:
		w.Port, w.Address = ptr(addr.Port), ptr(ipText(addr.IP, addr.Zone))
	case *net.UnixAddr:
		w.Go = &wire.Extension{Named: a.Named}
	}
	return w
}

// Reported returns the address that a worker's report is about.
func Reported(w *wire.Message) (net.Addr, error) {
	var a socket.Address
	if err := readAddress(w, &a); err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	if a.IsUnix() {
		name := a.Literal
		if w.Go != nil && namesIt(w.Go.Named, a) {
			name = w.Go.Named
		}
		return &net.UnixAddr{Name: wire.Plain(name), Net: a.Network}, nil
	}
	ap := netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(a.Port()))
	if !a.Wildcard() {
		ap, _ = netip.ParseAddrPort(a.Literal)
	}
	if a.IsPacket() {
		return net.UDPAddrFromAddrPort(ap), nil
	}
	return net.TCPAddrFromAddrPort(ap), nil
}

// namesIt reports whether a worker's program may have written the address as named. It has to
// be checked, since a worker can say anything. A relative path is not looked up: it is one in
// the worker's directory.
func namesIt(named string, a socket.Address) bool {
	switch {
	case named == "" || wire.Plain(named) != named:
		return false
	case !a.IsUnix():
		return true // a host name, which only the worker sees
	case named[0] == '@' || filepath.IsAbs(named):
		return a.Literal == named || a.Literal == filepath.Clean(named)
	}
	path := filepath.ToSlash(filepath.Clean(named))
	for strings.HasPrefix(path, "../") {
		path = path[len("../"):]
	}
	return strings.HasSuffix(filepath.ToSlash(a.Literal), "/"+path)
}

// socknameOf returns addr as node writes it, or nil for a unix socket.
func socknameOf(addr net.Addr) *wire.Sockname {
	a, ok := addr.(*net.TCPAddr)
	if !ok {
		return nil
	}
	family := "IPv6"
	if a.IP.To4() != nil {
		family = "IPv4"
	}
	return &wire.Sockname{Address: ipText(a.IP, a.Zone), Family: family, Port: a.Port}
}

// addrOf returns the address of a socket of which the master has told only s.
func addrOf(a socket.Address, s *wire.Sockname) net.Addr {
	if a.IsUnix() {
		return a.Shown(nil)
	}
	if s == nil { // node's answer may have none: then it is the address that was asked for
		tcp, _ := net.ResolveTCPAddr("tcp", a.Literal)
		return tcp
	}
	ip, _ := netip.ParseAddr(s.Address)
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, uint16(s.Port)))
}

func ipText(ip net.IP, zone string) string {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap().WithZone(zone).String()
}

func ptr[T any](v T) *T { return &v }
