package cluster

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"sync"

	"github.com/go-cluster/cluster/internal/drain"
	"github.com/go-cluster/cluster/internal/flow"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/share"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// ListenConfig has the options of a listening socket. The zero value is what
// [Listen] uses.
type ListenConfig struct {
	// Backlog is the length of the queue of connections that nobody has
	// accepted yet. Default: the system's limit (net.core.somaxconn on Linux).
	// The first worker that asks for an address decides.
	Backlog int

	// Exclusive opens the socket in this worker alone, without the master: no
	// other process can have the same address, and connections to it are lost
	// with the worker. In all else it is like a shared one: OnListening reports it, its
	// first Accept makes the worker ready, and it drains.
	Exclusive bool

	// IPv6Only makes a wildcard or IPv6 address take no IPv4 connections.
	IPv6Only bool

	// MultipathTCP opens an MPTCP socket, which package net does by default and
	// this package does not: some socket options and node peers cannot use one.
	MultipathTCP bool

	// KeepAlive is set on every accepted connection. The zero value is package
	// net's default: probes after 15 s.
	KeepAlive net.KeepAliveConfig

	// Mode is the permission of a unix socket's file. Default: what the umask
	// leaves of 0777.
	Mode fs.FileMode

	// Owner is the owner of a unix socket's file, as for a proxy that runs as another
	// user. The process that opens the socket needs the privilege: in a cluster that
	// is the master. Default: the user as whom that process runs.
	Owner *Owner

	// Scheduling, unless zero, is used for this address in place of
	// Options.Scheduling. The first worker that asks for an address decides.
	Scheduling Scheduling

	// Shards is how many sockets an address has at least whose Scheduling is Sharded or
	// ByClient. Default: 64, or eight for each of Options.Workers if that is more. More
	// than 1024 are not opened. The first worker that asks for an address decides.
	Shards int
}

// Owner is the owner of a file: the numbers of a user and of a group. -1 leaves the
// one or the other as it is.
type Owner struct{ UID, GID int }

// Scheduling says how the connections of one listening address are spread over
// the workers.
type Scheduling int

const (
	// Shared lets the workers accept on one shared socket: the kernel spreads
	// the connections, the master is not involved, and a connection waits in
	// the socket's queue until some worker takes it.
	Shared Scheduling = 1 + iota
	// RoundRobin makes the master accept and hand each connection to the next
	// worker that is free, as node's SCHED_RR: an even spread, for the price of
	// a trip through the master.
	RoundRobin
	// Sharded opens many sockets for the address, each with a queue of its own, among
	// which the kernel spreads the connections, and gives the same number to each worker:
	// an even spread, and the master has no part in it. When a worker dies, drains, is full
	// or hangs, others accept on its sockets until it is back. A worker gets its sockets at
	// its first Accept. Linux only. Where it is not possible, as on a unix socket, the
	// address is Shared, and [ListenerStats] says so.
	Sharded
	// LeastConnections makes the master accept and hand each connection to the worker
	// that has the fewest open ones; workers that have equally few get one in turn. It is
	// for connections that stay open, as those of websockets and gRPC. It costs as much as
	// RoundRobin. A worker that does not answer for 100 ms is passed over. A node worker
	// does not tell which connections it has closed. So the master assumes that as large a
	// part of them is open as with the Go workers, or all if there is no Go worker.
	LeastConnections
	// ByClient is Sharded, but all connections from one IP address go to the worker of one
	// slot. It is for servers that keep something of their clients in memory. Behind a
	// proxy all clients are one. While the slot's worker is dead, full or hangs, others get
	// its clients. [Scale] moves clients to other slots. Where the system refuses the
	// program that chooses, the address is Sharded, and [ListenerStats] says so.
	ByClient
)

// known reports whether there is such a constant; 0 is none, and known.
func (s Scheduling) known() bool { return share.Policy(s).Known() }

