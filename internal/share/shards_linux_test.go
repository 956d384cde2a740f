package share

import (
	"bytes"
	"encoding/json"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// shardWorker is a member that takes sockets.
type shardWorker struct {
	Member // of what it does not need
	id     int
	slot   int

	mu      sync.Mutex
	refuses bool // what it is given
	silent  bool // it answers nothing
	load    Load
	has     map[int]*handle.Handle
	asked   int
	lack    func(i int, has map[int]*handle.Handle) // is told what it has just lost
}

func (w *shardWorker) ID() int            { return w.id }
func (w *shardWorker) Slot() int          { return w.slot }
func (w *shardWorker) Leaving() bool      { return false }
func (w *shardWorker) Grants(string) bool { return true }
func (w *shardWorker) Generation() int    { return 1 }
func (w *shardWorker) Load() (Load, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.load, true
}

func (w *shardWorker) Answer(line []byte) {
	var m wire.Message
	if json.Unmarshal(line, &m) != nil || m.Act != wire.ActUnshard {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.has[m.Index].Release()
	delete(w.has, m.Index)
	if w.lack != nil {
		w.lack(m.Index, w.has)
	}
}

func (w *shardWorker) AskHandleLine(line []byte, _ int64, h *handle.Handle, answered func(*wire.Message, *handle.Handle)) {
	var outer, m wire.Message
	if err := json.Unmarshal(bytes.TrimSpace(line), &outer); err != nil {
		panic(err)
	}
	if err := json.Unmarshal(outer.Msg, &m); err != nil {
		panic(err)
	}
	go func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.asked++
		switch {
		case w.silent:
			h.Release()
			return
		case w.refuses:
			h.Release()
		default:
			w.has[m.Index].Release()
			w.has[m.Index] = h
		}
		taken := !w.refuses
		go answered(&wire.Message{Accepted: &taken}, nil)
	}()
}

func (w *shardWorker) set(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}

// sockets are the numbers of those that it has.
func (w *shardWorker) sockets() (all []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.has {
		all = append(all, i)
	}
	slices.Sort(all)
	return all
}

// accept takes what waits at its sockets.
func (w *shardWorker) accept() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.has {
		for {
			fd, _, err := unix.Accept4(h.FD(), unix.SOCK_NONBLOCK)
			if err != nil {
				break
			}
			unix.Close(fd)
			w.load.Accepted++
		}
	}
}

// shardTest is a registry with workers of one address.
type shardTest struct {
	t   *testing.T
	r   *Registry
	e   *entry
	key string
}

func newShardTest(t *testing.T) *shardTest {
	s := &shardTest{t: t, r: newTestRegistry(t)}
	q := resolved(t, "tcp", "127.0.0.1:0")
	q.Policy, q.Apart = Sharded, false
	s.key = q.Key()
	require.NoError(t, s.r.use(t.Context(), q, nil, nil, func(e *entry) error { s.e = e; e.held++; return nil }))
	require.Len(t, s.e.sockets, minShards)
	return s
}

// join lets a worker listen and accept.
func (s *shardTest) join(id, slot int) *shardWorker {
	w := &shardWorker{id: id, slot: slot, has: make(map[int]*handle.Handle)}
	s.t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, h := range w.has {
			h.Release()
		}
	})
	s.r.host.Turn(func() {
		s.r.Shards.join(s.e, w)
		s.r.Shards.Accepts(w, s.key)
	})
	return w
}

// settled waits until each worker has what fn says.
func (s *shardTest) settled(fn func(i int) []*shardWorker, all ...*shardWorker) {
	s.t.Helper()
	want := make(map[*shardWorker][]int)
	for i := range s.e.sockets {
		for _, w := range fn(i) {
			want[w] = append(want[w], i)
		}
	}
	roomtest.Eventually(s.t, func() bool {
		for _, w := range all {
			if !slices.Equal(w.sockets(), want[w]) {
				return false
			}
		}
		return true
	}, "the sockets to be where they belong")
}

// dial connects n times.
func (s *shardTest) dial(n int) {
	s.t.Helper()
	for range n {
		c, err := net.Dial("tcp", s.e.addr.String())
		require.NoError(s.t, err)
		s.t.Cleanup(func() { c.Close() })
	}
}

