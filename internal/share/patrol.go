package share

import (
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/socket"
)

// patrol finds the workers that hang, and those that go on. A worker hangs if a queue of
// its own was not empty at two looks, lookTime apart, and it has accepted nothing between
// them, by the page of package gauge. There are looks only while there are connections: the
// first one after a rest is told by a socket.Traffic.
//
// A look wakes one thread of this process, once, whatever the load: it is made on the
// patrol's own goroutine, of a picture of who has which socket. The mailbox, whose
// goroutine would have to be woken as well, draws the picture when it has changed, and
// decides when a look has found something.
type patrol struct {
	s       *Shards
	traffic *socket.Traffic
	stale   atomic.Bool // the picture is of before

	sights []*sight       // the picture: the workers of all addresses
	places map[int]*place // and the sockets, by the descriptor
}

// sight is a worker in the picture of a patrol.
type sight struct {
	*hand
	e              *entry
	hung, stubborn bool
	moved          bool // it has accepted something since the last look
}

// place is a socket in that.
type place struct {
	e       *entry
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

// finding is that a worker leaves what waits at the i-th socket, or has accepted something
// again.
type finding struct {
	*sight
	*holding // nil for the latter
	i        int
}

// lookTime is between two looks at what waits.
const lookTime = 100 * time.Millisecond

// begin watches the sockets of e.
func (s *Shards) begin(e *entry) error {
	if s.patrol == nil {
		t, err := socket.NewTraffic()
		if err != nil {
			return err
		}
		s.patrol = &patrol{s: s, traffic: t}
		go s.patrol.walk()
	}
	e.shards = &shards{hands: make(map[Member]*hand)}
	s.patrol.stale.Store(true)
	for _, h := range e.sockets {
		if err := s.patrol.traffic.Add(h); err != nil {
			return err
		}
	}
	return nil
}

// end watches them no more. It comes before they are released.
func (s *Shards) end(e *entry) {
	if s.patrol == nil {
		return
	}
	s.patrol.stale.Store(true)
	left := 0
	for _, h := range e.sockets {
		left = s.patrol.traffic.Remove(h)
	}
	if left == 0 {
		s.patrol.traffic.Close()
		s.patrol = nil
	}
}

// walk looks at what waits, while there is traffic.
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

// draw makes the picture of what is now. What was seen of a socket before stays with it. It
// runs in the mailbox.
func (p *patrol) draw() {
	before := p.places
	p.sights, p.places = nil, make(map[int]*place)
	if p.s.patrol != p {
		return // it has ended
	}
	for _, e := range p.s.r.entries {
		if e.shards == nil {
			continue
		}
		for i, sock := range e.sockets {
			p.places[sock.FD()] = &place{e: e, i: i}
			if b := before[sock.FD()]; b != nil && b.e == e {
				p.places[sock.FD()].queued = b.queued
			}
		}
		for _, h := range e.shards.hands {
			if !h.accepts {
				continue
			}
			s := &sight{hand: h, e: e, hung: h.hung, stubborn: h.stubborn}
			p.sights = append(p.sights, s)
			for i, c := range h.has {
				at := p.places[e.sockets[i].FD()]
				at.owners = append(at.owners, owner{s, c})
			}
		}
	}
}

// look reports whether there was any traffic since the last look, and what it has found.
func (p *patrol) look() (busy bool, found []finding) {
	for _, s := range p.sights {
		load, _ := s.member.Load()
		s.moved = load.Accepted != s.accepted
		s.accepted = load.Accepted
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

// judge goes by what a patrol has found, if it is still so. It runs in the mailbox.
func (s *Shards) judge(all []finding) {
	changed := make(map[*entry]bool)
	for _, f := range all {
		h := f.hand
		if s.r.entries[f.e.key] != f.e || f.e.shards.hands[h.member] != h {
			continue
		}
		switch {
		case f.holding == nil:
			h.hung, h.stubborn = false, false
		case h.has[f.i] == f.holding:
			h.hung = true
		}
		changed[f.e] = true
	}
	for e := range changed {
		s.settle(e)
	}
}
