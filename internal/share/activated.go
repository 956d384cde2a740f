package share

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// activated has the sockets that a service manager opened for this process. A worker that
// asks for the address of one gets a duplicate, so the sockets outlive a Disconnect.
type activated struct {
	load func() []Passed
	drop func(fd int)

	once sync.Once
	mu   sync.Mutex
	list []activatedSocket
}

type activatedSocket struct {
	Activated
	name   string         // that the service manager has for it; "" if it says none
	path   socket.Address // of a unix socket
	packet bool
	used   bool
	kept   *handle.Handle // of one that this process has opened itself: see keep
}

// Passed is a descriptor that a service manager gave, and the name that it has for it.
type Passed struct {
	FD   int
	Name string
}

// Activated is a socket of the service manager.
type Activated struct {
	FD   int
	Addr net.Addr
}

func (a *activated) init() {
	if a.load == nil {
		return
	}
	for _, p := range a.load() {
		a.add(p.Name, p.FD, nil)
	}
}

// add notes fd if it is a socket. kept is a reference to it that is to be released, or nil.
func (a *activated) add(name string, fd int, kept *handle.Handle) {
	network, addr, err := socket.Inspect(fd)
	if err != nil {
		return // a fifo, or a file
	}
	s := activatedSocket{Activated: Activated{fd, addr}, name: name, packet: socket.IsPacket(network), kept: kept}
	if u, ok := addr.(*net.UnixAddr); ok && s.path.SetPath(u.Name) == nil {
		s.path.Network = network
		s.path.Locate() // without it the path stands for itself
	}
	a.list = append(a.list, s)
}

// is reports whether s is the socket that want asks for.
func (s *activatedSocket) is(want socket.Address) bool {
	if want.FD >= 0 || s.packet != want.IsPacket() || s.lost() {
		return false
	}
	if s.stored() && s.name == storeName(want) {
		return true
	}
	if s.path.Network != "" {
		return s.path.Network == want.Network && s.path.Place() == want.Place()
	}
	return want.Means(s.Addr)
}

// find returns new handles of the sockets that want means, and the address of the first. For
// a port of both families there can be two. Where a worker cannot read datagrams from two it
// returns one. stored is the name under which the service manager keeps them, if the process
// before this one had it keep them.
func (a *activated) find(want socket.Address) (all []*handle.Handle, addr net.Addr, stored string) {
	a.once.Do(a.init)
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.list {
		s := &a.list[i]
		if !s.is(want) || len(all) > 0 && s.packet && !socket.Groups {
			continue
		}
		h, err := socket.DuplicateFD(s.FD)
		if err != nil {
			continue
		}
		if len(all) == 0 {
			addr = s.Addr
			if s.stored() {
				stored = s.name
			}
		}
		s.used = true
		all = append(all, h)
	}
	return all, addr, stored
}

// ActivatedFor returns new handles of the service manager's sockets for a, the same that
// workers get, and the address of the first.
func (r *Registry) ActivatedFor(a socket.Address) (all []*handle.Handle, addr net.Addr) {
	a.Locate() // without it the path stands for itself
	all, addr, stored := r.activated.find(a)
	if stored != "" {
		prepare(a, all)
	}
	return all, addr
}

// explain returns err, the reason why want could not be opened. If the address is in use, it
// adds the sockets of the service manager: one of them may have the address in another form.
func (a *activated) explain(want socket.Address, err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var names []string
	for _, s := range a.list {
		if !s.used && s.packet == want.IsPacket() && (s.path.Network != "") == want.IsUnix() && len(names) < maxNamed {
			names = append(names, fmt.Sprintf("%d (%s %s)", s.FD, s.Addr.Network(), s.Addr))
		}
	}
	if len(names) == 0 {
		return err
	}
	text := "the service manager gave descriptor " + strings.Join(names, ", ") + ", which is not that address"
	if why := (*socket.Reason)(nil); errors.As(err, &why) {
		text = why.Text + "; " + text
	}
	return &socket.Reason{Cause: err, Text: text}
}

// maxNamed is how many sockets explain names.
const maxNamed = 3

// has reports whether the descriptor fd is one of the sockets.
func (a *activated) has(fd int) bool {
	a.once.Do(a.init)
	return slices.ContainsFunc(a.list, func(s activatedSocket) bool { return s.FD == fd })
}

// offered returns what the descriptor fd really is, if a worker may ask for it by its number:
// it is a service manager's, or one of those that the program offers (byProgram). A worker
// can have no other socket of this process.
func (r *Registry) offered(fd int, byProgram []int) (network, address string, err error) {
	if !slices.Contains(byProgram, fd) && !r.activated.has(fd) {
		return "", "", fmt.Errorf("descriptor %d of the master is no socket of a service manager, nor in Options.ListenFDs", fd)
	}
	network, addr, err := socket.Inspect(fd)
	if err != nil {
		return "", "", err
	}
	return network, addr.String(), nil
}

// Unused returns the service manager's sockets that nobody has asked for. It may
// be called outside of the mailbox.
func (r *Registry) Unused() (unused []Activated) {
	a := &r.activated
	a.once.Do(a.init)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.list {
		if !s.used && !s.stored() {
			unused = append(unused, s.Activated)
		}
	}
	return unused
}
