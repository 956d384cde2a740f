package share

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// Shards are the addresses of a Registry that have many sockets, which change hands: those with
// the policies [Sharded] and [ByClient]. The kernel spreads the connections over the sockets,
// and a worker accepts on some of them. The master has all of them and accepts on none, so it
// has no part in a connection. No socket is closed before the address ends.
//
// Socket i is at home in slot i mod N. At its first Accept a worker is given the sockets at
// home in its slot. If nobody can accept there now (there is no worker, or it leaves, is full or
// hangs), the sockets are lent to other workers as well. They are taken back when the worker at
// home can accept again.
//
// A worker that is to have a socket gets it before it is taken from the worker that had it. So
// connections stay in the queue of a socket until a worker takes them, and none is lost,
// whichever process dies at whichever step.
//
// A patrol finds the workers that hang: see patrol.go. All else is in the mailbox. The answer of
// a worker to a socket comes as a turn of its own.
type Shards struct {
	r      *Registry
	slots  int     // of the workers
	patrol *patrol // nil while no address is sharded
}

// shards says which workers have the sockets of an entry.
type shards struct {
	hands map[Member]*hand
	all   bool // each worker has all of them: see ofBothFamilies
	due   bool // settleSoon has been called, and its turn has not come
}

// ofBothFamilies reports whether e has two sockets for datagrams, one of each family, as a
// service manager gives them for one port. Each worker reads both.
func (e *entry) ofBothFamilies() bool {
	return e.query.IsPacket() && !e.query.Policy.sharded() && len(e.sockets) > 1
}

// hand is a worker that listens on the address.
type hand struct {
	watched
	accepts bool // it has asked for its share
	leaving bool
	full    bool
	resting bool // it could not take a socket just now, and is left alone
	giving  int  // for settle: how many sockets are on their way to it
}

// holding is one socket of a hand.
type holding struct {
	seq   int64 // the number of the message with the socket; 0 after an upgrade
	given bool  // the worker has said that it has the socket
	seen  bool  // for the patrol: the socket was on its way at the last look
}

const (
	// restTime is how long a worker is left alone that could not take a socket.
	restTime = time.Second
	// maxGiving bounds how many sockets of an address are on their way to one worker.
	maxGiving = 16
)

// able reports whether the worker takes connections now.
func (h *hand) able() bool { return !h.full && !h.hung && !h.resting }

// ---- opening

// The number of sockets of an address.
const (
	minShards = 64
	perWorker = 8 // enough for each worker to have about as many as the next one
	maxShards = 1024
)

// shardsOf returns how many sockets q's address has.
func shardsOf(q Query) int {
	return min(max(minShards, perWorker*max(0, min(q.Workers, maxShards)), q.Shards), maxShards)
}

// unshardable returns why there can be only one socket for q, or "" if there can be more.
func unshardable(q Query) string {
	switch {
	case !socket.Groups:
		return "sockets change hands on Linux only"
	case q.IsUnix():
		return "a unix socket is one"
	case q.Multipath:
		return "MPTCP has no such sockets"
	case q.FD >= 0:
		return "it was asked for by its descriptor"
	case q.Reuse:
		return "it was asked for with reuseAddr"
	case q.Apart:
		return "the first to listen on it is a worker that cannot take several sockets, as node's"
	}
	return ""
}

// openGroup opens the sockets of q. If that is not possible, it opens one, and opened.lack says
// why.
func openGroup(ctx context.Context, q Query) (o opened, err error) {
	n := shardsOf(q)
	choose := socket.ByChance(n)
	switch {
	case q.Policy == ByClient:
		choose = socket.ByClient(n)
	case q.IsPacket():
		choose = nil // the kernel's hash sends all datagrams of a flow to one socket
	}
	g, err := socket.OpenGroup(ctx, q.Address, n, choose)
	if err != nil {
		return o, err
	}
	o = opened{sockets: g.Sockets, addr: g.Addr, unlink: func() {}, policy: q.Policy}
	last := g.Sockets[len(g.Sockets)-1]
	if g.Lack == nil && last.FD() >= socket.Budget()/2 { // they have ascending numbers
		for _, h := range g.Sockets[1:] {
			h.Release()
		}
		o.sockets, g.Lack = g.Sockets[:1], errors.New("the other descriptors of the master are kept for other addresses")
	}
	switch {
	case g.Lack != nil:
		o.policy, o.lack = Shared, fmt.Sprintf("%d sockets cannot be opened: %v", n, g.Lack)
	case g.Refused != nil && q.Policy == ByClient: // else the kernel's hash does as well
		o.policy, o.lack = Sharded, fmt.Sprintf("the system refuses %v", g.Refused)
	}
	return o, nil
}

