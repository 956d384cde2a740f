package share

import (
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// packetShards is a sharded address for datagrams in a worker. Its methods are those of a
// *net.UDPConn.
type packetShards struct {
	*socket.MergedPackets
	asker *Asker
	key   string
	ask   sync.Once
}

// newPacketShards makes a packetShards that writes by h.
func (a *Asker) newPacketShards(key string, h *handle.Handle) (*packetShards, error) {
	m, err := socket.NewMergedPackets(h, a.worker.Received)
	if err != nil {
		return nil, err
	}
	s := &packetShards{MergedPackets: m, asker: a, key: key}
	a.mu.Lock()
	a.shards[key] = s
	a.mu.Unlock()
	return s, nil
}

// reads asks the master for this worker's share, the first time.
func (s *packetShards) reads() {
	s.ask.Do(func() { s.asker.askShards(s.key) })
}

func (s *packetShards) Read(b []byte) (int, error) {
	s.reads()
	return s.MergedPackets.Read(b)
}

func (s *packetShards) ReadFrom(b []byte) (int, net.Addr, error) {
	s.reads()
	return s.MergedPackets.ReadFrom(b)
}

func (s *packetShards) ReadFromUDP(b []byte) (int, *net.UDPAddr, error) {
	s.reads()
	return s.MergedPackets.ReadFromUDP(b)
}

func (s *packetShards) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	s.reads()
	return s.MergedPackets.ReadFromUDPAddrPort(b)
}

func (s *packetShards) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, from *net.UDPAddr, err error) {
	s.reads()
	return s.MergedPackets.ReadMsgUDP(b, oob)
}

func (s *packetShards) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, from netip.AddrPort, err error) {
	s.reads()
	return s.MergedPackets.ReadMsgUDPAddrPort(b, oob)
}

// Unsendable returns an error: no socket is the whole address. The master may have divided it,
// or a service manager may have opened a socket for each family.
func (s *packetShards) Unsendable() error { return errManySockets }

// SyscallConn gives access to the sockets, as socket.MergedPackets does.
func (s *packetShards) SyscallConn() (syscall.RawConn, error) {
	rc, err := s.MergedPackets.SyscallConn()
	if err != nil {
		return nil, err
	}
	return rawShards{rc, s}, nil
}

type rawShards struct {
	syscall.RawConn
	s *packetShards
}

func (r rawShards) Read(fn func(fd uintptr) (done bool)) error {
	r.s.reads()
	return r.RawConn.Read(fn)
}

// Close gives up all sockets.
func (s *packetShards) Close() error {
	s.asker.dropShards(s.key, s)
	return s.MergedPackets.Close()
}
