package share

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// The master's half of package flow: groups of UDP sockets, which worker has which socket, and
// which worker reads which share.

// FlowIDLength is the length of connection IDs in bytes.
const FlowIDLength = 14

const (
	maxFlowGroups = 16   // each takes descriptors of the master
	minFlowShares = 64   // so that they can be dealt out evenly
	perFlowWorker = 8    // shares
	maxFlowShares = 2048 // of one group
	maxFlowOwn    = 1024 // sockets of workers in one group
)

// flowShares returns how many shares a group has. The number of a group never changes: the
// share to which a client comes depends on it.
func flowShares(workers int) int {
	return min(max(minFlowShares, perFlowWorker*workers), maxFlowShares)
}

// FlowGroups are the groups of a Registry, by flowKey. They belong to its mailbox.
type FlowGroups struct {
	registry *Registry
	groups   map[string]*flowGroup
}

// flowGroup is one address and its sockets.
type flowGroup struct {
	key        string
	query      Query
	opened     chan struct{} // closed when the next two are set
	err        error         // why there are no sockets
	flows      *socket.Flows
	tag        socket.FlowTag
	reset      [32]byte
	token      [32]byte
	members    []*flowMember // by when they joined
	readers    []*flowMember // of each share; nil if nobody takes connections
	guests     []*flowMember // who read it as well while its reader hangs; nil if that does not
	leases     []Member      // of each socket behind the shares; nil if its worker is dead
	free       []int         // those, the last one to die at the end
	held       int           // how often this process itself listens
	generation int           // of the newest worker that has joined
	slotted    bool          // a worker with a slot has
}

// flowMember is a worker in a group.
type flowMember struct {
	Member
	watched              // of the shares that it has been told to read
	own     int          // the index of its socket
	given   map[int]bool // the sockets that it was sent
	takes   bool         // connections
	full    bool         // it has as many as it may
	told    []int        // the shares that it was told to read
}

// flowKey names the group of an address. It is not that of the address's own entry.
func flowKey(q Query) string { return "flow " + q.Key() }

// join answers a worker that asks for a place in the group of q's address.
func (f *FlowGroups) join(ctx context.Context, m Member, w *wire.Message, q Query, workers int) error {
	if !strings.HasPrefix(q.Network, "udp") || q.FD >= 0 || q.Reuse {
		return syscall.EINVAL // no Go worker asks for that
	}
	if !socket.FlowsSupported {
		return &socket.Reason{Cause: syscall.EOPNOTSUPP, Text: "it takes Linux"}
	}
	return f.use(ctx, q, workers, func(g *flowGroup) error {
		if m.Leaving() || !m.Grants(g.key) {
			return nil
		}
		one, err := g.join(ctx, m)
		if err != nil {
			return err
		}
		g.generation = max(g.generation, m.Generation())
		g.slotted = g.slotted || m.Slotted()
		addr := g.flows.Addr.(*net.UDPAddr)
		out := &wire.Message{Cmd: wire.CmdCluster, Ack: w.Seq, Key: g.key, Data: null, Seq: wire.NextSeq(),
			Sockname: &wire.Sockname{Address: ipText(addr.IP, addr.Zone), Port: addr.Port},
			Go: &wire.Extension{Flow: &wire.Flow{Shares: g.flows.Shares, Own: one.own,
				Tag: g.tag[:], Reset: g.reset[:], Token: g.token[:]}}}
		m.Answer(out.Line())
		return nil
	})
}

// Hold keeps the group of q's address open for the workers until release.
func (f *FlowGroups) Hold(ctx context.Context, q Query, workers int) (addr net.Addr, release func(), err error) {
	err = f.use(ctx, q, workers, func(g *flowGroup) error {
		g.held++
		addr = g.query.Shown(g.flows.Addr)
		release = func() {
			f.registry.host.Turn(func() {
				g.held--
				f.endUnused(g)
			})
		}
		return nil
	})
	if err != nil {
		return nil, nil, ListenError(q.Address, err, "")
	}
	return addr, release, nil
}