// ---- who accepts on what

// assign returns for each of n sockets the hands that are to have it.
func (s *shards) assign(n, slots int) (want [][]*hand) {
	var hands, able []*hand
	for _, h := range s.hands {
		if h.accepts && !h.leaving {
			hands = append(hands, h)
		}
	}
	if s.all {
		return slices.Repeat([][]*hand{hands}, n)
	}
	slices.SortFunc(hands, func(a, b *hand) int { return cmp.Compare(a.member.ID(), b.member.ID()) })
	home := make([][]*hand, slots) // by slot; behind these one place for each worker without a slot
	for _, h := range hands {
		switch slot := h.member.Slot(); {
		case slot < 0:
			home = append(home, []*hand{h})
		case slot < slots:
			home[slot] = append(home[slot], h)
		}
		if h.able() {
			able = append(able, h)
		}
	}
	want = make([][]*hand, n)
	if len(hands) == 0 {
		return want
	}
	var lent []int
	for i := range want {
		if len(home) > 0 {
			want[i] = home[i%len(home)]
		}
		if len(able) == 0 && len(want[i]) == 0 || len(able) > 0 && !slices.ContainsFunc(want[i], (*hand).able) {
			lent = append(lent, i)
		}
	}
	if len(able) == 0 {
		able = hands
	}
	for i, guest := range lend(lent, able) {
		want[lent[i]] = append(slices.Clone(want[lent[i]]), guest)
	}
	return want
}

// lend says which of the guests is to have each of the lent sockets. Each guest gets as many as
// the next one, or one more. Who has a socket keeps it if that is possible: else nearly all
// would change hands with each worker that starts, a million for 500 workers.
func lend(lent []int, guests []*hand) []*hand {
	to := make([]*hand, len(lent))
	each, more := len(lent)/len(guests), len(lent)%len(guests)
	has := make(map[*hand]int, len(guests))
	room := func(h *hand) bool { return has[h] < each || has[h] == each && more > 0 }
	take := func(at int, h *hand) {
		if to[at] = h; has[h] == each {
			more--
		}
		has[h]++
	}
	place := make(map[int]int, len(lent)) // of a socket in lent
	for at, i := range lent {
		place[i] = at
	}
	for _, h := range guests {
		for _, i := range h.sorted() {
			if at, ok := place[i]; ok && to[at] == nil && room(h) {
				take(at, h)
			}
		}
	}
	next := 0
	for at := range to {
		for to[at] == nil {
			if h := guests[next%len(guests)]; room(h) {
				take(at, h)
			}
			next++
		}
	}
	return to
}

// sorted returns the numbers of the sockets that the worker has or is about to get.
func (h *hand) sorted() []int { return slices.Sorted(maps.Keys(h.has)) }

// settle gives and takes the sockets of e as assign says.
func (s *Shards) settle(e *entry) {
	s.redraw()
	for _, h := range e.shards.hands {
		h.countGiving()
	}
	want := e.shards.assign(len(e.sockets), s.slots)
	held := make([]bool, len(want)) // a worker that is to have the socket has it
	for i := range want {
		for _, h := range want[i] {
			if h.has[i] == nil && !h.resting && h.giving < maxGiving {
				h.giving++
				s.give(e, h, i)
			}
			held[i] = held[i] || h.has[i] != nil && h.has[i].given
		}
	}
	// By what the workers have, not by socket: 500 workers have no more holdings than 20 have.
	for _, h := range e.shards.hands {
		for i, c := range h.has {
			if held[i] && c.given && !h.leaving && !slices.Contains(want[i], h) {
				s.take(e, h, i)
			}
		}
	}
}