// Each slot has its share; of one that nobody is in the others have it, as evenly as can
// be. A worker without a slot is a place of its own.
func TestShares(t *testing.T) {
	s := newShardTest(t)
	a := s.join(1, 0)
	s.settled(func(int) []*shardWorker { return []*shardWorker{a} }, a)
	b, c := s.join(2, 1), s.join(3, 2)
	three := []*shardWorker{a, b, c}
	s.settled(func(i int) []*shardWorker { return three[i%3 : i%3+1] }, three...)
	s.r.host.Turn(func() { s.r.Leave(b); s.r.Forget(b) })
	b.set(func() { clear(b.has) })
	s.settled(func(i int) []*shardWorker {
		if i%3 == 1 {
			return []*shardWorker{[]*shardWorker{a, c}[i/3%2]}
		}
		return three[i%3 : i%3+1]
	}, a, c)
	s.r.host.Turn(func() { s.r.Shards.Scaled(1) })
	s.settled(func(int) []*shardWorker { return []*shardWorker{a} }, a, c)
	d := s.join(4, -1)
	s.settled(func(i int) []*shardWorker { return []*shardWorker{[]*shardWorker{a, d}[i%2]} }, a, c, d)
}

// Workers that start one after the other take few sockets from each other: each its own, and
// an even part of what is lent.
func TestSharesOfManyStarts(t *testing.T) {
	const n, sockets = 200, 1024
	s := shards{hands: make(map[Member]*hand)}
	moved := 0
	for slot := range n {
		h := &hand{watched: watched{member: &shardWorker{id: slot + 1, slot: slot}, has: make(map[int]*holding)}, accepts: true}
		s.hands[h.member] = h
		want := s.assign(sockets, n)
		for i, hands := range want {
			require.Len(t, hands, 1)
			if hands[0].has[i] == nil {
				moved++
			}
		}
		for _, h := range s.hands {
			clear(h.has)
		}
		for i, hands := range want {
			hands[0].has[i] = &holding{given: true}
		}
		least, most := sockets, 0
		for _, h := range s.hands {
			own := sockets / n
			if h.member.Slot() < sockets%n {
				own++
			}
			least, most = min(least, len(h.has)-own), max(most, len(h.has)-own)
		}
		require.LessOrEqual(t, most-least, 1, "lent to %d workers", slot+1)
	}
	require.Less(t, moved, 10*sockets)
}

// The number of slots is known when an address is opened. It does not grow with the workers,
// so that no socket gets another home with each that starts.
func TestSlotsOfAStart(t *testing.T) {
	r := newTestRegistry(t)
	for i, workers := range []int{3, 9} {
		q := resolved(t, "tcp", "127.0.0.1:0")
		q.Policy, q.Apart, q.Workers, q.Index = Sharded, false, workers, i
		require.NoError(t, r.use(t.Context(), q, nil, nil, func(e *entry) error { e.held++; return nil }))
		require.Equal(t, 3, r.Shards.slots, "a Scale may have changed it after the first one")
	}
}

// Two workers of one slot, in a reload, both have its share; a full one lends it and keeps
// it; one that takes nothing is tried again later.
func TestSharesOfAReload(t *testing.T) {
	s := newShardTest(t)
	a, b := s.join(1, 0), s.join(2, 1)
	c := s.join(3, 0)
	both := func(i int) []*shardWorker {
		if i%2 == 0 {
			return []*shardWorker{a, c}
		}
		return []*shardWorker{b}
	}
	s.settled(both, a, b, c)
	s.r.host.Turn(func() { s.r.Shards.NoRoom(b) })
	s.settled(func(i int) []*shardWorker {
		if i%2 == 0 {
			return []*shardWorker{a, c}
		}
		return []*shardWorker{b, []*shardWorker{a, c}[i/2%2]}
	}, a, b, c)
	s.r.host.Turn(func() { s.r.HasRoom(b) })
	s.settled(both, a, b, c)

	d := &shardWorker{id: 4, slot: 2, refuses: true, has: make(map[int]*handle.Handle)}
	s.r.host.Turn(func() {
		s.r.Shards.join(s.e, d)
		s.r.Shards.Accepts(d, s.key)
	})
	roomtest.Eventually(t, func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.asked > 0 }, "a socket that is refused")
	d.set(func() { d.refuses = false })
	roomtest.Eventually(t, func() bool { return len(d.sockets()) == len(s.e.sockets)/3 }, "its share, in the end")
	t.Cleanup(func() {
		for _, h := range d.has {
			h.Release()
		}
	})
}

// No socket is without a worker at any moment while shares move.
func TestSharesOverlap(t *testing.T) {
	s := newShardTest(t)
	a := s.join(1, 0)
	s.settled(func(int) []*shardWorker { return []*shardWorker{a} }, a)
	b := &shardWorker{id: 2, slot: 1, has: make(map[int]*handle.Handle)}
	a.lack = func(i int, _ map[int]*handle.Handle) {
		if !slices.Contains(b.sockets(), i) {
			t.Errorf("socket %d is nobody's", i)
		}
	}
	s.r.host.Turn(func() {
		s.r.Shards.join(s.e, b)
		s.r.Shards.Accepts(b, s.key)
	})
	s.settled(func(i int) []*shardWorker { return []*shardWorker{[]*shardWorker{a, b}[i%2]} }, a, b)
	for _, h := range b.has {
		h.Release()
	}
}

