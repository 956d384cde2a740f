package share

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// State is a Registry as data, with which another program of this process goes on after an
// upgrade. It has the numbers of descriptors, which stay the registry's.
type State struct {
	Made      int
	Slots     int // of the workers, as far as sockets change hands
	Entries   []EntryState
	Preopened []PreopenedState
	Flows     []FlowGroupState
}

// EntryState is one address.
type EntryState struct {
	Query      Query
	Data       json.RawMessage
	Sockets    []int
	Addr       Addr
	File       *socket.UnixFile // that is removed at the end
	Lent       bool
	Holders    []int // workers
	Pending    []int // connections that were accepted and not handed over
	Generation int
	Nth        int
	Granted    bool
	Slotted    bool
	Lack       string      // why it is not spread as it was asked for
	Hands      []HandState // if its sockets change hands
	Foreign    bool
	Stored     string
}

// PreopenedState is a socket that the program opened itself, before it forked.
type PreopenedState struct {
	Address socket.Address
	Real    Addr
	FD      int
}

// Addr is an address as data.
type Addr struct{ Network, Address string }

// AddrOf returns a as data.
func AddrOf(a net.Addr) Addr { return Addr{a.Network(), a.String()} }

// Net returns the address as a type of package net.
func (a Addr) Net() (net.Addr, error) {
	switch a.Network {
	case "tcp":
		return net.ResolveTCPAddr(a.Network, a.Address)
	case "udp":
		return net.ResolveUDPAddr(a.Network, a.Address)
	}
	return net.ResolveUnixAddr(a.Network, a.Address)
}

// StateOf returns r as data. number returns the number of a worker. StateOf is called in the
// mailbox, while nothing is accepted.
func StateOf(r *Registry, number func(Member) int) (s State) {
	s.Made, s.Slots = r.made, r.Shards.slots
	for _, e := range r.entries {
		if len(e.sockets) == 0 {
			continue // it is being opened by somebody who will open it again
		}
		es := EntryState{Query: e.query, Data: e.data, Addr: AddrOf(e.addr), File: e.file, Generation: e.generation, Nth: e.nth, Granted: e.granted, Slotted: e.slotted, Lack: e.lack, Foreign: e.foreign, Stored: e.stored}
		if e.shards != nil {
			es.Hands = e.shards.state(number)
		}
		for _, h := range e.sockets {
			es.Sockets = append(es.Sockets, h.FD())
		}
		for m := range e.holders {
			es.Holders = append(es.Holders, number(m))
		}
		if d := e.dispatcher; d != nil {
			es.Lent = d.lent
			d.mu.Lock()
			for _, h := range d.pending {
				es.Pending = append(es.Pending, h.FD())
			}
			d.mu.Unlock()
		}
		if e.owned && e.query.IsUnix() {
			es.File = e.query.Address.File()
		}
		s.Entries = append(s.Entries, es)
	}
	s.Flows = r.Flows.state(number)
	p := &r.preopened
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.list {
		if rc, err := one.conn.SyscallConn(); err == nil {
			rc.Control(func(fd uintptr) {
				s.Preopened = append(s.Preopened, PreopenedState{one.Address, AddrOf(one.real), int(fd)})
			})
		}
	}
	return s
}

// Descriptors returns all descriptors that s names.
func (s *State) Descriptors() (fds []int) {
	for _, e := range s.Entries {
		fds = append(append(fds, e.Sockets...), e.Pending...)
	}
	for _, p := range s.Preopened {
		fds = append(fds, p.FD)
	}
	for _, g := range s.Flows {
		fds = append(fds, g.Sockets...)
	}
	return fds
}

// Inherited has the sockets of a State until its registry is restored. What the program listens
// on before that is taken from them.
type Inherited struct {
	State   State
	claimed map[int]bool // places of Preopened
}

