package share

import (
	"fmt"
	"net"
	"sync"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// activated are the sockets that a service manager opened for this process. A
// worker that asks for the address of one gets it. Each use is a duplicate, so
// that they outlive a Disconnect.
type activated struct {
	load func() []int

	once sync.Once
	mu   sync.Mutex
	list []activatedSocket
}

type activatedSocket struct {
	Activated
	packet bool
	used   bool
}

// Activated is a socket of the service manager's.
type Activated struct {
	FD   int
	Addr net.Addr
}

func (a *activated) init() {
	if a.load == nil {
		return
	}
	for _, fd := range a.load() {
		network, addr, err := socket.Inspect(fd)
		if err != nil {
			continue // a fifo, or a file
		}
		a.list = append(a.list, activatedSocket{Activated: Activated{fd, addr}, packet: socket.IsPacket(network)})
	}
}

// find returns a new handle of the socket that want means, and its address.
func (a *activated) find(want socket.Address) (*handle.Handle, net.Addr) {
	a.once.Do(a.init)
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.list {
		s := &a.list[i]
		if want.FD >= 0 || s.packet != want.IsPacket() || !want.Means(s.Addr) {
			continue
		}
		h, err := socket.DuplicateFD(s.FD)
		if err != nil {
			return nil, nil
		}
		s.used = true
		return h, s.Addr
	}
	return nil, nil
}

// offered returns what the descriptor fd really is, if it is one that may be asked
// for by its number: a service manager's. No other socket of this process is a
// worker's to have.
func (a *activated) offered(fd int) (network, address string, err error) {
	a.once.Do(a.init)
	for _, s := range a.list {
		if s.FD == fd {
			network, addr, err := socket.Inspect(fd)
			if err != nil {
				return "", "", err
			}
			return network, addr.String(), nil
		}
	}
	return "", "", fmt.Errorf("descriptor %d of the master is no socket of a service manager", fd)
}

// Unused returns the service manager's sockets that nobody has asked for. It may
// be called outside of the mailbox.
func (r *Registry) Unused() (unused []Activated) {
	a := &r.activated
	a.once.Do(a.init)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.list {
		if !s.used {
			unused = append(unused, s.Activated)
		}
	}
	return unused
}
