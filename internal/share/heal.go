package share

import (
	"context"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// How an address heals when a worker has broken the socket that all share. Some libraries call
// shutdown(2) to wake an accept. A worker may also call connect(2) on a socket for datagrams,
// which then receives from one peer only. The first is an event, so a master at rest is not
// woken. The second is not: while there are sockets for datagrams, the master looks at them
// now and then.

// healTime is the time between two looks, and between two tries to heal a socket.
const healTime = 5 * time.Second

// tend begins to watch e, so that it heals. It runs in the mailbox.
func (r *Registry) tend(e *entry) {
	if !socket.Heals || e.dispatcher != nil {
		return
	}
	if !e.query.IsPacket() {
		e.watched = true
		for _, h := range e.sockets {
			e.watched = r.watch(h) && e.watched
		}
	}
	r.tick()
}

// watch begins to watch h. It returns false if no descriptor is free for that.
func (r *Registry) watch(h *handle.Handle) bool {
	if r.watcher == nil {
		w, err := socket.NewWatch()
		if err != nil {
			return false
		}
		r.watcher = w
		go func() {
			for w.Wait() {
				r.heal()
			}
		}()
	}
	if r.watcher.Add(h) == nil {
		return true
	}
	r.unwatch(nil)
	return false
}

// unwatch ends the watching of h. It must be called before h is released.
func (r *Registry) unwatch(h *handle.Handle) {
	if r.watcher != nil && r.watcher.Remove(h) == 0 {
		r.watcher.Close()
		r.watcher = nil
	}
}

// tick looks again and again at the sockets that are not watched, as long as there are any. It
// runs in the mailbox.
func (r *Registry) tick() {
	needed := false
	for _, e := range r.entries {
		needed = needed || len(e.sockets) > 0 && e.dispatcher == nil && (!e.watched || e.broken)
	}
	if r.ticking || !needed {
		return
	}
	r.ticking = true
	time.AfterFunc(healTime, func() {
		r.heal()
		r.host.Turn(func() {
			r.ticking = false
			r.tick()
		})
	})
}

// heal mends the sockets that are broken. It does not run in the mailbox, since a worker can
// make a call on a shared socket wait.
func (r *Registry) heal() {
	shared := make(map[*entry][]*handle.Handle)
	r.host.Turn(func() {
		for _, e := range r.entries {
			if len(e.sockets) > 0 && e.dispatcher == nil {
				for _, h := range e.sockets {
					shared[e] = append(shared[e], h.Retain())
				}
			}
		}
	})
	for e, all := range shared {
		mended := true
		for _, h := range all {
			switch {
			case socket.ShutDown(h):
				mended = r.reopen(e, h) && mended
			case socket.Connected(h):
				mended = socket.Unconnect(h, e.addr) == nil && mended
			}
			h.Release()
		}
		if e.query.IsPacket() {
			continue // it is looked at again anyway
		}
		r.host.Turn(func() {
			e.broken = !mended
			r.tick()
		})
	}
}

// reopen makes e's socket h listen again. A unix socket cannot: another one takes its place, at
// the same path. Workers that ask from now on get that one, and those that have the old one
// are told to ask. reopen returns false if it is to be tried again.
func (r *Registry) reopen(e *entry, h *handle.Handle) bool {
	if ok, err := socket.Relisten(h, e.query.Address, e.addr); ok {
		return err == nil
	}
	if e.query.FD >= 0 {
		return false // the address means this very descriptor, so no other socket can take its place
	}
	if e.query.IsUnix() && !e.query.HasFile() { // the name is free when nobody has the socket
		r.host.Turn(func() {
			if r.entries[e.key] == e {
				r.drop(e, false)
				r.bequeath(e)
				e.again()
			}
		})
		return true
	}
	h, _, file, err := socket.Open(context.Background(), e.query.Address)
	if err != nil {
		return false
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
		e.again()
		for _, h := range old {
			r.unwatch(h)
			h.Release()
		}
		r.tend(e)
		r.Stored.restore(e)
	})
	return true
}

// again tells all workers that have e's socket to ask for another one. A worker that does not
// understand that goes on with the socket that it has.
func (e *entry) again() {
	line := (&wire.Message{Cmd: wire.CmdCluster, Act: wire.ActAgain, Key: e.key, Seq: wire.NextSeq()}).Line()
	for m := range e.holders {
		m.Answer(line)
	}
	clear(e.holders)
}
