package socket

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// Several sockets of one address (SO_REUSEPORT). The kernel chooses one for each connection
// or datagram, by a hash of its addresses or as a program says.

// Groups says whether this system has groups of sockets that share the connections of one
// address, and tells how many connections wait at each.
const Groups = true

// Instruction is an instruction of a program that chooses a socket.
type Instruction = unix.SockFilter

// Group has the sockets that [OpenGroup] has opened.
type Group struct {
	Sockets []*handle.Handle // in the order in which a program of the group numbers them
	Addr    net.Addr
	Lack    error // why there is only one socket, as [Open] opens it; or nil
	Refused error // why the system took no program, and chooses by its hash; or nil
}

// OpenGroup opens n sockets of a, for streams or for datagrams. The first is bound without
// SO_REUSEPORT: so the address is in use for another cluster, and for others that want it
// alone.
//
// choose, if not nil, is attached before more than the first socket can have traffic. It is
// never replaced or detached: under traffic that is a use after free in many kernels
// (CVE-2026-52910).
func OpenGroup(ctx context.Context, a Address, n int, choose []Instruction) (g Group, err error) {
	first, addr, _, err := Open(ctx, a)
	if err != nil {
		return g, err
	}
	g = Group{Sockets: []*handle.Handle{first}, Addr: addr}
	if g.Lack = setReusePort(first.FD(), 1); g.Lack != nil {
		return g, nil
	}
	host, _, _ := net.SplitHostPort(a.Literal)
	_, port := ipPort(addr)
	again := a
	again.Literal = net.JoinHostPort(host, strconv.Itoa(port))
	for len(g.Sockets) < n {
		h, err := openMember(ctx, again)
		if err != nil {
			g.undo(err)
			return g, nil
		}
		g.Sockets = append(g.Sockets, h)
		if len(g.Sockets) == 2 && choose != nil {
			g.Refused = attach(h.FD(), choose)
		}
	}
	return g, nil
}

// undo closes all sockets but the first, and makes that one as it was before.
func (g *Group) undo(why error) {
	for _, h := range g.Sockets[1:] {
		h.Release()
	}
	g.Sockets, g.Lack = g.Sockets[:1], why
	setReusePort(g.Sockets[0].FD(), 0)
}

// openMember opens a further socket of a's group.
func openMember(ctx context.Context, a Address) (*handle.Handle, error) {
	lc := reusePort()
	lc.SetMultipathTCP(a.Multipath)
	if a.IsPacket() {
		c, err := lc.ListenPacket(ctx, a.Network, a.Literal)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return Duplicate(c.(syscall.Conn))
	}
	ln, err := lc.Listen(ctx, a.Network, a.Literal)
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	if a.Backlog > 0 {
		if err := relisten(ln.(syscall.Conn), a.Backlog); err != nil {
			return nil, err
		}
	}
	return Duplicate(ln.(syscall.Conn))
}

// reusePort returns a ListenConfig whose sockets join the group of their address.
func reusePort() net.ListenConfig {
	return net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		ctlErr := c.Control(func(fd uintptr) { err = setReusePort(int(fd), 1) })
		if ctlErr != nil {
			return ctlErr
		}
		return err
	}}
}

func setReusePort(fd, on int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, on))
}

// attach lets a program choose the socket of fd's group. Its result is an index in the order
// of listen(2) (TCP) or bind(2) (UDP). If that is out of range, the kernel chooses by its
// hash. No privilege is needed.
func attach(fd int, program []Instruction) error {
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &prog); err != nil {
		return fmt.Errorf("a program that chooses by the client's address: %w", os.NewSyscallError("setsockopt", err))
	}
	return nil
}

// Where a program of a group finds things: the packet, from the IP header on, at SKF_NET_OFF,
// and a random number at SKF_AD_OFF + SKF_AD_RANDOM.
const (
	inNetwork = 0x100000000 - 0x100000
	random    = 0x100000000 - 0x1000 + 56
)

func operation(code uint16, k uint32) Instruction { return Instruction{Code: code, K: k} }

// ByChance returns a program that chooses one of n sockets of a group by a random number. The
// kernel's hash spreads pairs of addresses evenly, and not connections: a few clients have
// few addresses, and connect from the same ports again and again.
func ByChance(n int) []Instruction {
	return []Instruction{
		operation(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, random),
		operation(unix.BPF_ALU|unix.BPF_MOD|unix.BPF_K, uint32(n)),
		operation(unix.BPF_RET|unix.BPF_A, 0),
	}
}

// ByClient returns a program that chooses one of n sockets of a group by the IP address of
// the client. A v4-mapped client counts as IPv4.
func ByClient(n int) []Instruction {
	op := operation
	load := func(at uint32) Instruction { return op(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, inNetwork+at) }
	program := []Instruction{
		op(unix.BPF_LD|unix.BPF_B|unix.BPF_ABS, inNetwork),
		op(unix.BPF_ALU|unix.BPF_RSH|unix.BPF_K, 4),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 6, Jt: 2},
		load(12),
		{Code: unix.BPF_JMP | unix.BPF_JA, K: 10},
		load(8), // the four words of an IPv6 address, as one
	}
	for at := uint32(12); at <= 20; at += 4 {
		program = append(program, op(unix.BPF_MISC|unix.BPF_TAX, 0), load(at), op(unix.BPF_ALU|unix.BPF_XOR|unix.BPF_X, 0))
	}
	const golden = 0x9e3779b1 // 2³² divided by the golden ratio: it spreads addresses that differ in few bits
	return append(program,
		op(unix.BPF_ALU|unix.BPF_MUL|unix.BPF_K, golden),
		op(unix.BPF_ALU|unix.BPF_RSH|unix.BPF_K, 16),
		op(unix.BPF_ALU|unix.BPF_MOD|unix.BPF_K, uint32(n)),
		op(unix.BPF_RET|unix.BPF_A, 0),
	)
}