// String returns the constant's name.
func (s Scheduling) String() string {
	switch s {
	case 0:
		return "default"
	case Shared:
		return "Shared"
	case RoundRobin:
		return "RoundRobin"
	case Sharded:
		return "Sharded"
	case ByClient:
		return "ByClient"
	case LeastConnections:
		return "LeastConnections"
	}
	return fmt.Sprintf("Scheduling(%d)", int(s))
}

// Listen announces on an address: tcp, tcp4, tcp6 or unix. In a worker the
// socket is shared: the master opens it once and keeps it open, so that
// connections wait, and are not refused, while workers come and go. The
// n-th Listen on port 0 is the same port in every worker. The listener stops by
// itself when the worker is drained: Accept then waits, for an error would make
// most programs exit and cut off what is in flight.
//
// The address ends, and the next client is refused, when the last process that listens on it
// closes its listener and goes on running, when a reload has completed and no new worker
// listens on it, and when the cluster stops. No reload replaces the workers of plain Fork: an
// address that only they listened on ends after a reload when they are gone and one that was
// forked later is ready.
//
// In a master that has forked, Listen holds the address open for the workers
// and its Accept waits until it is closed. In any other process it is net.Listen; if
// that process forks later, its workers share the listener, and the end of Run, or a
// Disconnect during it, closes it. If a service manager has opened a socket for the
// address, every process that listens there gets that socket. For 2 s after its start a
// process waits for an address that is in use.
//
// The error wraps the system's error, in whichever process it arose: errors.Is(err,
// syscall.EADDRINUSE) holds in the worker too. On Windows it is windows.WSAEADDRINUSE as
// well, and unix sockets are ErrNotSupported.
//
// A unix socket's file that a dead process, such as a killed master, left behind is replaced.
// The file of a live one is EADDRINUSE, and so is one in a directory on which another program
// holds a lock (flock) for longer than 3 s. If somebody removes the file, the next [Reload]
// makes it anew. If workers run as another user than the master ([Options].Credential), a
// path through a symbolic link is EACCES, unless only root or the master's user could have
// made the link. Then, except on Linux, so is a directory to which others may write.
func Listen(network, address string) (net.Listener, error) {
	return ListenConfig{}.Listen(context.Background(), network, address)
}

// ListenPacket announces on an address for datagrams: udp, udp4, udp6 or
// unixgram. As with [Listen], workers share one socket: each datagram goes to
// one of them. With [Sharded] (UDP, Linux) the datagrams of a flow go to one worker. If a
// service manager gave two sockets for one port, "udp" is both on Linux, elsewhere the first.
//
// A UDP socket has all methods of a [net.UDPConn]. What one worker sets on it (a buffer's
// size, an option) holds for all, since it is one socket; connect(2) on it is undone
// within seconds (Linux). In a drain reads wait and writes still work. When the master is
// gone the socket is closed, so that the next master can open it.
//
// On Windows workers cannot share a datagram socket: ListenPacket returns ErrNotSupported
// in a worker and in a master that has forked, unless the socket is Exclusive.
func ListenPacket(network, address string) (net.PacketConn, error) {
	return ListenConfig{}.ListenPacket(context.Background(), network, address)
}

// Listen is [Listen] with these options. ctx bounds the wait for the master's
// answer, not the listener's life.
func (lc ListenConfig) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return listen(ctx, lc, streams, network, address)
}

// ListenPacket is [ListenPacket] with these options.
func (lc ListenConfig) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	return listen(ctx, lc, datagrams, network, address)
}

// socketKind is what differs between sockets that accept and sockets for datagrams.
type socketKind[T any] struct {
	packet bool
	open   func(context.Context, socket.Address, net.KeepAliveConfig) (T, error) // for this process alone
	addr   func(T) net.Addr
	sham   func(share.Query) T                                            // in the check of an upgrade: opens nothing
	given  func([]*handle.Handle, net.Addr) (T, error)                    // makes one of sockets that a service manager opened
	had    func(*handle.Handle) (T, error)                                // makes one of a socket that the program before an upgrade had
	hold   func(*share.Registry, context.Context, share.Query) (T, error) // in a master, for its workers
	source func(*share.Grant) (T, net.Addr, error)                        // in a worker, makes one of what the master granted
	track  func(d *drain.Drain, source T, addr net.Addr, keepAlive net.KeepAliveConfig, release func()) T
}