// use calls fn, in the mailbox, with the group of q's address, which it opens if
// nobody has. One that ends before fn has its turn is opened once more.
func (f *FlowGroups) use(ctx context.Context, q Query, workers int, fn func(*flowGroup) error) error {
	for {
		var g *flowGroup
		var open bool
		var err error
		f.registry.host.Turn(func() { g, open, err = f.claim(q, workers) })
		if err != nil {
			return err
		}
		if open {
			flows, err := socket.OpenFlows(ctx, q.Address, flowShares(workers), g.tag, FlowIDLength)
			if err != nil {
				err = f.registry.activated.explain(q.Address, err)
			}
			f.registry.host.Turn(func() { f.commit(g, flows, err) })
		}
		select {
		case <-g.opened:
		case <-ctx.Done():
			return ctx.Err()
		}
		if g.err != nil {
			return g.err
		}
		ended := false
		f.registry.host.Turn(func() {
			if ended = f.groups[g.key] != g; !ended {
				err = fn(g)
			}
		})
		if !ended {
			return err
		}
	}
}

// claim finds or makes the group for q. Whoever made it opens the sockets.
func (f *FlowGroups) claim(q Query, workers int) (g *flowGroup, open bool, err error) {
	key := flowKey(q)
	if g := f.groups[key]; g != nil {
		return g, false, nil
	}
	if len(f.groups) >= maxFlowGroups || flowShares(workers) > socket.Budget()/4 {
		return nil, false, &socket.Reason{Cause: syscall.EMFILE, Text: fmt.Sprintf("%d sockets for one address, and %d such addresses already", flowShares(workers), len(f.groups))}
	}
	g = &flowGroup{key: key, query: q, opened: make(chan struct{})}
	rand.Read(g.tag[:]) // they never fail
	rand.Read(g.reset[:])
	rand.Read(g.token[:])
	f.groups[key] = g
	return g, true, nil
}

// commit ends the opening of g. After an error the group is forgotten, so that the
// next worker tries again.
func (f *FlowGroups) commit(g *flowGroup, flows *socket.Flows, err error) {
	defer close(g.opened)
	if err == nil && f.groups[g.key] != g {
		flows.Release() // the cluster has stopped meanwhile
		err = errs.Closed
	}
	if err == nil {
		err = f.begin(g, flows)
	}
	if err != nil {
		g.err = err
		if f.groups[g.key] == g {
			delete(f.groups, g.key)
		}
		return
	}
}

// begin gives g its sockets, and has the shares watched.
func (f *FlowGroups) begin(g *flowGroup, flows *socket.Flows) error {
	g.flows, g.readers, g.guests = flows, make([]*flowMember, flows.Shares), make([]*flowMember, flows.Shares)
	err := f.registry.Shards.watch(g.shares())
	if err != nil {
		f.registry.Shards.unwatch(g.shares())
		flows.Release()
		g.flows = nil
	}
	return err
}

// shares are the sockets that take what begins connections.
func (g *flowGroup) shares() []*handle.Handle { return g.flows.Sockets[:g.flows.Shares] }

// join makes m a member, with a socket of its own: the socket of the worker that died last, or
// a new one. m tells the clients of the dead worker that their connections are gone. Nobody
// reads a socket while it is free: else a worker would tell that to clients of a worker that
// lives. Opening a socket does not wait.
func (g *flowGroup) join(ctx context.Context, m Member) (*flowMember, error) {
	if g.member(m) != nil {
		return nil, syscall.EADDRINUSE // as if the worker had opened the socket itself
	}
	n := len(g.leases)
	if last := len(g.free) - 1; last >= 0 {
		n = g.free[last]
		g.free = g.free[:last]
		g.leases[n] = m
	} else {
		if n >= maxFlowOwn {
			return nil, &socket.Reason{Cause: syscall.EMFILE, Text: fmt.Sprintf("%d workers have sockets of this address", n)}
		}
		if err := g.flows.Append(ctx); err != nil {
			return nil, err
		}
		g.leases = append(g.leases, m)
	}
	one := newFlowMember(m, g.flows.Shares+n)
	g.members = append(g.members, one)
	return one, nil
}

