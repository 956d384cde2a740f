package share

import (
	"context"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// How an address heals when a worker has broken the socket that all share: by shutdown(2),
// as some libraries do to wake an accept, or by connect(2) of one for datagrams, which then
// hears of one peer only. The first is an event, so that a master at rest is not woken. The
// second is none: while there are such sockets they are looked at now and then.

// healTime is how often, and after how long what could not be healed is tried again.
const healTime = 5 * time.Second

// tend sees to it that e heals. It runs in the mailbox.
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

// watch has h watched. It reports false if there is no descriptor for that.
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

// unwatch is to be called before h, if it is watched, is released.
func (r *Registry) unwatch(h *handle.Handle) {
	if r.watcher != nil && r.watcher.Remove(h) == 0 {
		r.watcher.Close()
		r.watcher = nil
	}
}

// tick looks at what is not watched, while there is any of it. It runs in the mailbox.
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

// heal mends what is broken. Not in the mailbox: what workers have as well may make a
// call wait.
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

// reopen lets e's socket h listen again. A unix socket does not: another takes its place,
// at the same path, for the workers that ask from now on, and those that have the old one
// are told to ask. It reports false if that is to be tried again.
func (r *Registry) reopen(e *entry, h *handle.Handle) bool {
	if ok, err := socket.Relisten(h, e.query.Address, e.addr); ok {
		return err == nil
	}
	if e.query.FD >= 0 {
		return false // it was asked for by its descriptor, and that is of this very socket
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

// again tells all who have e's socket to ask for another one. A worker that does not
// understand that goes on with what it has.
func (e *entry) again() {
	line := (&wire.Message{Cmd: wire.CmdCluster, Act: wire.ActAgain, Key: e.key, Seq: wire.NextSeq()}).Line()
	for m := range e.holders {
		m.Answer(line)
	}
	clear(e.holders)
}
