package share

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster/internal/callback"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/wire"
	"github.com/stretchr/testify/require"
)

// newTestRegistry is a registry whose mailbox is a lock.
func newTestRegistry(t *testing.T) *Registry {
	var mu sync.Mutex
	turn := func(fn func()) {
		mu.Lock()
		defer mu.Unlock()
		fn()
	}
	r := NewRegistry(Host{Turn: turn, UID: 7})
	t.Cleanup(func() { turn(r.CloseAll) })
	return r
}

// A worker gets an address once, and not when it takes none any more.
func TestGrant(t *testing.T) {
	d, _ := newDispatcherFor(t)
	worker := newCommandWorker()
	worker.refuses = true
	r := newTestRegistry(t)
	e := &entry{key: "key", dispatcher: d, addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, holders: make(map[Member]struct{})}
	ask := func() error { return r.grant(worker, &wire.Message{Seq: wire.NextSeq()}, e) }
	r.entries[e.key] = e
	require.NoError(t, ask())
	require.Empty(t, e.holders, "on its way out")
	worker.refuses = false
	require.NoError(t, ask())
	require.Contains(t, e.holders, Member(worker))
	require.Contains(t, roomtest.Await(t, worker.answers, "answer"), `"key":"key"`)
	require.ErrorIs(t, ask(), syscall.EADDRINUSE)
	r.Close(worker, e.key, false)
	worker.refuses = true
	require.NoError(t, ask())
	require.Empty(t, e.holders, "on its way out")
	require.Empty(t, d.seats)
	delete(r.entries, e.key)
}

// question is a worker's, for the address.
func question(t *testing.T, address string, p Policy) *wire.Message {
	q := resolved(t, "tcp", address)
	q.Policy = p
	w := q.message()
	w.Seq = wire.NextSeq()
	return reread(t, w)
}

// Workers that ask for one address, also at the same time, share one socket; a
// worker that asks again has it already.
func TestAnswer(t *testing.T) {
	r := newTestRegistry(t)
	w := question(t, "127.0.0.1:0", Shared)
	workers := []*commandWorker{newCommandWorker(), newCommandWorker(), newCommandWorker()}
	var asking sync.WaitGroup
	for _, m := range workers {
		asking.Go(func() { r.Answer(m, w, Terms{}) })
	}
	asking.Wait()
	for _, m := range workers {
		require.Contains(t, roomtest.Await(t, m.answers, "answer"), `"errno":0`)
		roomtest.Await(t, m.sockets, "socket").Release()
	}
	require.Len(t, r.Listening(), 1)
	require.NoError(t, r.Answer(workers[0], w, Terms{}))
	require.Contains(t, roomtest.Await(t, workers[0].answers, "answer"), `"uid":7`)
	r.CloseAll()
	require.Empty(t, r.Listening())
}

// What a worker may not have, and what is no question, is refused and blamed on it.
func TestRefused(t *testing.T) {
	r := newTestRegistry(t)
	m := newCommandWorker()
	no := errors.New("not that one")
	err := r.Answer(m, question(t, "127.0.0.1:0", Shared), Terms{Allow: func(network, address string) error {
		require.Equal(t, "tcp4 127.0.0.1:0", network+" "+address)
		return no
	}})
	require.ErrorIs(t, err, no)
	require.Contains(t, roomtest.Await(t, m.answers, "answer"), `"reason":"refused by AllowListen: not that one"`)
	require.ErrorIs(t, r.Answer(m, question(t, "127.0.0.1:0", Shared), Terms{Allow: func(string, string) error {
		runtime.Goexit()
		return nil
	}}), callback.ErrGoexit)
	require.Contains(t, roomtest.Await(t, m.answers, "answer"), `"reason":"refused by AllowListen: `)
	// What it is told is what would be bound: of a group the wildcard.
	err = r.Answer(m, reread(t, resolved(t, "udp", "239.1.2.3:9").message()), Terms{Allow: func(network, address string) error {
		require.Equal(t, "udp4 0.0.0.0:9", network+" "+address)
		return no
	}})
	require.ErrorIs(t, err, no)
	roomtest.Await(t, m.answers, "answer")
	require.Error(t, r.Answer(m, &wire.Message{AddressType: []byte("9")}, Terms{}))
	require.Contains(t, roomtest.Await(t, m.answers, "answer"), `"key":"refused"`)

	m.leaving = true
	require.NoError(t, r.Answer(m, question(t, "127.0.0.1:0", Shared), Terms{}))
	require.Empty(t, m.answers, "it is on its way out")
	require.Empty(t, r.entries)
}
