package cluster

import (
	"log/slog"
	"net"
	"sync"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/systemd"
)

// activated are the sockets that a service manager opened for this process. A
// worker that asks for the address of one gets it; each use is a dup, so that
// they outlive a Disconnect.
var activated activatedSockets

type activatedSockets struct {
	once sync.Once
	mu   sync.Mutex
	list []activatedSocket
}

type activatedSocket struct {
	fd     int
	packet bool
	addr   net.Addr
	used   bool
}

func (a *activatedSockets) load() {
	for _, fd := range systemd.Sockets() {
		network, addr, err := socket.Inspect(fd)
		if err != nil {
			continue // a fifo, or a file
		}
		a.list = append(a.list, activatedSocket{fd: fd, packet: socket.IsPacket(network), addr: addr})
	}
}

// find returns a new handle of the socket that want means, and its address.
func (a *activatedSockets) find(want socket.Address) (*handle.Handle, net.Addr) {
	a.once.Do(a.load)
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.list {
		s := &a.list[i]
		if want.FD >= 0 || s.packet != want.IsPacket() || !want.Means(s.addr) {
			continue
		}
		h, err := socket.DuplicateFD(s.fd)
		if err != nil {
			return nil, nil
		}
		s.used = true
		return h, s.addr
	}
	return nil, nil
}

// logUnusedSockets names the sockets that nobody has asked for: most likely the
// unit and the program disagree about an address.
func logUnusedSockets(log func() *slog.Logger) {
	activated.once.Do(activated.load)
	activated.mu.Lock()
	defer activated.mu.Unlock()
	for _, s := range activated.list {
		if !s.used {
			log().Warn("cluster: a socket of the service manager is not used", "fd", s.fd, "address", s.addr)
		}
	}
}
