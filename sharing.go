package cluster

import (
	"fmt"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/share"
	"github.com/go-cluster/cluster/internal/wire"
)

// What package share is told of this process: in the master who the workers are,
// in a worker where its questions go.

// member is a worker as the registry of the master knows it. The pointer stands
// for the Process: there is one for each.
type member Process

var _ share.Member = (*member)(nil)

func (p *member) Leaving() bool { return (*Process)(p).State() >= Draining }

func (p *member) Grants(key string) bool {
	return !p.Leaving() && p.connected.Load() && p.link.Grants(key)
}

func (p *member) Took() { p.child.counted(int(p.child.handed.Add(1))) }

func (p *member) Generation() int { return p.child.gen.number }

func (p *member) Answer(line []byte) { p.link.Answer(line) }

func (p *member) SendHandle(typ string, m *wire.Message, h *handle.Handle) {
	p.link.SendHandle(typ, m, h)
}

func (p *member) AskHandleLine(line []byte, seq int64, h *handle.Handle, answered func(*wire.Message, *handle.Handle)) {
	p.link.AskHandleLine(line, seq, h, answered)
}

// query answers a worker's queryServer, on a goroutine of its own.
func (m *master) query(p *Process, w *wire.Message) {
	terms := share.Terms{Policy: share.Policy(p.child.opts.Scheduling)}
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
		WhoOpens: whoOpens,
	})
}

// logUnusedSockets names the sockets of the service manager that nobody has asked
// for: most likely the unit and the program disagree about an address.
func (m *master) logUnusedSockets() {
	for _, s := range m.registry.Unused() {
		m.log().Warn("cluster: a socket of the service manager is not used", "fd", s.FD, "address", s.Addr)
	}
}
