package cluster

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// target is an address to listen on: resolved, and in one spelling for all that
// mean the same socket, so that workers who ask for it meet.
type target struct {
	network string // tcp, tcp4, tcp6, udp, udp4, udp6, unix, unixgram
	address string // literal host and port, absolute path, or "@" and a name
	named   string // as it was asked for
	index   int    // the how manieth of this address in one worker
	fd      int    // a descriptor of the master's to use instead; -1 for none

	backlog    int // 0: the system's
	multipath  bool
	reuse      bool // SO_REUSEADDR on UDP
	mode       fs.FileMode
	scheduling Scheduling
}

// Networks in groups.

func isUnix(network string) bool { return strings.HasPrefix(network, "unix") }

func isPacket(network string) bool {
	return strings.HasPrefix(network, "udp") || network == "unixgram"
}

// newTarget resolves what an application asks for.
func newTarget(network, address string, lc ListenConfig) (target, error) {
	t := target{network: network, named: address, fd: -1, backlog: lc.Backlog, multipath: lc.MultipathTCP, mode: lc.Mode, scheduling: lc.Scheduling}
	if lc.Backlog < 0 || lc.Scheduling < 0 || lc.Scheduling > RoundRobin {
		return t, fmt.Errorf("bad ListenConfig: Backlog %d, Scheduling %v", lc.Backlog, lc.Scheduling)
	}
	var err error
	switch network {
	case "tcp", "tcp4", "tcp6":
		var a *net.TCPAddr
		if a, err = net.ResolveTCPAddr(network, address); err == nil {
			err = t.setIP(a.AddrPort(), a.Zone, lc.IPv6Only)
		}
	case "udp", "udp4", "udp6":
		var a *net.UDPAddr
		if a, err = net.ResolveUDPAddr(network, address); err == nil {
			err = t.setIP(a.AddrPort(), a.Zone, lc.IPv6Only)
		}
	case "unix", "unixgram":
		err = t.setPath(address)
	default:
		err = net.UnknownNetworkError(network)
	}
	return t, err
}

// setIP puts an IP address in its one spelling. A wildcard without a family
// means both, as in package net, whichever wildcard it is.
func (t *target) setIP(a netip.AddrPort, zone string, v6only bool) error {
	base, family := t.network[:3], t.network[3:]
	ip := a.Addr().Unmap().WithZone(zone)
	host := ""
	switch wild := !ip.IsValid() || ip.IsUnspecified(); {
	case v6only && (family == "4" || !wild && ip.Is4()):
		return fmt.Errorf("IPv6Only does not go with an IPv4 address")
	case wild && family == "4":
		t.network, host = base+"4", "0.0.0.0"
	case wild && (family == "6" || v6only):
		t.network, host = base+"6", "::"
	case wild:
		t.network = base
	case ip.Is4():
		t.network, host = base+"4", ip.String()
	default:
		t.network, host = base+"6", ip.String()
	}
	t.address = net.JoinHostPort(host, strconv.Itoa(int(a.Port())))
	return nil
}

func (t *target) setPath(path string) error {
	switch {
	case path == "" || path == "@":
		return fmt.Errorf("a unix socket needs a path, or @ and a name")
	case path[0] == '@':
		t.address = path
		return nil
	case strings.ContainsRune(path, 0):
		return fmt.Errorf("path %q contains a NUL byte", path)
	case filepath.IsAbs(path):
		t.address = filepath.Clean(path)
		return nil
	}
	abs, err := filepath.Abs(path)
	t.address = abs
	return err
}

// key names the socket. Only a free port needs the index: the n-th in every
// worker is the same socket.
func (t *target) key() string {
	key := t.network + " " + t.address
	if t.port() == 0 {
		key += "#" + strconv.Itoa(t.index)
	}
	if t.fd >= 0 {
		key = t.network + " fd " + strconv.Itoa(t.fd)
	}
	return key
}

// port is the port asked for, -1 for a unix socket.
func (t *target) port() int {
	if isUnix(t.network) {
		return -1
	}
	_, port, _ := net.SplitHostPort(t.address)
	n, _ := strconv.Atoi(port)
	return n
}

// wildcard reports whether the target means every address of both families.
func (t *target) wildcard() bool { return t.network == "tcp" || t.network == "udp" }

// query is the question to the master for this address, in node's words.
func (t *target) query() *wire {
	w := &wire{Act: actQuery, Index: t.index, Data: json.RawMessage("null"),
		Go: &extension{Named: t.named, Backlog: t.backlog, Multipath: t.multipath, Mode: uint32(t.mode), Scheduling: int(t.scheduling)}}
	if t.backlog > 0 {
		w.Backlog = json.RawMessage(strconv.Itoa(t.backlog))
	}
	if isPacket(t.network) {
		w.FD = ptr(-1) // as node, which makes it part of the name
	}
	t.describe(w)
	return w
}