// countGiving counts the sockets that are on their way to the worker.
func (h *hand) countGiving() {
	h.giving = 0
	for _, c := range h.has {
		if !c.given {
			h.giving++
		}
	}
}

// give sends the i-th socket.
func (s *Shards) give(e *entry, h *hand, i int) {
	w := &wire.Message{Cmd: wire.CmdCluster, Act: wire.ActShard, Key: e.key, Index: i, Seq: wire.NextSeq()}
	c := &holding{seq: *w.Seq}
	h.has[i] = c
	inner := w.Line()
	outer := &wire.Message{Cmd: wire.CmdHandle, Type: wire.TypeNative, Msg: inner[:len(inner)-1]}
	h.member.AskHandleLine(outer.Line(), *w.Seq, e.sockets[i].Retain(), func(w *wire.Message, d *handle.Handle) {
		d.Release()
		taken := w != nil && w.Accepted != nil && *w.Accepted
		// A channel that has closed answers at once: here, in the mailbox.
		go s.r.host.Turn(func() { s.answered(e, h, i, c, taken) })
	})
}

// answered notes whether the worker has taken the i-th socket.
func (s *Shards) answered(e *entry, h *hand, i int, c *holding, taken bool) {
	if s.r.entries[e.key] != e || h.has[i] != c {
		return
	}
	now := e.shards.hands[h.member]
	if now != h { // the worker has closed its listener since, and may have opened another one
		if taken && (now == nil || now.has[i] == nil) {
			s.take(e, h, i)
		}
		return
	}
	if c.given = taken; !taken {
		delete(h.has, i)
		h.resting = true
		time.AfterFunc(restTime, func() {
			s.r.host.Turn(func() {
				h.resting = false
				s.settleAll()
			})
		})
	}
	s.settleSoon(e)
}

// settleSoon settles e in a turn of its own, once for all the answers that wait until then.
// Each of 500 workers that start changes what the others are to have, and so there are many.
func (s *Shards) settleSoon(e *entry) {
	if e.shards.due {
		return
	}
	e.shards.due = true
	go s.r.host.Turn(func() {
		e.shards.due = false
		if s.r.entries[e.key] == e {
			s.settle(e)
		}
	})
}

// take takes the i-th socket back.
func (s *Shards) take(e *entry, h *hand, i int) {
	delete(h.has, i)
	h.member.Answer((&wire.Message{Cmd: wire.CmdCluster, Act: wire.ActUnshard, Key: e.key, Index: i, Seq: wire.NextSeq()}).Line())
}

// each calls fn with the hands of m, and settles what has changed.
func (s *Shards) each(m Member, fn func(h *hand)) {
	for _, e := range s.r.entries {
		if e.shards != nil && e.shards.hands[m] != nil {
			fn(e.shards.hands[m])
			s.settle(e)
		}
	}
}

func (s *Shards) settleAll() {
	for _, e := range s.r.entries {
		if e.shards != nil {
			s.settle(e)
		}
	}
}

// ---- what the workers do; called in the mailbox

// Accepts notes that m accepts on the address from now on.
func (s *Shards) Accepts(m Member, key string) {
	e := s.r.entries[key]
	if e == nil || e.shards == nil || e.shards.hands[m] == nil {
		return
	}
	e.shards.hands[m].accepts = true
	s.settle(e)
}

// NoRoom notes that m has as many connections as it may have.
func (s *Shards) NoRoom(m Member) { s.each(m, func(h *hand) { h.full = true }) }

// Beat notes that m has answered a heartbeat.
func (s *Shards) Beat(m Member) { s.each(m, func(h *hand) { h.beat() }) }

// Scaled sets how many slots there are from now on.
func (s *Shards) Scaled(slots int) {
	s.slots = slots
	s.settleAll()
}

// join gives m a part in e. It gets its share when it accepts.
func (s *Shards) join(e *entry, m Member) {
	s.slots = max(s.slots, m.Slot()+1)
	e.shards.hands[m] = &hand{watched: watched{member: m, has: make(map[int]*holding)}}
}

// part takes away m's part in e.
func (s *Shards) part(e *entry, m Member) {
	if e.shards != nil && e.shards.hands[m] != nil {
		delete(e.shards.hands, m)
		s.settle(e)
	}
}