// What a worker leaves in its queues others get, also from one that they were lent to and
// that accepts nothing either, or that does not even take them. It is called back when it
// accepts, or once by a heartbeat.
func TestHangs(t *testing.T) {
	s := newShardTest(t)
	a, b, c := s.join(1, 0), s.join(2, 1), s.join(3, 2)
	three := []*shardWorker{a, b, c}
	home := func(i int) []*shardWorker { return three[i%3 : i%3+1] }
	s.settled(home, three...)
	b.set(func() { b.silent = true })
	s.dial(200)
	roomtest.Eventually(t, func() bool {
		c.accept()
		waiting := 0
		for _, h := range s.e.sockets {
			n, _ := socket.Queue(h)
			waiting += n
		}
		return waiting == 0
	}, "c to get all that a and b leave")
	hung := func(w *shardWorker) (hung bool) {
		s.r.host.Turn(func() { hung = s.e.shards.hands[w].hung })
		return hung
	}
	roomtest.Eventually(t, func() bool { return hung(a) && hung(b) && !hung(c) }, "that a and b hang is known")
	beat := func(w *shardWorker) (hung bool) {
		s.r.host.Turn(func() {
			s.r.Shards.Beat(w)
			hung = s.e.shards.hands[w].hung
		})
		return hung
	}
	require.False(t, beat(a))
	s.dial(100)
	roomtest.Eventually(t, func() bool { c.accept(); return hung(a) }, "a to be found again")
	require.True(t, beat(a), "it answers, and does not accept")
	b.set(func() { b.silent = false })
	roomtest.Eventually(t, func() bool {
		s.dial(1)
		for _, w := range three {
			w.set(func() { w.load.Accepted++ })
			w.accept()
		}
		return !hung(a) && !hung(b)
	}, "those that accept are not hung")
	s.settled(home, a)
}

// A socket that a worker has shut down listens again.
func TestShardHeals(t *testing.T) {
	s := newShardTest(t)
	for _, i := range []int{0, 7} {
		require.NoError(t, unix.Shutdown(s.e.sockets[i].FD(), unix.SHUT_RDWR))
		require.Eventually(t, func() bool { return !socket.ShutDown(s.e.sockets[i]) }, roomtest.Patience, 10*time.Millisecond)
	}
}

// With an address its sockets go, and the watch of them with the last one.
func TestShardsEnd(t *testing.T) {
	s := newShardTest(t)
	s.r.host.Turn(func() {
		require.NotNil(t, s.r.Shards.patrol)
		s.r.CloseAll()
		require.Nil(t, s.r.Shards.patrol)
	})
	_, err := net.Dial("tcp", s.e.addr.String())
	require.ErrorIs(t, err, unix.ECONNREFUSED)
}

// Where an address cannot be sharded it is Shared, with one reason for the log and Stats.
func TestUnshardable(t *testing.T) {
	for name, test := range map[string]struct {
		network, address string
		change           func(*Query)
		opened           bool // by the program itself, as a service manager would
	}{
		"unix":   {"unix", t.TempDir() + "/s", func(*Query) {}, false},
		"udp":    {"udp", "127.0.0.1:0", func(q *Query) { q.Reuse = true }, false},
		"mptcp":  {"tcp", "127.0.0.1:0", func(q *Query) { q.Multipath = true }, false},
		"opened": {"tcp", "127.0.0.1:0", func(*Query) {}, true},
		"node":   {"tcp", "127.0.0.1:0", func(q *Query) { q.Apart = true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTestRegistry(t)
			told := 0
			r.host.Fallback = func(l Listening, wanted Policy) {
				told++
				require.Equal(t, ByClient, wanted)
				require.Equal(t, Shared, l.Policy)
				require.NotEmpty(t, l.Lack)
			}
			q := resolved(t, test.network, test.address)
			q.Policy = ByClient
			test.change(&q)
			if test.opened {
				ln, err := net.Listen(test.network, test.address)
				require.NoError(t, err)
				defer ln.Close()
				r.Preopened(q.Address, ln.Addr(), ln)
			}
			require.NoError(t, r.use(t.Context(), q, nil, nil, func(e *entry) error { e.held++; return nil }))
			require.Equal(t, 1, told)
			require.Equal(t, Shared, r.Listening()[0].Policy)
		})
	}
}