var streams = socketKind[net.Listener]{
	open:   socket.Listen,
	sham:   share.ShamListener,
	given:  socket.NewListenerOf,
	had:    socket.NewListener,
	addr:   net.Listener.Addr,
	hold:   (*share.Registry).HoldListener,
	source: (*share.Grant).Listener,
	track: func(d *drain.Drain, source net.Listener, addr net.Addr, keepAlive net.KeepAliveConfig, release func()) net.Listener {
		return d.Listener(source.(drain.Source), addr, keepAlive, release)
	},
}

var datagrams = socketKind[net.PacketConn]{
	packet: true,
	open: func(ctx context.Context, a socket.Address, _ net.KeepAliveConfig) (net.PacketConn, error) {
		return socket.ListenPacket(ctx, a)
	},
	sham:   share.ShamPacketConn,
	given:  socket.NewPacketConnOf,
	had:    socket.NewPacketConn,
	addr:   net.PacketConn.LocalAddr,
	hold:   (*share.Registry).HoldPacketConn,
	source: (*share.Grant).PacketConn,
	track: func(d *drain.Drain, source net.PacketConn, addr net.Addr, _ net.KeepAliveConfig, release func()) net.PacketConn {
		return d.PacketConn(source.(drain.PacketSource), addr, release)
	},
}

// listen opens a socket of kind k. In a worker that is its share of the master's socket,
// or one of its own; in a master that has forked, a socket for its workers; in any other
// process, a plain one.
func listen[T any](ctx context.Context, lc ListenConfig, k socketKind[T], network, address string) (opened T, err error) {
	q, err := lc.query(network, address)
	if err == nil && socket.IsPacket(network) != k.packet {
		err = net.UnknownNetworkError(network)
	}
	if Checking() && err == nil {
		return k.sham(q), nil
	}
	forked := Worker == nil && std.forked.Load()
	if err == nil {
		err = socket.Supported(q.Address, forked || Worker != nil && !lc.Exclusive)
	}
	if err != nil {
		return opened, share.ListenError(q.Address, err, "")
	}
	switch {
	case Worker != nil && lc.Exclusive:
		return listenAlone(ctx, Worker.inside, k, q.Address, lc.KeepAlive)
	case Worker != nil:
		return listenShared(ctx, Worker.inside, k, q, lc.KeepAlive)
	case forked:
		return holdForWorkers(ctx, k, q)
	}
	h, own := std.upgrades.claim(q)
	if h == nil && std.forked.Load() { // the workers of the program before were adopted meanwhile
		return holdForWorkers(ctx, k, q)
	}
	if h == nil {
		if all, addr := std.registry.ActivatedFor(q.Address); all != nil {
			return k.given(all, q.Shown(addr))
		}
	}
	if opened, err = openPlain(ctx, k, q, lc.KeepAlive, h, own); err != nil {
		return opened, share.ListenError(q.Address, err, "")
	}
	std.registry.Preopened(q.Address, k.addr(opened), opened)
	return opened, nil
}

// holdForWorkers opens a socket in a master that has forked.
func holdForWorkers[T any](ctx context.Context, k socketKind[T], q share.Query) (T, error) {
	if q.Policy == 0 {
		q.Policy = share.Policy(std.settings().Scheduling)
	}
	q.Workers = std.settings().Workers
	return k.hold(std.registry, ctx, q)
}

// query returns what lc asks for at the address. With an error, the query has what
// share.ListenError needs for its text.
func (lc ListenConfig) query(network, address string) (share.Query, error) {
	if lc.Backlog < 0 || lc.Shards < 0 || !lc.Scheduling.known() {
		return share.Query{Address: socket.Address{Network: network, Named: address}},
			fmt.Errorf("bad ListenConfig: Backlog %d, Scheduling %v, Shards %d", lc.Backlog, lc.Scheduling, lc.Shards)
	}
	o := socket.Options{Backlog: lc.Backlog, Multipath: lc.MultipathTCP, Mode: lc.Mode, Owner: (*socket.Owner)(lc.Owner)}
	a, err := socket.Resolve(network, address, lc.IPv6Only, o)
	return share.Query{Address: a, Policy: share.Policy(lc.Scheduling), Shards: lc.Shards}, err
}