// describe sets address, port, addressType and flags.
func (t *target) describe(w *wire) {
	w.Port = ptr(t.port())
	if isUnix(t.network) {
		w.Address = ptr(t.address)
		w.AddressType = json.RawMessage("-1")
		if t.network == "unixgram" {
			w.AddressType = json.RawMessage(`"unixgram"`)
		}
		return
	}
	host, _, _ := net.SplitHostPort(t.address)
	w.Address = ptr(host)
	v6 := strings.HasSuffix(t.network, "6")
	switch t.network {
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
		w.AddressType, _ = json.Marshal(t.network)
	}
	if v6 && host == "::" {
		w.Flags = flagIPv6Only
	}
}

// The flags of queryServer.
const (
	flagIPv6Only  = 1
	flagReuseAddr = 4 // UDP
)

// queryTarget reads a worker's question.
func queryTarget(w *wire) (target, error) {
	t := target{index: w.Index, fd: -1}
	if w.FD != nil && *w.FD >= 0 {
		t.fd = *w.FD
	}
	if err := readBacklog(w, &t.backlog); err != nil {
		return t, err
	}
	if x := w.Go; x != nil {
		t.named, t.multipath, t.scheduling = x.Named, x.Multipath, Scheduling(x.Scheduling)
		t.backlog = max(t.backlog, x.Backlog)
		t.mode = fs.FileMode(x.Mode) & fs.ModePerm
		if t.scheduling < 0 || t.scheduling > RoundRobin {
			return t, fmt.Errorf("scheduling %d", x.Scheduling)
		}
	}
	if w.ReadableAll && w.WritableAll {
		t.mode = 0o777
	} else if w.ReadableAll {
		t.mode = 0o755
	} else if w.WritableAll {
		t.mode = 0o733
	}
	err := readAddress(w, &t)
	if t.named == "" {
		t.named = t.address
	}
	return t, err
}

// maxBacklog is the largest backlog passed on to listen(2), which takes an int
// and bounds it by the system's own limit.
const maxBacklog = 1 << 20

func readBacklog(w *wire, n *int) error {
	var v any
	if len(w.Backlog) == 0 {
		return nil
	}
	if err := json.Unmarshal(w.Backlog, &v); err != nil {
		return err
	}
	if f, ok := v.(float64); ok && f > 0 {
		*n = int(min(f, maxBacklog))
	}
	return nil
}

// readAddress reads address, port, addressType and flags into t's network and
// address.
func readAddress(w *wire, t *target) error {
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
		t.network = "unix"
		return t.setNodePath(address)
	case "unixgram":
		t.network = "unixgram"
		return t.setNodePath(address)
	case nil, float64(4):
		t.network = "tcp4"
		if address == "" {
			t.network = "tcp"
		}
	case float64(6):
		t.network = "tcp6"
	case "udp4":
		t.network = "udp4"
	case "udp6":
		t.network = "udp6"
	default:
		return fmt.Errorf("unknown addressType %s", excerpt(w.AddressType))
	}
	t.reuse = isPacket(t.network) && w.Flags&flagReuseAddr != 0
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
	if t.network[3:] == "6" && (!ip.IsValid() || ip.IsUnspecified()) && !v6only {
		t.network = t.network[:3] // "::" takes IPv4 too
	}
	return t.setIP(netip.AddrPortFrom(ip, uint16(port)), ip.Zone(), v6only)
}

// setNodePath also reads node's spelling of an abstract name: a NUL byte,
// behind the working directory that node has put before it.
func (t *target) setNodePath(path string) error {
	if i := strings.IndexByte(path, 0); i >= 0 {
		path = "@" + path[i+1:]
	}
	return t.setPath(path)
}

// listening is the report that an address is open. addr is the real one.
func (t *target) listening(addr net.Addr) *wire {
	w := &wire{Act: actListening, Index: t.index, Data: json.RawMessage("null")}
	t.describe(w)
	switch a := addr.(type) {
	case *net.TCPAddr:
		w.Port, w.Address = ptr(a.Port), ptr(ipText(a.IP, a.Zone))
		if a.IP.To4() == nil {
			w.AddressType = json.RawMessage("6")
		}
	case *net.UDPAddr:
		w.Port, w.Address = ptr(a.Port), ptr(ipText(a.IP, a.Zone))
	case *net.UnixAddr:
		w.Go = &extension{Named: t.named}
	}
	return w
}

func ipText(ip net.IP, zone string) string {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap().WithZone(zone).String()
}

// listeningAddr is the address of a worker's report.
func listeningAddr(w *wire) (net.Addr, error) {
	var t target
	if err := readAddress(w, &t); err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	if isUnix(t.network) {
		name := t.address
		if w.Go != nil && w.Go.Named != "" {
			name = w.Go.Named
		}
		return &net.UnixAddr{Name: name, Net: t.network}, nil
	}
	ap := netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(t.port()))
	if !t.wildcard() {
		ap, _ = netip.ParseAddrPort(t.address)
	}
	if isPacket(t.network) {
		return net.UDPAddrFromAddrPort(ap), nil
	}
	return net.TCPAddrFromAddrPort(ap), nil
}

// sockname is addr as node writes it; nil for a unix socket.
func socknameOf(addr net.Addr) *sockname {
	a, ok := addr.(*net.TCPAddr)
	if !ok {
		return nil
	}
	family := "IPv6"
	if a.IP.To4() != nil {
		family = "IPv4"
	}
	return &sockname{Address: ipText(a.IP, a.Zone), Family: family, Port: a.Port}
}
