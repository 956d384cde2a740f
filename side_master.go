package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/link"
	"github.com/go-cluster/cluster/internal/share"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/supervise"
	"github.com/go-cluster/cluster/internal/wire"
)

// masterSide is what the master does with the internal messages of one worker.
// The reader calls it; what changes the state it passes to the mailbox and
// waits, so that the events keep the order of the messages.
type masterSide struct {
	m    *master
	p    *Process
	over sync.Once // overrun
}

func (s *masterSide) Internal(w *wire.Message, h *handle.Handle) {
	m, p := s.m, s.p
	if h != nil {
		h.Release()
		p.link.Fault("a descriptor came with %q; closed", w.Act)
	}
	switch w.Act {
	case wire.ActOnline:
		s.online(w)
	case wire.ActQuery:
		s.query(w)
	case wire.ActListening:
		addr, err := share.Reported(w)
		if err != nil {
			p.link.Fault("%w", err)
			return
		}
		p.link.Listens()
		m.call(func() {
			if !p.child.opts.ManualReady {
				p.child.happened(supervise.GetsReady) // which it is when the callbacks look
			}
			p.emitListening(addr)
		})
	case wire.ActClose:
		stays := p.link.Closes(w.Key)
		m.call(func() { m.registry.Close((*member)(p), w.Key, stays) })
	case wire.ActVoluntary:
		m.call(func() {
			p.child.happened(supervise.EndsByItself)
			p.link.WorkerEnds(&wire.Message{Cmd: wire.CmdCluster, Ack: w.Seq, Seq: wire.NextSeq()})
		})
	case wire.ActReady:
		m.call(func() { p.child.happened(supervise.GetsReady) })
	case wire.ActPong:
		s.beat(w.Msg)
	case wire.ActFull:
		m.call(func() { p.child.happened(supervise.IsFull) })
	case wire.ActDraining:
		m.call(func() { p.child.happened(supervise.DrainsByItself) })
	}
}

// online may come when the worker is being drained already: what it understands
// counts for that as well.
func (s *masterSide) online(w *wire.Message) {
	kind := link.PeerNode
	if w.Go != nil && w.Go.Version >= wire.ProtocolVersion {
		kind = link.PeerGo
	}
	s.m.call(func() { s.p.child.happened(supervise.ComesOnline) })
	s.p.link.SetPeer(kind)
}

// maxQueries bounds the addresses that one worker asks for at a time: each has
// a goroutine, and AllowListen may block.
const maxQueries = 256

func (s *masterSide) query(w *wire.Message) {
	if s.p.child.queries.Add(1) > maxQueries {
		s.p.child.queries.Add(-1)
		s.p.link.Fault("asks for more than %d addresses at once; refused", maxQueries)
		s.m.registry.Refuse((*member)(s.p), w, socket.Again, "too many requests at once")
		return
	}
	// Not on the reader: AllowListen may ask this very worker something.
	go func() {
		defer s.p.child.queries.Add(-1)
		s.m.query(s.p, w)
	}()
}

func (s *masterSide) Closed() { s.m.call(func() { s.p.child.happened(supervise.ClosesItsChannel) }) }

func (s *masterSide) Overrun() {
	s.over.Do(func() {
		s.p.report(fmt.Errorf("cluster: worker %d asks and does not read the answers; it is killed: %w", s.p.id, ErrBacklog))
		s.m.post(func() { s.p.child.proc.Signal(os.Kill) })
	})
}

// beat is the worker's answer to a ping.
func (s *masterSide) beat(raw json.RawMessage) {
	var p supervise.Pulse
	if err := json.Unmarshal(raw, &p); err != nil {
		s.p.accuse(fmt.Errorf("cluster: worker %d: bad heartbeat: %w", s.p.id, err))
		return
	}
	s.m.call(func() { s.m.supervisor.Beat(time.Now(), s.p.id, p) })
}
