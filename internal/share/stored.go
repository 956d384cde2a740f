package share

import (
	"crypto/sha256"
	"fmt"
	"net"
	"strings"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// A service manager can keep the sockets of addresses beyond this process (systemd's file
// descriptor store): whatever becomes of the master, clients wait for the next one, which
// finds the sockets among the activated ones. All of this runs in the mailbox. An address
// that is sharded is not kept: its sockets make sense only together.

// Keeper keeps sockets beyond this process.
type Keeper interface {
	// Store has the sockets kept under the name. It does not take them over.
	Store(name string, sockets []*handle.Handle)
	// Unstore ends that.
	Unstore(name string)
	// Unkept is told of an address that cannot be kept.
	Unkept(l Listening)
}

// Stored are the addresses that are kept.
type Stored struct {
	r      *Registry
	keeper Keeper // nil before Keep
	keeps  bool
}

// Keep has k keep the sockets of all addresses from now on, until each ends by itself; or
// no longer, if keeps is false.
func (t *Stored) Keep(k Keeper, keeps bool) {
	t.keeper, t.keeps = k, keeps
	for _, e := range t.r.entries {
		if len(e.sockets) > 0 { // else commit will see
			t.store(e)
		}
	}
}

// store has e's sockets kept, unless they are, or no longer.
func (t *Stored) store(e *entry) {
	switch {
	case t.keeper == nil:
	case !t.keeps:
		if e.stored != "" {
			t.keeper.Unstore(e.stored)
		}
	case e.stored != "" || e.foreign || e.query.FD >= 0: // they are
	case e.shards != nil:
		t.keeper.Unkept(e.listening())
	default:
		e.stored = storeName(e.query.Address)
		t.keeper.Store(e.stored, e.sockets)
	}
}

// restore has other sockets kept for e than before.
func (t *Stored) restore(e *entry) {
	t.unstore(e)
	t.store(e)
}

// unstore ends that e's sockets are kept.
func (t *Stored) unstore(e *entry) {
	if e.stored == "" {
		return
	}
	if t.keeper != nil {
		t.keeper.Unstore(e.stored)
	}
	t.r.activated.forget(e.stored)
	e.stored = ""
}

// outlives reports whether e's sockets are kept, and notes them for who listens next in
// this process: the address is taken as long as they are.
func (t *Stored) outlives(e *entry) bool {
	if !t.keeps || e.stored == "" {
		return false
	}
	t.r.activated.keep(e)
	return true
}

// Unclaimed ends, when the cluster is up, what was kept for this process and what nobody
// has asked for: a client would wait for ever. It may be called outside of the mailbox.
func (t *Stored) Unclaimed() {
	names := t.r.activated.unclaimed()
	t.r.host.Turn(func() {
		for _, name := range names {
			if t.keeper != nil {
				t.keeper.Unstore(name)
			}
			t.r.activated.forget(name)
		}
	})
}

// storePrefix begins the name of each socket that is kept. No unit is called so.
const storePrefix = "cluster-"

// maxStoreName is how long systemd lets a name be.
const maxStoreName = 255

// storeName is the name under which the socket of a is kept: what was asked for, in ASCII
// without control characters and ":", as systemd has it. Two addresses have two names, and
// a port that the system chooses has the same in the next process.
func storeName(a socket.Address) string {
	var b strings.Builder
	text := a.Network + "-" + a.Literal
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f || c == ':' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	if a.Port() == 0 || a.Index > 0 {
		fmt.Fprintf(&b, "#%d", a.Index)
	}
	name := storePrefix + b.String()
	if len(name) > maxStoreName {
		sum := sha256.Sum256([]byte(text))
		name = fmt.Sprintf("%s~%x", name[:maxStoreName-1-2*len(sum)], sum)
	}
	return name
}

// ---- those that were kept for this process

// stored reports whether s was kept by the process before.
func (s *activatedSocket) stored() bool { return strings.HasPrefix(s.name, storePrefix) }

// lost reports whether nobody can reach s any more: somebody has removed its file.
func (s *activatedSocket) lost() bool {
	u, ok := s.Addr.(*net.UnixAddr)
	return ok && s.stored() && !strings.HasPrefix(u.Name, "@") && s.path.File() == nil
}

// prepare makes the sockets of a that were kept what want asks for, and returns the file of
// a unix socket.
func prepare(want socket.Address, all []*handle.Handle) *socket.UnixFile {
	for _, h := range all {
		if !want.IsPacket() {
			socket.ListenBound(h, want) // the length of the queue
		}
	}
	want.SetModeAndOwner()
	return want.File()
}

// keep notes the sockets of e, which ends in this process alone.
func (a *activated) keep(e *entry) {
	a.once.Do(a.init)
	a.mu.Lock()
	defer a.mu.Unlock()
	known := false
	for i := range a.list {
		if s := &a.list[i]; s.name == e.stored {
			known, s.used = true, false
		}
	}
	for _, h := range e.sockets {
		if !known {
			a.add(e.stored, h.FD(), h.Retain())
		}
	}
}

// forget closes what is here under the name.
func (a *activated) forget(name string) {
	a.once.Do(a.init)
	a.mu.Lock()
	defer a.mu.Unlock()
	left := a.list[:0]
	for _, s := range a.list {
		switch {
		case s.name != name:
			left = append(left, s)
		case s.kept != nil:
			s.kept.Release()
		default:
			a.drop(s.FD)
		}
	}
	clear(a.list[len(left):])
	a.list = left
}

// unclaimed are the names of what was kept and what nobody has asked for.
func (a *activated) unclaimed() (names []string) {
	a.once.Do(a.init)
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.list {
		if s := &a.list[i]; s.stored() && !s.used {
			file := s.path
			file.Guarded = true // whoever can change the way there leads nobody astray
			file.File().Unlink()
			names = append(names, s.name)
		}
	}
	return names
}

// claimAll notes that the addresses which another program of this process has left are
// used.
func (a *activated) claimAll(entries map[string]*entry) {
	a.once.Do(a.init)
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.list {
		for _, e := range entries {
			s := &a.list[i]
			s.used = s.used || s.is(e.query.Address)
		}
	}
}
