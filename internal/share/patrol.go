package share

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// patrol finds workers that hang, and those that go on again. It is for sharded addresses, and
// for the shares of groups of package flow. A worker hangs if one of its queues was not empty
// at two looks, lookTime apart, and between them it has accepted or read nothing, by the page
// of package gauge. The patrol looks only while there are connections. After a rest a
// socket.Traffic tells of the first one.
//
// A look wakes one thread of this process, once, whatever the load. It is made on the patrol's
// own goroutine, with a picture of which worker has which socket. The mailbox would be another
// goroutine to wake. So the mailbox only draws the picture when something has changed, and
// decides when a look has found something.
type patrol struct {
	s       *Shards
	traffic *socket.Traffic
	stale   atomic.Bool // the picture is of before

	sights []*sight       // the picture: the workers of all addresses
	places map[int]*place // and the sockets, by the descriptor
}

// watched is a worker at an address, as a patrol sees it. Its fields belong to the mailbox,
// except done.
type watched struct {
	member   Member
	hung     bool
	stubborn bool // it has been called back from that by a heartbeat alone
	has      map[int]*holding

	done int64 // connections and reads, at the last look
}

// sight is a worker in the picture of a patrol.
type sight struct {
	*watched
	at             any // *entry or *flowGroup
	hung, stubborn bool
	moved          bool // it has accepted or read something since the last look
}

// place is a socket in that.
type place struct {
	at      any
	i       int
	owners  []owner
	queued  bool // connections waited at the last look
	waiting bool // and wait at this one
}

// owner is a worker that has a socket.
type owner struct {
	*sight
	*holding
}

// finding says that a worker hangs, since connections wait at its i-th socket, or that a worker
// goes on, since it has accepted or read something.
type finding struct {
	*sight
	*holding // nil for the latter
	i        int
}

// lookTime is the time between two looks.
const lookTime = 100 * time.Millisecond

// begin watches the sockets of e.
func (s *Shards) begin(e *entry) error {
	e.shards = &shards{hands: make(map[Member]*hand), all: e.ofBothFamilies()}
	if e.shards.all {
		return nil // who hangs does not matter: the others read the same sockets
	}
	// Were the number of slots to grow with each worker that starts, all sockets would get
	// another home each time. An address that is open already has the number of a Scale.
	if !slices.ContainsFunc(slices.Collect(maps.Values(s.r.entries)), func(o *entry) bool { return o != e && o.shards != nil }) {
		s.slots = max(s.slots, e.query.Workers)
	}
	return s.watch(e.sockets)
}

// watch makes a patrol look at the sockets.
func (s *Shards) watch(sockets []*handle.Handle) error {
	if s.patrol == nil {
		t, err := socket.NewTraffic()
		if err != nil {
			return err
		}
		s.patrol = &patrol{s: s, traffic: t}
		go s.patrol.walk()
	}
	s.redraw()
	for _, h := range sockets {
		if err := s.patrol.traffic.Add(h); err != nil {
			return err
		}
	}
	return nil
}

// redraw says that the picture has changed.
func (s *Shards) redraw() {
	if s.patrol != nil {
		s.patrol.stale.Store(true)
	}
}

// unwatch ends the watch of the sockets. It must be called before they are released.
func (s *Shards) unwatch(sockets []*handle.Handle) {
	if s.patrol == nil {
		return
	}
	s.redraw()
	left := 0
	for _, h := range sockets {
		left = s.patrol.traffic.Remove(h)
	}
	if left == 0 {
		s.patrol.traffic.Close()
		s.patrol = nil
	}
}

// walk looks at the sockets, while there is traffic.
func (p *patrol) walk() {
	for p.traffic.Wait() {
		if p.stale.Swap(false) {
			p.s.r.host.Turn(p.draw)
		}
		busy, found := p.look()
		if len(found) > 0 {
			p.s.r.host.Turn(func() { p.s.judge(found) })
		}
		if busy {
			p.traffic.After(lookTime)
		} else {
			p.traffic.Rest()
		}
	}
}

