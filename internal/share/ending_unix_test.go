//go:build unix

package share

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/stretchr/testify/require"
)

// listening lets m listen on a unix socket at path, and returns the address's key.
func listening(t *testing.T, r *Registry, m *commandWorker, path string) string {
	q := resolved(t, "unix", path)
	w := q.message()
	require.NoError(t, r.Answer(m, reread(t, w), Terms{}))
	require.Contains(t, roomtest.Await(t, m.answers, "answer"), `"errno":0`)
	roomtest.Await(t, m.sockets, "socket").Release()
	require.NoError(t, q.Locate())
	return q.Key()
}

// An address ends, and its file is removed, when the last one that listens closes
// its listener by itself: not when it is on its way out, or dead.
func TestAddressEnds(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	for name, c := range map[string]struct {
		end   func(r *Registry, key string, first, last *commandWorker)
		stays bool
	}{
		"closed by both": {func(r *Registry, key string, first, last *commandWorker) {
			r.Close(first, key, true)
			require.FileExists(t, path)
			r.Close(last, key, true)
		}, false},
		"the other one is on its way out": {func(r *Registry, key string, first, last *commandWorker) {
			first.leaving = true
			r.Close(last, key, true)
		}, false},
		"the last one parts": {func(r *Registry, key string, first, last *commandWorker) {
			r.Close(first, key, true)
			r.Close(last, key, false)
		}, true},
		"the last one drains": {func(r *Registry, key string, first, last *commandWorker) {
			r.Close(first, key, true)
			last.leaving = true
			r.Close(last, key, true)
		}, true},
		"the last one dies": {func(r *Registry, key string, first, last *commandWorker) {
			r.Close(first, key, true)
			r.Forget(last)
		}, true},
		"closed by one that never had it": {func(r *Registry, key string, first, last *commandWorker) {
			r.Forget(first)
			r.Forget(last)
			r.Close(newCommandWorker(), key, true)
		}, true},
		"a reload, and nobody of its generation came": {func(r *Registry, key string, first, last *commandWorker) {
			r.Forget(first)
			last.leaving = true
			r.Outdate(0, true)
		}, false},
		"a reload, and one came and died": {func(r *Registry, key string, first, last *commandWorker) {
			heir := newCommandWorker()
			heir.generation = 1
			listening(t, r, heir, path)
			r.Forget(first)
			r.Forget(last)
			r.Forget(heir)
			r.Outdate(0, true)
		}, true},
		"a reload, and an old one still listens": {func(r *Registry, key string, first, last *commandWorker) {
			r.Forget(first)
			r.Outdate(0, true)
		}, true},
		"a reload that replaced no slot": {func(r *Registry, key string, first, last *commandWorker) {
			r.Forget(first)
			r.Forget(last)
			r.Outdate(0, false)
		}, false},
		"a reload that replaced no slot, and whose slots are to come": {func(r *Registry, key string, first, last *commandWorker) {
			r.Forget(first)
			r.Forget(last)
			slot := newCommandWorker()
			slot.slotted = true
			listening(t, r, slot, path)
			r.Forget(slot)
			r.Outdate(0, false)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTestRegistry(t)
			first, last := newCommandWorker(), newCommandWorker()
			key := listening(t, r, first, path)
			require.Equal(t, key, listening(t, r, last, path))
			c.end(r, key, first, last)
			if c.stays {
				require.FileExists(t, path)
				require.Len(t, r.Listening(), 1)
				return
			}
			require.NoFileExists(t, path)
			require.Empty(t, r.Listening())
			listening(t, r, newCommandWorker(), path) // it may come back
		})
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// What the master listens on itself counts until its Close.
func TestHeldAddressEnds(t *testing.T) {
	r := newTestRegistry(t)
	ln, err := r.HoldListener(t.Context(), resolved(t, "tcp", "127.0.0.1:0"))
	require.NoError(t, err)
	r.Outdate(0, true)
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	c.Close()
	require.NoError(t, ln.Close())
	require.NoError(t, ln.Close())
	_, err = net.Dial("tcp", ln.Addr().String())
	require.Error(t, err)
	require.Empty(t, r.Listening())
}

// At the end of its address the dispatcher hands over what waits, to workers too that
// have not answered yet.
// There is nothing on Windows that tells whether a connection waits.
func TestHandOut(t *testing.T) {
	d, dial := newDispatcherFor(t)
	workers := []*commandWorker{newCommandWorker(), newCommandWorker()}
	taken := make(chan *handle.Handle, 10)
	for _, w := range workers {
		w.take.Store(true)
		w.taken = taken
		d.add(w)
	}
	for range 6 {
		dial()
	}
	d.handOut(true)
	d.close()
	for range 6 {
		roomtest.Await(t, taken, "connection").Release()
	}
	for _, w := range workers {
		close(w.may)
	}
}

// At the end of its address a full worker gets none of the connections that wait, unless all
// workers are full.
func TestHandOutPrefersRoom(t *testing.T) {
	for name, room := range map[string]bool{"one has room": true, "all are full": false} {
		t.Run(name, func(t *testing.T) {
			d, dial := newDispatcherFor(t)
			full, other := newCommandWorker(), newCommandWorker()
			workers := []*commandWorker{full, other}
			for _, w := range workers {
				w.take.Store(true)
				w.taken = make(chan *handle.Handle, 10)
				defer close(w.may)
				d.add(w)
			}
			d.mu.Lock()
			d.seats[full].full, d.seats[other].full, d.free = true, !room, nil
			d.mu.Unlock()
			const n = 6
			for range n {
				dial()
			}
			d.handOut(true)
			d.close()
			each := map[*commandWorker]int{full: n / 2, other: n / 2}
			if room {
				each = map[*commandWorker]int{full: 0, other: n}
			}
			for _, w := range workers {
				for range each[w] {
					roomtest.Await(t, w.taken, "connection").Release()
				}
			}
			for _, w := range workers {
				require.EqualValues(t, each[w], w.offers.Load())
			}
		})
	}
}

// A descriptor of the master's by its number is given only if a service manager
// opened it, and AllowListen is told what it really is.
func TestDescriptorByNumber(t *testing.T) {
	own, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer own.Close()
	h, err := socket.Duplicate(own.(syscall.Conn))
	require.NoError(t, err)
	defer h.Release()
	m := newCommandWorker()
	ask := func(r *Registry, allow func(network, address string) error) error {
		w := question(t, "127.0.0.1:1", Shared)
		w.FD = ptr(h.FD())
		return r.Answer(m, w, Terms{Allow: allow})
	}
	r := newTestRegistry(t)
	require.ErrorContains(t, ask(r, nil), "no socket of a service manager")
	require.Contains(t, roomtest.Await(t, m.answers, "answer"), `"key":"refused"`)

	r = newTestRegistry(t)
	r.activated.load = func() []Passed { return []Passed{{FD: h.FD()}} }
	no := errors.New("not that one")
	require.ErrorIs(t, ask(r, func(network, address string) error {
		require.Equal(t, "tcp "+own.Addr().String(), network+" "+address)
		return no
	}), no)
	roomtest.Await(t, m.answers, "answer")
	require.NoError(t, ask(r, func(string, string) error { return nil }))
	roomtest.Await(t, m.answers, "answer")
	roomtest.Await(t, m.sockets, "socket").Release()
}

// At the end of the address all that waits is handed over, also what is more than a worker
// takes at a time; and if the workers take no more, what is left is closed. (Windows tells
// nobody whether a connection waits: there what waits is reset.)
func TestHandsOutAllThatWaits(t *testing.T) {
	const waiting = 3 * maxOffers
	for name, takes := range map[string]bool{"taken": true, "refused": false} {
		t.Run(name, func(t *testing.T) {
			d, dial := newDispatcherFor(t)
			busy := newCommandWorker()
			busy.take.Store(true)
			d.add(busy)
			dial()
			roomtest.Await(t, busy.taken, "connection").Release()
			busy.take.Store(takes)
			var clients []net.Conn
			for range waiting {
				clients = append(clients, dial())
			}
			d.handOut(true)
			d.close()
			close(busy.may)
			if takes {
				for range waiting {
					roomtest.Await(t, busy.taken, "connection").Release()
				}
			}
			for _, c := range clients { // the master keeps no copy
				_, err := c.Read(make([]byte, 1))
				require.ErrorIs(t, err, io.EOF)
			}
		})
	}
}