// listenAlone opens a socket of this worker's own.
func listenAlone[T any](ctx context.Context, in *inside, k socketKind[T], a socket.Address, keepAlive net.KeepAliveConfig) (opened T, err error) {
	if err := in.drain.Hold(ctx); err != nil {
		return opened, share.ListenError(a, err, "")
	}
	source, err := openSoon(ctx, k, a, keepAlive)
	if err != nil {
		return opened, share.ListenError(a, err, "this worker opens it, for itself")
	}
	release := func() {}
	if a.IsUnix() {
		release = in.drain.OwnFile(a.Unlinker())
	}
	addr := a.Shown(k.addr(source))
	opened = k.track(in.drain, source, addr, net.KeepAliveConfig{}, release)
	in.listening(a, addr)
	return opened, nil
}

// listenShared asks the master for this worker's share of a socket.
func listenShared[T any](ctx context.Context, in *inside, k socketKind[T], q share.Query, keepAlive net.KeepAliveConfig) (opened T, err error) {
	if err := in.drain.Hold(ctx); err != nil {
		return opened, share.ListenError(q.Address, err, "")
	}
	g, err := in.asker.Ask(ctx, q)
	if err != nil {
		return opened, err
	}
	source, addr, err := k.source(g)
	if err != nil {
		return opened, err
	}
	opened = k.track(in.drain, source, addr, keepAlive, g.Release)
	in.listening(g.Address, addr)
	return opened, nil
}

// listening reports an open address to the master.
func (in *inside) listening(a socket.Address, addr net.Addr) {
	in.p.link.Order(share.Report(a, addr))
}

// What connects package quic: see internal/flow.

// flowCore is this process as package quic uses it.
type flowCore struct{ c *cluster }

// Join is a Listen for a group of UDP sockets.
func (f flowCore) Join(ctx context.Context, network, address string) (flow.Place, error) {
	forked := Worker == nil && f.c.forked.Load()
	if Worker == nil && !forked {
		return nil, nil
	}
	q, err := ListenConfig{}.query(network, address)
	if err == nil && !q.IsPacket() || q.IsUnix() {
		err = net.UnknownNetworkError(network)
	}
	if err == nil && !socket.FlowsSupported {
		err = ErrNotSupported
	}
	if err != nil {
		return nil, share.ListenError(q.Address, err, "")
	}
	if forked {
		addr, release, err := f.c.registry.Flows.Hold(ctx, q, f.c.settings().Workers)
		return heldFlows{addr: addr, release: sync.OnceFunc(release)}, err
	}
	in := Worker.inside
	if err := in.drain.Hold(ctx); err != nil {
		return nil, share.ListenError(q.Address, err, "")
	}
	p, err := in.asker.JoinFlows(ctx, q)
	if err != nil {
		return nil, err
	}
	in.listening(q.Address, p.Addr())
	return flowPlace{p, in}, nil
}

// flowPlace is a place of this worker.
type flowPlace struct {
	*share.FlowPlace
	in *inside
}

func (p flowPlace) Take(read func(shares []int)) {
	p.FlowPlace.Take(read)
	p.in.drain.Asks()
}

func (p flowPlace) Orphaned() <-chan struct{} { return p.in.drain.Orphaned() }

// heldFlows is an address that the master holds open for its workers.
type heldFlows struct {
	flow.Place // nil: the master reads none
	addr       net.Addr
	release    func()
}

func (h heldFlows) Addr() net.Addr { return h.addr }

func (h heldFlows) Close() error {
	h.release()
	return nil
}

// The types below connect package share: in the master with the workers, in a worker with
// its channel and its drain.

// member is a worker as the registry of the master knows it. The pointer is that of the
// Process, so it identifies the worker.
type member Process

var _ share.Member = (*member)(nil)