// draw makes the picture anew. What was seen of a socket stays with the socket. It runs in the
// mailbox.
func (p *patrol) draw() {
	before := p.places
	p.sights, p.places = nil, make(map[int]*place)
	if p.s.patrol != p {
		return // it has ended
	}
	for _, e := range p.s.r.entries {
		if e.shards == nil || e.shards.all {
			continue
		}
		p.drawSockets(e, e.sockets, before)
		for _, h := range e.shards.hands {
			if h.accepts {
				p.drawWorker(e, e.sockets, &h.watched)
			}
		}
	}
	for _, g := range p.s.r.Flows.groups {
		if g.flows == nil {
			continue
		}
		p.drawSockets(g, g.shares(), before)
		for _, one := range g.members {
			if one.takes {
				p.drawWorker(g, g.shares(), &one.watched)
			}
		}
	}
}

func (p *patrol) drawSockets(at any, sockets []*handle.Handle, before map[int]*place) {
	for i, sock := range sockets {
		p.places[sock.FD()] = &place{at: at, i: i}
		if b := before[sock.FD()]; b != nil && b.at == at {
			p.places[sock.FD()].queued = b.queued
		}
	}
}

func (p *patrol) drawWorker(at any, sockets []*handle.Handle, w *watched) {
	s := &sight{watched: w, at: at, hung: w.hung, stubborn: w.stubborn}
	p.sights = append(p.sights, s)
	for i, c := range w.has {
		where := p.places[sockets[i].FD()]
		where.owners = append(where.owners, owner{s, c})
	}
}

// look reports whether there was any traffic since the last look, and what it has found.
func (p *patrol) look() (busy bool, found []finding) {
	for _, s := range p.sights {
		load, _ := s.member.Load()
		s.moved = load.Accepted+load.Received != s.done
		s.done = load.Accepted + load.Received
		busy = busy || s.moved
		if s.moved && (s.hung || s.stubborn) {
			found = append(found, finding{sight: s})
		}
	}
	p.traffic.Waiting(func(fd int) {
		if at := p.places[fd]; at != nil {
			at.waiting, busy = true, true
		}
	})
	for _, at := range p.places {
		for _, o := range at.owners {
			if at.queued && at.waiting && o.seen && !o.moved && !o.hung {
				found = append(found, finding{o.sight, o.holding, at.i})
			}
			o.seen = true
		}
		at.queued, at.waiting = at.waiting, false
	}
	return busy, found
}

// judge acts on what a patrol has found, if it still holds. It runs in the mailbox.
func (s *Shards) judge(all []finding) {
	changed := make(map[any]bool)
	for _, f := range all {
		w := f.watched
		if s.watchedAt(f.at, w.member) != w {
			continue
		}
		switch {
		case f.holding == nil:
			w.hung, w.stubborn = false, false
		case w.has[f.i] == f.holding:
			w.hung = true
		}
		changed[f.at] = true
	}
	for at := range changed {
		switch at := at.(type) {
		case *entry:
			s.settle(at)
		case *flowGroup:
			s.r.Flows.deal(at)
		}
	}
}

// watchedAt returns the watched of m at an address, or nil.
func (s *Shards) watchedAt(at any, m Member) *watched {
	switch at := at.(type) {
	case *entry:
		if h := at.shards.hands[m]; h != nil && s.r.entries[at.key] == at {
			return &h.watched
		}
	case *flowGroup:
		if one := at.member(m); one != nil && s.r.Flows.groups[at.key] == at {
			return &one.watched
		}
	}
	return nil
}

// beat notes that w has answered a heartbeat, and reports whether that changes anything. A
// worker that hangs is called back by a heartbeat only once: it may answer heartbeats and
// accept nothing.
func (w *watched) beat() bool {
	if !w.hung || w.stubborn {
		return false
	}
	w.hung, w.stubborn = false, true
	return true
}
