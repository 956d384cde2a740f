package share

import (
	"fmt"
	"maps"
	"slices"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// The state of the groups of package flow, with which another program of this process goes on
// after an upgrade. As with shards, the kernel keeps a group and the program that chooses its
// sockets for as long as a process has them.

// FlowGroupState is one group. Workers are told by their numbers; -1 is nobody.
type FlowGroupState struct {
	Query        Query
	Addr         Addr
	Sockets      []int
	Shares       int
	Tag          socket.FlowTag
	Reset, Token [32]byte
	Members      []FlowMemberState
	Readers      []int
	Leases, Free []int
	Generation   int
	Slotted      bool
}

// FlowMemberState is a worker in a group.
type FlowMemberState struct {
	Worker, Own int
	Given       []int
	Takes, Full bool
	Hung        bool
	Stubborn    bool
	Told        []int
}

// state returns f as data. A group that is being opened is left out: the worker that asked for
// it asks again.
func (f *FlowGroups) state(number func(Member) int) (all []FlowGroupState) {
	for _, g := range f.groups {
		if g.flows == nil {
			continue
		}
		s := FlowGroupState{Query: g.query, Addr: AddrOf(g.flows.Addr), Shares: g.flows.Shares, Tag: g.tag, Reset: g.reset, Token: g.token,
			Free: g.free, Generation: g.generation, Slotted: g.slotted}
		for _, h := range g.flows.Sockets {
			s.Sockets = append(s.Sockets, h.FD())
		}
		for _, one := range g.members {
			s.Members = append(s.Members, FlowMemberState{Worker: number(one.Member), Own: one.own, Given: slices.Sorted(maps.Keys(one.given)),
				Takes: one.takes, Full: one.full, Hung: one.hung, Stubborn: one.stubborn, Told: one.told})
		}
		for _, one := range g.readers {
			reader := -1
			if one != nil {
				reader = number(one.Member)
			}
			s.Readers = append(s.Readers, reader)
		}
		for _, m := range g.leases {
			lessee := -1
			if m != nil {
				lessee = number(m)
			}
			s.Leases = append(s.Leases, lessee)
		}
		all = append(all, s)
	}
	return all
}

// restore makes the groups of a state. A group that the old program itself held open is held
// again when main asks for it.
func (f *FlowGroups) restore(all []FlowGroupState, taken handle.Taken, member func(int) Member) error {
	for _, s := range all {
		addr, err := s.Addr.Net()
		if err != nil {
			return fmt.Errorf("the address %s: %w", s.Addr.Address, err)
		}
		var sockets []*handle.Handle
		for _, fd := range s.Sockets {
			sockets = append(sockets, taken.Take(fd))
		}
		g := &flowGroup{key: flowKey(s.Query), query: s.Query, opened: make(chan struct{}),
			tag: s.Tag, reset: s.Reset, token: s.Token, free: s.Free, generation: s.Generation, slotted: s.Slotted}
		if err := f.begin(g, socket.RestoreFlows(s.Query.Address, addr, sockets, s.Shares)); err != nil {
			return fmt.Errorf("the address %s: %w", s.Addr.Address, err)
		}
		close(g.opened)
		f.groups[g.key] = g
		for _, ms := range s.Members {
			m := member(ms.Worker)
			if m == nil {
				continue
			}
			one := newFlowMember(m, ms.Own)
			one.takes, one.full, one.hung, one.stubborn = ms.Takes, ms.Full, ms.Hung, ms.Stubborn
			if ms.Told != nil {
				one.tell(ms.Told)
			}
			for _, i := range ms.Given {
				one.given[i] = true
			}
			g.members = append(g.members, one)
			for i, reader := range s.Readers[:min(len(s.Readers), s.Shares)] {
				if reader == ms.Worker {
					g.readers[i] = one
				}
			}
		}
		for _, lessee := range s.Leases {
			var m Member
			if lessee >= 0 {
				m = member(lessee)
			}
			g.leases = append(g.leases, m)
		}
		f.deal(g)
	}
	return nil
}
