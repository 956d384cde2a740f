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
// descriptor store). Whatever becomes of the master, clients wait for the next master, which
// finds the sockets among the activated ones. All of this runs in the mailbox. The sockets of a
// sharded address are not kept: they make sense only together.

// Keeper keeps sockets beyond this process.
type Keeper interface {
	// Store has the sockets kept under the name. It does not take them over.
	Store(name string, sockets []*handle.Handle)
	// Unstore ends the keeping of the sockets with that name.
	Unstore(name string)
	// Unkept is called for an address that cannot be kept.
	Unkept(l Listening)
}

// Stored are the addresses whose sockets are kept.
type Stored struct {
	r      *Registry
	keeper Keeper // nil before Keep
	keeps  bool
}

// Keep makes k keep the sockets of all addresses from now on, each until its address ends by
// itself. If keeps is false, k keeps none any more.
func (t *Stored) Keep(k Keeper, keeps bool) {
	t.keeper, t.keeps = k, keeps
	for _, e := range t.r.entries {
		if len(e.sockets) > 0 { // else commit does it
			t.store(e)
		}
	}
}

// store makes the keeper keep e's sockets, unless it does; or no longer, if nothing is kept.
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

// restore makes the keeper keep e's sockets as they are now, in place of those before.
func (t *Stored) restore(e *entry) {
	t.unstore(e)
	t.store(e)
}

// unstore ends the keeping of e's sockets.
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

// outlives reports whether e's sockets are kept. If so, it notes them for the next Listen in
// this process, since the address is in use as long as they are kept.
func (t *Stored) outlives(e *entry) bool {
	if !t.keeps || e.stored == "" {
		return false
	}
	t.r.activated.keep(e)
	return true
}

// Unclaimed closes the sockets that were kept for this process and that nobody has asked for: a
// client would wait for ever. It is called when the cluster is up, and may be called outside of
// the mailbox.
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

// storePrefix begins the name of each socket that is kept. Sockets of units have other names.
const storePrefix = "cluster-"

// maxStoreName bounds a name, in bytes, as systemd does.
const maxStoreName = 255

// storeName returns the name under which the socket of a is kept: the address that was asked
// for, in ASCII without control characters and ":", as systemd wants it. Two addresses have two
// names. The n-th listener on port 0 has the same name in the next process.
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

// stored reports whether the process before this one had s kept.
func (s *activatedSocket) stored() bool { return strings.HasPrefix(s.name, storePrefix) }

// lost reports whether no client can reach s any more, since somebody has removed its file.
func (s *activatedSocket) lost() bool {
	u, ok := s.Addr.(*net.UnixAddr)
	return ok && s.stored() && !strings.HasPrefix(u.Name, "@") && s.path.File() == nil
}

// prepare gives kept sockets the options that want asks for, and returns the file of a unix
// socket.
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

// forget closes this process's descriptors of the sockets with the name.
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

// unclaimed returns the names of sockets that were kept and that nobody has asked for.
func (a *activated) unclaimed() (names []string) {
	a.once.Do(a.init)
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.list {
		if s := &a.list[i]; s.stored() && !s.used {
			file := s.path
			file.Guarded = true // another user may be able to change the way to the file
			file.File().Unlink()
			names = append(names, s.name)
		}
	}
	return names
}

// claimAll notes that the addresses which the program before an upgrade has left are used.
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
