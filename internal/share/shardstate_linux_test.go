package share

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/stretchr/testify/require"
)

// quiet waits until no socket is on its way.
func (s *shardTest) quiet() {
	s.t.Helper()
	roomtest.Eventually(s.t, func() (none bool) {
		s.r.host.Turn(func() { none = len(Repeated(s.r)) == 0 })
		return none
	}, "all answers")
}

// successor is what another program makes of the registry, which ends.
func (s *shardTest) successor(workers ...*shardWorker) *shardTest {
	t := s.t
	t.Helper()
	var text []byte
	s.r.host.Turn(func() {
		state := StateOf(s.r, func(m Member) int { return m.ID() })
		for _, e := range state.Entries { // the next program has descriptors of its own here
			for i, fd := range e.Sockets {
				h, err := socket.DuplicateFD(fd)
				require.NoError(t, err)
				e.Sockets[i] = h.FD()
			}
		}
		var err error
		text, err = json.Marshal(state)
		require.NoError(t, err)
		s.r.CloseAll()
	})
	var state State
	require.NoError(t, json.Unmarshal(text, &state))
	next := &shardTest{t: t, r: newTestRegistry(t), key: s.key}
	next.r.host.Turn(func() {
		require.NoError(t, Restore(next.r, state, make(handle.Taken), func(id int) Member {
			for _, w := range workers {
				if w.id == id {
					return w
				}
			}
			return nil
		}))
		next.e = next.r.entries[s.key]
	})
	return next
}

// Another program goes on with what each worker has: nothing changes hands that does not
// have to, the share of one that is gone is lent, and what was on its way comes again.
func TestShardsHandedOver(t *testing.T) {
	s := newShardTest(t)
	a, b, c := s.join(1, 0), s.join(2, 1), s.join(3, 2)
	three := []*shardWorker{a, b, c}
	home := func(i int) []*shardWorker { return three[i%3 : i%3+1] }
	s.settled(home, three...)
	s.quiet()
	asked := []int{a.asked, b.asked, c.asked}
	s = s.successor(a, b, c)
	s.settled(home, three...)
	require.Equal(t, asked, []int{a.asked, b.asked, c.asked}, "nobody was given anything")
	require.Len(t, s.e.sockets, minShards)
	require.Equal(t, Sharded, s.e.query.Policy)
	s.dial(30)
	roomtest.Eventually(t, func() bool {
		a.accept()
		b.accept()
		c.accept()
		return a.load.Accepted+b.load.Accepted+c.load.Accepted == 30
	}, "what has come")

	s.r.host.Turn(func() { s.r.Leave(b); s.r.Forget(b) })
	b.set(func() { clear(b.has) })
	s.settled(func(i int) []*shardWorker {
		if i%3 == 1 {
			return []*shardWorker{[]*shardWorker{a, c}[i/3%2]}
		}
		return home(i)
	}, a, c)
	s.quiet()
	d := &shardWorker{id: 4, slot: 1, silent: true, has: make(map[int]*handle.Handle)}
	s.r.host.Turn(func() {
		s.r.Shards.join(s.e, d)
		s.r.Shards.Accepts(d, s.key)
		require.Len(t, Repeated(s.r), maxGiving)
	})
	roomtest.Eventually(t, func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.asked == maxGiving
	}, "its share on its way")
	d.set(func() { d.silent = false })
	s = s.successor(a, c, d)
	three = []*shardWorker{a, d, c}
	s.settled(home, three...)
}

// What was on its way to a worker that another one is to have by now is taken back: it may
// come yet.
func TestShardsTakenBack(t *testing.T) {
	s := newShardTest(t)
	a, b := s.join(1, 0), &shardWorker{id: 2, slot: 1, silent: true, has: make(map[int]*handle.Handle)}
	s.settled(func(int) []*shardWorker { return []*shardWorker{a} }, a)
	s.quiet()
	var lost []int
	s.r.host.Turn(func() {
		s.r.Shards.join(s.e, b)
		s.r.Shards.Accepts(b, s.key)
		s.e.shards.hands[b].leaving = true
	})
	b.lack = func(i int, _ map[int]*handle.Handle) { lost = append(lost, i) }
	next := s.successor(a, b)
	next.r.host.Turn(func() {
		slices.Sort(lost)
		require.Len(t, lost, maxGiving)
		require.Equal(t, 1, lost[0])
		require.Empty(t, next.e.shards.hands[b].has)
	})
	next.settled(func(int) []*shardWorker { return []*shardWorker{a} }, a)
}