func newFlowMember(m Member, own int) *flowMember {
	return &flowMember{Member: m, watched: watched{member: m, has: make(map[int]*holding)}, own: own, given: make(map[int]bool)}
}

func (g *flowGroup) member(m Member) *flowMember {
	for _, one := range g.members {
		if one.Member == m {
			return one
		}
	}
	return nil
}

// Socket answers a worker that asks for a socket of its group. It gets neither the own socket
// of another worker nor one that it has already.
func (f *FlowGroups) Socket(m Member, w *wire.Message) error {
	g := f.groups[w.Key]
	var one *flowMember
	if g != nil && g.flows != nil {
		one = g.member(m)
	}
	if one == nil || w.Index != one.own && (w.Index < 0 || w.Index >= g.flows.Shares) || one.given[w.Index] {
		f.registry.Refuse(m, w, syscall.EBADF, "no socket of this worker's")
		return fmt.Errorf("socket %d of %s: it has none or asks twice", w.Index, wire.Plain(w.Key))
	}
	one.given[w.Index] = true
	m.SendHandle(wire.TypeDgram, &wire.Message{Ack: w.Seq, Key: g.key, Errno: ptr(0), Data: null},
		g.flows.Sockets[w.Index].Retain(), func() { // it asks again later
			f.registry.host.Turn(func() { delete(one.given, w.Index) })
			f.registry.Refuse(m, w, syscall.EMFILE, wire.NoDescriptor)
		})
	return nil
}

// Take notes that m takes connections of its group.
func (f *FlowGroups) Take(m Member, key string) {
	g := f.groups[key]
	if g == nil || m.Leaving() {
		return
	}
	if one := g.member(m); one != nil && !one.takes {
		one.takes = true
		f.deal(g)
	}
}

// NoRoom notes that m has as many connections as it may: others read its shares.
func (f *FlowGroups) NoRoom(m Member) { f.setFull(m, true) }

// hasRoom notes that m has fewer.
func (f *FlowGroups) hasRoom(m Member) { f.setFull(m, false) }

func (f *FlowGroups) setFull(m Member, full bool) {
	f.each(m, func(one *flowMember) bool {
		changed := one.full != full || one.hung && !full
		one.full, one.hung = full, one.hung && full
		return changed
	})
}

// Beat is told that m has answered a heartbeat.
func (f *FlowGroups) Beat(m Member) { f.each(m, func(one *flowMember) bool { return one.beat() }) }

// each calls fn with the places of m. Where fn returns true, the shares are dealt again.
func (f *FlowGroups) each(m Member, fn func(*flowMember) bool) {
	for _, g := range f.groups {
		if one := g.member(m); one != nil && fn(one) {
			f.deal(g)
		}
	}
}

// able reports whether the worker takes connections now.
func (one *flowMember) able() bool { return one.takes && !one.full && !one.hung }

// leave deals the shares of m, which takes no more connections, to others.
func (f *FlowGroups) leave(m Member) {
	f.each(m, func(one *flowMember) bool {
		took := one.takes
		one.takes = false
		return took
	})
}

// forget forgets a worker whose channel has closed. The worker may still read its socket.
func (f *FlowGroups) forget(m Member) {
	for _, g := range f.groups {
		g.members = slices.DeleteFunc(g.members, func(one *flowMember) bool { return one.Member == m })
	}
}

// Dead notes that m's process has ended: its sockets are free.
func (f *FlowGroups) Dead(m Member) {
	for _, g := range f.groups {
		for n, lessee := range g.leases {
			if lessee == m {
				g.leases[n] = nil
				g.free = append(g.free, n)
			}
		}
	}
}

