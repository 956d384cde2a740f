package cluster

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// target is an address to listen on, and how its connections are to be spread.
type target struct {
	socket.Address
	scheduling Scheduling
}

// newTarget resolves what an application asks for.
func newTarget(network, address string, lc ListenConfig) (target, error) {
	if lc.Backlog < 0 || lc.Scheduling < 0 || lc.Scheduling > RoundRobin {
		return target{Address: socket.Address{Network: network, Named: address}}, fmt.Errorf("bad ListenConfig: Backlog %d, Scheduling %v", lc.Backlog, lc.Scheduling)
	}
	o := socket.Options{Backlog: lc.Backlog, Multipath: lc.MultipathTCP, Mode: lc.Mode}
	a, err := socket.Resolve(network, address, lc.IPv6Only, o)
	return target{a, lc.Scheduling}, err
}

// query is the question to the master for this address, in node's words.
func (t *target) query() *wire.Message {
	w := &wire.Message{Act: wire.ActQuery, Index: t.Index, Data: json.RawMessage("null"),
		Go: &wire.Extension{Named: t.Named, Backlog: t.Backlog, Multipath: t.Multipath, Mode: uint32(t.Mode), Scheduling: int(t.scheduling)}}
	if t.Backlog > 0 {
		w.Backlog = json.RawMessage(strconv.Itoa(t.Backlog))
	}
	if socket.IsPacket(t.Network) {
		w.FD = ptr(-1) // as node, which makes it part of the name
	}
	t.describe(w)
	return w
}

// describe sets address, port, addressType and flags.
func (t *target) describe(w *wire.Message) {
	w.Port = ptr(t.Port())
	if socket.IsUnix(t.Network) {
		w.Address = ptr(t.Literal)
		w.AddressType = json.RawMessage("-1")
		if t.Network == "unixgram" {
			w.AddressType = json.RawMessage(`"unixgram"`)
		}
		return
	}
	host, _, _ := net.SplitHostPort(t.Literal)
	w.Address = ptr(host)
	v6 := strings.HasSuffix(t.Network, "6")
	switch t.Network {
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
		w.AddressType, _ = json.Marshal(t.Network)
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
func queryTarget(w *wire.Message) (target, error) {
	t := target{Address: socket.Address{Index: w.Index, FD: -1}}
	if w.FD != nil && *w.FD >= 0 {
		t.FD = *w.FD
	}
	if err := readBacklog(w, &t.Backlog); err != nil {
		return t, err
	}
	if x := w.Go; x != nil {
		t.Named, t.Multipath, t.scheduling = x.Named, x.Multipath, Scheduling(x.Scheduling)
		t.Backlog = max(t.Backlog, x.Backlog)
		t.Mode = fs.FileMode(x.Mode) & fs.ModePerm
		if t.scheduling < 0 || t.scheduling > RoundRobin {
			return t, fmt.Errorf("scheduling %d", x.Scheduling)
		}
	}
	if w.ReadableAll && w.WritableAll {
		t.Mode = 0o777
	} else if w.ReadableAll {
		t.Mode = 0o755
	} else if w.WritableAll {
		t.Mode = 0o733
	}
	err := readAddress(w, &t)
	if t.Named == "" {
		t.Named = t.Literal
	}
	return t, err
}

// maxBacklog is the largest backlog passed on to listen(2), which takes an int
// and bounds it by the system's own limit.
const maxBacklog = 1 << 20

func readBacklog(w *wire.Message, n *int) error {
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
func readAddress(w *wire.Message, t *target) error {
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
		t.Network = "unix"
		return t.setNodePath(address)
	case "unixgram":
		t.Network = "unixgram"
		return t.setNodePath(address)
	case nil, float64(4):
		t.Network = "tcp4"
		if address == "" {
			t.Network = "tcp"
		}
	case float64(6):
		t.Network = "tcp6"
	case "udp4":
		t.Network = "udp4"
	case "udp6":
		t.Network = "udp6"
	default:
		return fmt.Errorf("unknown addressType %s", wire.Excerpt(w.AddressType))
	}
	t.Reuse = socket.IsPacket(t.Network) && w.Flags&flagReuseAddr != 0
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
	if t.Network[3:] == "6" && (!ip.IsValid() || ip.IsUnspecified()) && !v6only {
		t.Network = t.Network[:3] // "::" takes IPv4 too
	}
	return t.SetIP(netip.AddrPortFrom(ip, uint16(port)), ip.Zone(), v6only)
}

// setNodePath also reads node's spelling of an abstract name: a NUL byte,
// behind the working directory that node has put before it.
func (t *target) setNodePath(path string) error {
	if i := strings.IndexByte(path, 0); i >= 0 {
		path = "@" + path[i+1:]
	}
	return t.SetPath(path)
}

// listening is the report that an address is open. addr is the real one.
func (t *target) listening(addr net.Addr) *wire.Message {
	w := &wire.Message{Act: wire.ActListening, Index: t.Index, Data: json.RawMessage("null")}
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
		w.Go = &wire.Extension{Named: t.Named}
	}
	return w
}

func ipText(ip net.IP, zone string) string {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap().WithZone(zone).String()
}

// listeningAddr is the address of a worker's report.
func listeningAddr(w *wire.Message) (net.Addr, error) {
	var t target
	if err := readAddress(w, &t); err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	if socket.IsUnix(t.Network) {
		name := t.Literal
		if w.Go != nil && w.Go.Named != "" {
			name = w.Go.Named
		}
		return &net.UnixAddr{Name: name, Net: t.Network}, nil
	}
	ap := netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(t.Port()))
	if !t.Wildcard() {
		ap, _ = netip.ParseAddrPort(t.Literal)
	}
	if socket.IsPacket(t.Network) {
		return net.UDPAddrFromAddrPort(ap), nil
	}
	return net.TCPAddrFromAddrPort(ap), nil
}

// sockname is addr as node writes it; nil for a unix socket.
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
