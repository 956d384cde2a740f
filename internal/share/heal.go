package share

import (
	"context"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// How an address heals when a worker has called shutdown(2) on the socket that all share,
// as some libraries do to wake an accept. There is no event for that, so the sockets that
// workers have are looked at now and then.

// healTime is how often. It is long enough that an idle master costs nothing.
const healTime = 2 * time.Second

// tend sees to it that the sockets are looked at while there are any. It runs in the
// mailbox.
func (r *Registry) tend() {
	if r.tending || len(r.entries) == 0 {
		return
	}
	r.tending = true
	time.AfterFunc(healTime, func() {
		r.heal()
		r.host.Turn(func() {
			r.tending = false
			r.tend()
		})
	})
}

// heal opens again what was shut down. Not in the mailbox: what workers have as well may
// make a call wait.
func (r *Registry) heal() {
	shared := make(map[*entry]*handle.Handle)
	r.host.Turn(func() {
		for _, e := range r.entries {
			if len(e.sockets) > 0 && e.dispatcher == nil && e.granted {
				shared[e] = e.sockets[0].Retain()
			}
		}
	})
	for e, h := range shared {
		if socket.ShutDown(h) {
			r.reopen(e, h)
		}
		h.Release()
	}
}

// reopen lets e's socket h listen again. A unix socket does not: another takes its place,
// at the same path, for the workers that ask from now on. What fails is tried again.
func (r *Registry) reopen(e *entry, h *handle.Handle) {
	if ok, _ := socket.Relisten(h, e.query.Address, e.addr); ok {
		return
	}
	h, _, file, err := socket.Open(context.Background(), e.query.Address)
	if err != nil {
		return
	}
	h.CloseBy(r.closer.Close)
	r.host.Turn(func() {
		if r.entries[e.key] != e {
			h.Release()
			file.Unlink()
			return
		}
		old := e.sockets
		e.sockets, e.unlink, e.file = []*handle.Handle{h}, file.Unlink, file
		clear(e.holders) // of the old one
		for _, h := range old {
			h.Release()
		}
	})
}