// deal decides which worker reads which share. As few shares as possible change hands: if a
// client connects just then, one worker may get its first datagram and another its second. A
// worker that hangs keeps its shares, and others read them as well.
func (f *FlowGroups) deal(g *flowGroup) {
	f.registry.Shards.redraw()
	var takers, able []*flowMember
	for _, one := range g.members {
		if one.takes && !one.full {
			takers = append(takers, one)
		}
		if one.able() {
			able = append(able, one)
		}
	}
	g.spread(takers)
	for i, one := range g.readers {
		if g.guests[i] = nil; one != nil && one.hung && len(able) > 0 {
			g.guests[i] = able[i%len(able)]
		}
	}
	for _, one := range g.members {
		if one.takes {
			g.tell(one)
		}
	}
}

// spread gives each share to one of the takers. If there is none, workers that are only full
// keep their shares, and what comes waits for them.
func (g *flowGroup) spread(takers []*flowMember) {
	count := make(map[*flowMember]int, len(takers))
	for i, one := range g.readers {
		switch {
		case one == nil:
		case !one.takes, one.full && len(takers) > 0:
			g.readers[i] = nil
		default:
			count[one]++
		}
	}
	if len(takers) == 0 {
		return
	}
	fewer := func(a, b *flowMember) int { return count[a] - count[b] }
	for i, one := range g.readers {
		least := slices.MinFunc(takers, fewer)
		if one == nil || count[one] > count[least]+1 {
			count[one]--
			count[least]++
			g.readers[i] = least
		}
	}
}

// tell tells a worker which shares it is to read, unless it knows.
func (g *flowGroup) tell(one *flowMember) {
	read := []int{}
	for i, reader := range g.readers {
		if reader == one || g.guests[i] == one {
			read = append(read, i)
		}
	}
	if one.told != nil && slices.Equal(one.told, read) {
		return
	}
	one.tell(read)
	one.Answer((&wire.Message{Cmd: wire.CmdCluster, Act: wire.ActShares, Key: g.key, Seq: wire.NextSeq(),
		Go: &wire.Extension{Flow: &wire.Flow{Read: read}}}).Line())
}

// tell notes what the worker was told to read.
func (one *flowMember) tell(read []int) {
	one.told = read
	has := make(map[int]*holding, len(read))
	for _, i := range read {
		if has[i] = one.has[i]; has[i] == nil {
			has[i] = new(holding)
		}
	}
	one.has = has
}

// ---- the end, as in ending.go

// close notes that m has closed its place.
func (f *FlowGroups) close(m Member, key string, stays bool) {
	g := f.groups[key]
	if g == nil || g.flows == nil {
		return
	}
	one := g.member(m)
	if one == nil {
		return
	}
	one.takes = false
	g.members = slices.DeleteFunc(g.members, func(other *flowMember) bool { return other == one })
	f.deal(g)
	if stays && !m.Leaving() {
		f.endUnused(g)
	}
}

// endUnused ends g if it is open and nobody listens on it, apart from workers on their way
// out.
func (f *FlowGroups) endUnused(g *flowGroup) {
	if g.flows == nil || g.held > 0 || f.groups[g.key] != g {
		return
	}
	for _, one := range g.members {
		if !one.Leaving() {
			return
		}
	}
	f.drop(g)
}

// outdate is Outdate for groups.
func (f *FlowGroups) outdate(generation int, slots bool) {
	for _, g := range f.groups {
		if g.generation <= generation && (slots || len(g.leases) > 0 && !g.slotted) {
			f.endUnused(g)
		}
	}
}

func (f *FlowGroups) drop(g *flowGroup) {
	delete(f.groups, g.key)
	if g.flows != nil { // else it is still being opened: commit will see
		f.registry.Shards.unwatch(g.shares())
		g.flows.Release()
	}
}

// closeAll is CloseAll for groups.
func (f *FlowGroups) closeAll() {
	for _, g := range f.groups {
		f.drop(g)
	}
}

// listening appends the groups, as Listening tells of addresses.
func (f *FlowGroups) listening(all []Listening) []Listening {
	for _, g := range f.groups {
		if g.flows != nil {
			all = append(all, Listening{Network: "udp", Address: g.query.Shown(g.flows.Addr).String(), Policy: Sharded, Sockets: len(g.flows.Sockets)})
		}
	}
	return all
}
