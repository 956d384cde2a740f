package share

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// FlowPlace is a worker's place in a group of UDP sockets.
type FlowPlace struct {
	asker *Asker
	query Query
	key   string
	addr  net.Addr
	flow  wire.Flow
	tag   [4]byte
	reset [32]byte
	token [32]byte

	mu     sync.Mutex // orders the calls of read
	read   func(shares []int)
	told   []int // by the master; nil before it has
	closed bool
	spare  map[int]*handle.Handle // sockets that have come, and that no descriptor was free for
}

// JoinFlows asks the master for a place in the group of q's address. In a drain, and when
// the channel has closed, it waits as [Asker.Ask] does.
func (a *Asker) JoinFlows(ctx context.Context, q Query) (*FlowPlace, error) {
	if !a.worker.Go {
		return nil, ListenError(q.Address, fmt.Errorf("a node primary has no sockets for this: %w", errs.NotSupported), "")
	}
	a.takeIndex(&q.Address)
	m := q.message()
	m.Go.Flow = new(wire.Flow)
	type reply struct {
		p   *FlowPlace
		err error
	}
	replied := make(chan reply, 1)
	a.worker.Link.Ask(m, func(w *wire.Message, h *handle.Handle) {
		h.Release()
		if w == nil {
			return // the channel is closed, and this worker is at its end, as in a drain
		}
		p, err := a.placed(q, w) // on the reader: the shares may come next
		replied <- reply{p, err}
	})
	select {
	case r := <-replied:
		if r.err != nil {
			a.dropIndex(q.Address)
		}
		return r.p, r.err
	case <-ctx.Done():
		go func() { // the place may still come
			if r := <-replied; r.err == nil {
				r.p.Close()
			} else {
				a.dropIndex(q.Address)
			}
		}()
		return nil, ListenError(q.Address, ctx.Err(), "")
	}
}

// placed reads the master's answer. From then on messages for the place reach it.
func (a *Asker) placed(q Query, w *wire.Message) (*FlowPlace, error) {
	if w.Errno != nil && *w.Errno != 0 {
		err := a.refused(q, w)
		if errors.Is(err, syscall.EOPNOTSUPP) {
			err = unsupported{err}
		}
		return nil, err
	}
	p := &FlowPlace{asker: a, query: q, key: w.Key, spare: make(map[int]*handle.Handle)}
	if w.Go != nil && w.Go.Flow != nil {
		p.flow = *w.Go.Flow
	}
	if copy(p.tag[:], p.flow.Tag) < len(p.tag) || copy(p.reset[:], p.flow.Reset) < len(p.reset) || copy(p.token[:], p.flow.Token) < len(p.token) || w.Sockname == nil {
		a.close(w.Key)
		return nil, ListenError(q.Address, fmt.Errorf("a group of sockets that this version does not know: %w", errs.NotSupported), "")
	}
	ip, err := netip.ParseAddr(w.Sockname.Address)
	if err != nil {
		a.close(w.Key)
		return nil, ListenError(q.Address, err, "")
	}
	p.addr = q.Shown(net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, uint16(w.Sockname.Port))))
	a.mu.Lock()
	a.places[p.key] = p
	a.mu.Unlock()
	return p, nil
}

// unsupported is an error of the system for which errors.Is finds errs.NotSupported too.
type unsupported struct{ error }

func (u unsupported) Unwrap() []error { return []error{u.error, errs.NotSupported} }

// Shares takes the master's word which shares this worker is to read.
func (a *Asker) Shares(w *wire.Message) {
	a.mu.Lock()
	p := a.places[w.Key]
	a.mu.Unlock()
	if p == nil || w.Go == nil || w.Go.Flow == nil {
		return
	}
	p.mu.Lock()
	p.told = append([]int{}, w.Go.Flow.Read...)
	p.mu.Unlock()
	p.apply()
}

// applyPlaces calls apply for all places.
func (a *Asker) applyPlaces() {
	a.mu.Lock()
	all := slices.Collect(maps.Values(a.places))
	a.mu.Unlock()
	for _, p := range all {
		p.apply()
	}
}

// apply calls read with the shares that are to be read now: those that the master has said, or
// none while this worker is full. If the worker stays full for a moment, the master is told,
// and others read its shares.
func (p *FlowPlace) apply() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.read == nil || p.told == nil || p.closed || p.asker.worker.Draining() {
		return
	}
	if !p.Full() {
		p.read(p.told)
		return
	}
	p.read([]int{})
	time.AfterFunc(fullTime, p.asker.sayFull)
}