func (p *member) Leaving() bool { return (*Process)(p).State() >= Draining }

func (p *member) Grants(key string) bool {
	return !p.Leaving() && p.connected.Load() && p.link.Grants(key)
}

func (p *member) Took() {
	p.child.tallies.since.Add(1)
	p.child.counted(int(p.child.handed.Add(1)))
}

func (p *member) Load() (share.Load, bool) {
	c, ok := p.child.counts()
	return share.Load{Accepted: c.Accepted, Open: c.Open, Received: c.Received}, ok
}

func (p *member) Generation() int { return p.child.gen.number }

func (p *member) Slotted() bool { return p.slot >= 0 }
func (p *member) ID() int       { return p.id }
func (p *member) Slot() int     { return p.slot }

func (p *member) Answer(line []byte) { p.link.Answer(line) }

func (p *member) SendHandle(typ string, m *wire.Message, h *handle.Handle, lost func()) {
	p.link.SendHandle(typ, m, h, lost)
}

func (p *member) AskHandleLine(line []byte, seq int64, h *handle.Handle, answered func(*wire.Message, *handle.Handle)) {
	p.link.AskHandleLine(line, seq, h, answered)
}

// query answers a worker's queryServer, on a goroutine of its own.
func (m *master) query(p *Process, w *wire.Message) {
	terms := share.Terms{Policy: share.Policy(p.child.opts.Scheduling), FDs: p.child.opts.ListenFDs, Guarded: p.child.opts.Credential.isOther(), Workers: p.child.opts.Workers}
	terms.Libuv = func() string {
		return p.child.gen.libuv(p.child.opts.Credential.user())
	}
	if allow := p.child.opts.AllowListen; allow != nil {
		terms.Allow = func(network, address string) error { return allow(p, network, address) }
	}
	if err := m.registry.Answer((*member)(p), w, terms); err != nil {
		p.accuse(fmt.Errorf("cluster: worker %d: %w", p.id, err))
	}
}

// masterLink is a worker's channel to its master, for the asker.
type masterLink Process

var _ share.Link = (*masterLink)(nil)

func (p *masterLink) Ask(w *wire.Message, answered func(*wire.Message, *handle.Handle)) {
	p.link.Ask(w, answered)
}

func (p *masterLink) Order(w *wire.Message) error { return p.link.Order(w) }

func (p *masterLink) Answer(line []byte) { p.link.Answer(line) }

// newAsker makes the asker of this worker, whose link and drain may follow.
func (in *inside) newAsker() *share.Asker {
	return share.NewAsker(share.Worker{
		Link:     (*masterLink)(in.p),
		Go:       in.goMaster(),
		Draining: func() bool { return in.drain.Draining() },
		Ends:     in.ends,
		WhoOpens: whoOpens,
		Places:   (*places)(in), Received: in.received,
		Exhausted: func(err error) {
			in.p.logger().Warn("cluster: a connection is given back: no descriptor is free in this worker", "worker", in.p.id, "err", err)
		},
	})
}

// places are those of this worker's drain, which is set later.
type places inside

var _ share.Places = (*places)(nil)

func (in *places) Reserve() bool                      { return in.drain.Reserve() }
func (in *places) Unreserve()                         { in.drain.Unreserve() }
func (in *places) Full() bool                         { return in.drain.Full() }
func (in *places) Room() (places int, bounded bool)   { return in.drain.Room() }
func (in *places) Connects() (accepted, ended func()) { return in.drain.Connects() }

// exhausted logs why the master cannot accept connections.
func (m *master) exhausted(err error) {
	m.log().Warn("cluster: no connection can be accepted for the workers", "err", err)
}

// fallenBack logs, in the mailbox, that an address is not spread as it was asked for.
func fallenBack(m *master, l share.Listening, wanted share.Policy) {
	if opts, err := m.current(); err == nil {
		m.cluster.logs.Logger(opts.logger()).Warn("cluster: "+Scheduling(wanted).String()+" is not possible: the address is "+Scheduling(l.Policy).String(),
			"network", l.Network, "address", l.Address, "reason", l.Lack)
	}
}
