package socket

import (
	"context"
	"encoding/binary"
	"net"
	"slices"
	"strconv"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// Flows is a group of sockets of one UDP address (SO_REUSEPORT), among which a program in
// the kernel chooses by what a datagram says. A datagram that begins a connection goes to one
// of the first Shares sockets, by a hash of its source. A datagram of a connection whose ID
// begins with the group's tag and the number n goes to socket Shares + n.
//
// The index of a socket is its place in the order of bind(2). The kernel moves the last
// socket into the place of one that is closed, so none is closed before the address ends.
// The program is attached once, before anybody reads. Replacing it under traffic is a use
// after free in kernels before June 2026 (CVE-2026-52910).
type Flows struct {
	Addr    net.Addr
	Sockets []*handle.Handle
	Shares  int

	address Address // with the port that the system has chosen
}

// FlowTag is the beginning of all connection IDs of a group.
type FlowTag [4]byte

// FlowsSupported says whether OpenFlows works on this system.
const FlowsSupported = true

// OpenFlows opens the group of a, at first with its shares, at least 2. A connection ID of
// the group has idLength bytes. If the system does not take the program, the error is a
// [Reason] with EOPNOTSUPP.
func OpenFlows(ctx context.Context, a Address, shares int, tag FlowTag, idLength int) (*Flows, error) {
	f := &Flows{Shares: shares, address: a}
	if err := f.open(ctx, flowProgram(shares, tag, idLength)); err != nil {
		f.Release()
		return nil, err
	}
	return f, nil
}

func (f *Flows) open(ctx context.Context, program []unix.SockFilter) error {
	// The first socket is bound without SO_REUSEPORT, so it is an error if another program,
	// or another master, has the address.
	c, _, err := listenPacket(ctx, f.address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := f.add(c); err != nil {
		return err
	}
	f.located(c.LocalAddr())
	first := f.Sockets[0].FD()
	if err := setReusePort(first, 1); err != nil {
		return err
	}
	for len(f.Sockets) < f.Shares {
		if err := f.Append(ctx); err != nil {
			return err
		}
	}
	err = unix.SetsockoptSockFprog(first, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	if err != nil {
		return &Reason{unix.EOPNOTSUPP, "this system does not let the master say which socket a datagram goes to: setsockopt SO_ATTACH_REUSEPORT_CBPF: " + err.Error()}
	}
	return nil
}

// RestoreFlows makes the Flows of a group of a that is open already, for the program after
// an upgrade. sockets are in their order, and addr is their real address. The kernel has
// kept the program that chooses.
func RestoreFlows(a Address, addr net.Addr, sockets []*handle.Handle, shares int) *Flows {
	f := &Flows{Sockets: sockets, Shares: shares, address: a}
	f.located(addr)
	return f
}

// located notes the real address, for sockets to come.
func (f *Flows) located(addr net.Addr) {
	f.Addr = addr
	host, _, _ := net.SplitHostPort(f.address.Literal) // a socket was bound to it, so it is right
	_, port := ipPort(addr)
	f.address.Literal = net.JoinHostPort(host, strconv.Itoa(port))
}

// Append opens one more socket, behind the others.
func (f *Flows) Append(ctx context.Context) error {
	lc := reusePort()
	c, err := lc.ListenPacket(ctx, f.address.Network, f.address.Literal)
	if err != nil {
		return err
	}
	defer c.Close()
	return f.add(c)
}

// add takes a duplicate of c, the newest socket.
func (f *Flows) add(c net.PacketConn) error {
	h, err := Duplicate(c.(syscall.Conn))
	if err != nil {
		return err
	}
	fit := Fit(h)
	if fit == nil {
		return &Reason{unix.EMFILE, "the other descriptors of the master are kept for new workers"}
	}
	f.Sockets = append(f.Sockets, fit)
	return nil
}

// Release closes this process's descriptors of all sockets. A socket gets datagrams until
// every process has closed it.
func (f *Flows) Release() {
	for _, h := range f.Sockets {
		h.Release()
	}
	f.Sockets = nil
}

// Where things are in the header of a QUIC packet, which RFC 8999 fixes for all versions, and
// in the headers below it.
const (
	longHeader = 0x80 // of byte 0
	atIDLength = 5    // of a long header
	atLongID   = 6
	atShortID  = 1
	atCookie   = 4 // in an ID: behind the tag

	ipHeader    = 0xfff00000 // SKF_NET_OFF: from the IP header on
	versionBits = 4          // to be shifted out of byte 0
	version6    = 6
	source4     = ipHeader + 12 // addresses
	source6     = ipHeader + 8
	port4       = ipHeader + 20 // behind a header without options
	port6       = ipHeader + 40 // and without extensions

	hashFactor = 0x9E3779B1 // 2^32 divided by the golden ratio
)

// flowProgram returns the program that chooses the index in the group. If a datagram is too
// short for a load, the kernel ends the program with 0, which is a share. If no socket has
// the index, the kernel chooses by its own hash.
func flowProgram(shares int, tag FlowTag, idLength int) []unix.SockFilter {
	return assemble([]step{
		load(unix.BPF_B, 0),
		{code: unix.BPF_JMP | unix.BPF_JSET, k: longHeader, no: "short"},
		load(unix.BPF_B, atIDLength),
		{code: unix.BPF_JMP | unix.BPF_JEQ, k: uint32(idLength), no: "hash"},
		load(unix.BPF_W, atLongID),
		{code: unix.BPF_JMP | unix.BPF_JEQ, k: binary.BigEndian.Uint32(tag[:]), no: "hash"},
		load(unix.BPF_H, atLongID+atCookie),
		{code: unix.BPF_ALU | unix.BPF_ADD, k: uint32(shares)},
		{code: unix.BPF_RET | unix.BPF_A},

		load(unix.BPF_W, atShortID).at("short"),
		{code: unix.BPF_JMP | unix.BPF_JEQ, k: binary.BigEndian.Uint32(tag[:]), no: "hash"},
		load(unix.BPF_H, atShortID+atCookie),
		{code: unix.BPF_ALU | unix.BPF_ADD, k: uint32(shares)},
		{code: unix.BPF_RET | unix.BPF_A},

		load(unix.BPF_B, ipHeader).at("hash"),
		{code: unix.BPF_ALU | unix.BPF_RSH, k: versionBits},
		{code: unix.BPF_JMP | unix.BPF_JEQ, k: version6, yes: "v6"},
		load(unix.BPF_W, source4),
		{code: unix.BPF_MISC | unix.BPF_TAX},
		load(unix.BPF_H, port4),
		{code: unix.BPF_JMP | unix.BPF_JA, yes: "mix"},

		load(unix.BPF_W, source6).at("v6"),
		{code: unix.BPF_MISC | unix.BPF_TAX},
		load(unix.BPF_W, source6+4),
		xorX,
		{code: unix.BPF_MISC | unix.BPF_TAX},
		load(unix.BPF_W, source6+8),
		xorX,
		{code: unix.BPF_MISC | unix.BPF_TAX},
		load(unix.BPF_W, source6+12),
		xorX,
		{code: unix.BPF_MISC | unix.BPF_TAX},
		load(unix.BPF_H, port6),

		xorX.at("mix"),
		{code: unix.BPF_ALU | unix.BPF_MUL, k: hashFactor},
		{code: unix.BPF_ALU | unix.BPF_RSH, k: 16}, // the upper bits depend on all
		{code: unix.BPF_ALU | unix.BPF_MOD, k: uint32(shares)},
		{code: unix.BPF_RET | unix.BPF_A},
	})
}

// step is one instruction. A jump goes to the step with the label yes or no, or to the next
// step if that is empty.
type step struct {
	code    uint16
	k       uint32
	label   string
	yes, no string
}

var xorX = step{code: unix.BPF_ALU | unix.BPF_XOR | unix.BPF_X}

func load(size uint16, at uint32) step {
	return step{code: unix.BPF_LD | unix.BPF_ABS | size, k: at}
}

func (s step) at(label string) step {
	s.label = label
	return s
}

// assemble resolves the jumps, all of which go forward.
func assemble(steps []step) []unix.SockFilter {
	program := make([]unix.SockFilter, len(steps))
	for i, s := range steps {
		far := func(label string) int {
			if label == "" {
				return 0
			}
			return slices.IndexFunc(steps, func(s step) bool { return s.label == label }) - i - 1
		}
		program[i] = unix.SockFilter{Code: s.code, K: s.k}
		if s.code == unix.BPF_JMP|unix.BPF_JA {
			program[i].K = uint32(far(s.yes))
		} else {
			program[i].Jt, program[i].Jf = uint8(far(s.yes)), uint8(far(s.no))
		}
	}
	return program
}