// Full reports whether this worker has as many connections as it may.
func (p *FlowPlace) Full() bool { return p.asker.worker.Places.Full() }

// Room returns how many more connections it may have: see [Places].
func (p *FlowPlace) Room() (places int, bounded bool) { return p.asker.worker.Places.Room() }

// Received counts a read of a share.
func (p *FlowPlace) Received() { p.asker.worker.Received() }

// Connects takes a place for a connection: see [Places].
func (p *FlowPlace) Connects() (accepted, ended func()) { return p.asker.worker.Places.Connects() }

// Addr is the address of the group.
func (p *FlowPlace) Addr() net.Addr { return p.addr }

// ID is the tag of the group, and how many sockets of other workers are before this
// worker's own.
func (p *FlowPlace) ID() (tag [4]byte, cookie int) { return p.tag, p.flow.Own - p.flow.Shares }

// Keys are the group's, for stateless resets and for tokens.
func (p *FlowPlace) Keys() (reset, token [32]byte) { return p.reset, p.token }

// Own asks for the socket of this worker.
func (p *FlowPlace) Own(ctx context.Context) (*net.UDPConn, error) { return p.socket(ctx, p.flow.Own) }

// Share asks for the socket of a share. It may be called again after an error.
func (p *FlowPlace) Share(ctx context.Context, index int) (*net.UDPConn, error) {
	return p.socket(ctx, index)
}

func (p *FlowPlace) socket(ctx context.Context, index int) (*net.UDPConn, error) {
	p.mu.Lock()
	h := p.spare[index]
	delete(p.spare, index)
	p.mu.Unlock()
	if h != nil {
		return p.open(index, h)
	}
	type reply struct {
		w *wire.Message
		h *handle.Handle
	}
	replied := make(chan reply, 1)
	p.asker.worker.Link.Ask(&wire.Message{Act: wire.ActSocket, Key: p.key, Index: index, Data: null},
		func(w *wire.Message, h *handle.Handle) { replied <- reply{w, h} })
	select {
	case r := <-replied:
		if r.w == nil {
			return nil, ListenError(p.query.Address, errs.Closed, "")
		}
		if r.w.Errno != nil && *r.w.Errno != 0 {
			r.h.Release()
			return nil, p.asker.refused(p.query, r.w)
		}
		if r.h == nil {
			return nil, ListenError(p.query.Address, errs.NotSupported, "the master sent no socket")
		}
		return p.open(index, r.h)
	case <-ctx.Done():
		go func() { r := <-replied; r.h.Release() }()
		return nil, ListenError(p.query.Address, ctx.Err(), "")
	}
}

// open makes a conn of the socket h, which it takes over. After an error the next call for
// the socket has h: the master sends it once.
func (p *FlowPlace) open(index int, h *handle.Handle) (*net.UDPConn, error) {
	c, err := socket.NewPacketConn(h)
	if err == nil {
		h.Release()
		return c.(*net.UDPConn), nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		h.Release()
	} else {
		p.spare[index] = h
	}
	return nil, ListenError(p.query.Address, err, scarceHint(err))
}

// Take calls read with the shares that this worker is to read, until a drain.
func (p *FlowPlace) Take(read func(shares []int)) {
	p.mu.Lock()
	first := p.read == nil
	if first {
		p.read = read
	}
	p.mu.Unlock()
	if !first {
		return
	}
	a := p.asker
	a.saying.Lock()
	defer a.saying.Unlock()
	a.worker.Link.Order(&wire.Message{Act: wire.ActTake, Key: p.key, Data: null})
	if a.toldNoRoom { // the master was told when it did not know this place
		a.worker.Link.Answer((&wire.Message{Cmd: wire.CmdExtra, Act: wire.ActNoRoom}).Line())
	}
}

// Close gives the place back. A worker that drains does not tell the master: see
// Grant.Release.
func (p *FlowPlace) Close() error {
	p.mu.Lock()
	was := p.closed
	p.closed = true
	for _, h := range p.spare {
		h.Release()
	}
	p.spare = nil
	p.mu.Unlock()
	if was {
		return net.ErrClosed
	}
	p.asker.mu.Lock()
	delete(p.asker.places, p.key)
	p.asker.mu.Unlock()
	if !p.asker.worker.Draining() {
		p.asker.close(p.key)
	}
	p.asker.dropIndex(p.query.Address)
	return nil
}