// Claim returns a new handle of the socket for q, and its real address. It returns nil if there
// is none, and the socket has to be opened.
func (i *Inherited) Claim(q Query) (*handle.Handle, net.Addr) {
	q.Locate() // without it the path stands for itself
	if i.claimed == nil {
		i.claimed = make(map[int]bool)
	}
	for n, p := range i.State.Preopened {
		s := preopenedSocket{Address: p.Address}
		s.real, _ = p.Real.Net()
		if s.real == nil || i.claimed[n] || s.Network != q.Network || s.Place() != q.Place() && !s.samePort(q.Address) {
			continue
		}
		if h, err := socket.DuplicateFD(p.FD); err == nil {
			i.claimed[n] = true
			return h, s.real
		}
	}
	for _, e := range i.State.Entries {
		if e.Query.Key() != q.Key() { // it has a socket at least
			continue
		}
		addr, err := e.Addr.Net()
		if err != nil {
			continue
		}
		if h, err := socket.DuplicateFD(e.Sockets[0]); err == nil {
			return h, addr
		}
	}
	return nil, nil
}

// Shares reports whether workers listen on q as well.
func (i *Inherited) Shares(q Query) bool {
	q.Locate()
	return slices.ContainsFunc(i.State.Entries, func(e EntryState) bool { return e.Query.Key() == q.Key() })
}

// Restore fills r, which is empty, with the addresses of a state, and takes over its
// descriptors. It is called in the mailbox; member returns a worker by its number, or nil.
func Restore(r *Registry, s State, taken handle.Taken, member func(int) Member) error {
	r.made, r.Shards.slots = s.Made, s.Slots
	for _, es := range s.Entries {
		e := &entry{key: es.Query.Key(), query: es.Query, data: es.Data, opened: make(chan struct{}), holders: make(map[Member]struct{}),
			file: es.File, generation: es.Generation, nth: es.Nth, granted: es.Granted, slotted: es.Slotted, lack: es.Lack, foreign: es.Foreign, stored: es.Stored}
		close(e.opened)
		addr, err := es.Addr.Net()
		if err != nil {
			return fmt.Errorf("the address %s: %w", es.Addr.Address, err)
		}
		e.addr, e.unlink = addr, es.File.Unlink
		for _, fd := range es.Sockets {
			e.sockets = append(e.sockets, taken.Take(fd).CloseBy(r.closer.Close))
		}
		if p := policyOf(e.query); p != nil {
			if e.dispatcher, err = newDispatcher(e.key, e.sockets, es.Lent, p, closeConn(&r.closer, e.addr), r.exhausted); err != nil {
				return fmt.Errorf("the address %s: %w", es.Addr.Address, err)
			}
			for _, fd := range es.Pending {
				e.dispatcher.pending = append(e.dispatcher.pending, taken.Take(fd).CloseBy(closeConn(&r.closer, e.addr)))
			}
		}
		r.entries[e.key] = e
		r.tend(e)
		for _, id := range es.Holders {
			m := member(id)
			if m == nil {
				continue
			}
			e.holders[m] = struct{}{}
			if e.dispatcher != nil && !m.Leaving() {
				e.dispatcher.add(m)
			}
		}
		if e.query.Policy.sharded() || e.ofBothFamilies() {
			if err := r.Shards.restore(e, es.Hands, member); err != nil {
				return fmt.Errorf("the address %s: %w", es.Addr.Address, err)
			}
		}
	}
	r.activated.claimAll(r.entries)
	if err := r.Flows.restore(s.Flows, taken, member); err != nil {
		return err
	}
	r.preopened.mu.Lock()
	defer r.preopened.mu.Unlock()
	for i := range r.preopened.list {
		own := &r.preopened.list[i]
		q := Query{Address: own.Address}
		own.used = own.used || r.entries[q.Key()] != nil
	}
	for _, p := range s.Preopened {
		taken.Take(p.FD).Release() // who has claimed it has a duplicate
	}
	return nil
}
