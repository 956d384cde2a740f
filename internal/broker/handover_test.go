package broker

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/coordinate"
	"github.com/stretchr/testify/require"
)

// successor returns the hub of the program that follows that of h, with the same state. Its
// workers are heard when it adopts them.
func (h *hub) successor(t *testing.T) *hub {
	t.Helper()
	release := h.Hold()
	state, err := h.State()
	release()
	require.NoError(t, err)
	next := newHub(t, coordinate.Settings{})
	require.NoError(t, next.Restore(state))
	return next
}

// adopt connects workers of another hub to h.
func (h *hub) adopt(workers ...*cable) {
	peers := make(map[int]Peer)
	for _, c := range workers {
		c.hub = h
		peers[c.id] = c
	}
	h.Adopt(peers)
}

// subscribe hears what is published in a process.
func subscribe(p *process, topic string) <-chan string {
	heard := make(chan string, 1000)
	p.Subscribe(topic, func(msg []byte) error { heard <- string(msg); return nil })
	return heard
}

// TestRestored: a program that goes on with a state sees it from its beginning: it leads
// nothing that a worker leads, hears topics, waits for locks, and loses nothing that it
// stores or publishes before its workers are adopted.
func TestRestored(t *testing.T) {
	old, all, ctx := newHub(t, settings), make(runs, 10), t.Context()
	a, b := old.join(1), old.join(2)
	a.Lead("x", all.fn("a"))
	b.Lead("x", all.fn("b"))
	leader := await(t, all, "leader")
	free, err := a.Lock(ctx, "l")
	require.NoError(t, err)
	_, err = old.self.Lock(ctx, "own")
	require.NoError(t, err)
	require.NoError(t, a.Open("s").Set(ctx, "k", []byte("v"), 0))
	require.NoError(t, a.Once(ctx, "migrate", func(context.Context) error { return nil }))
	before := subscribe(b.process, "t")

	h := old.successor(t)
	value, ok, err := h.self.Open("s").Get(ctx, "k")
	require.Equal(t, []any{"v", true, nil}, []any{string(value), ok, err})
	require.NoError(t, h.self.Open("s").Set(ctx, "own", []byte("v2"), 0))
	h.self.Lead("x", all.fn("self"))
	h.self.Lead("new", all.fn("self"))
	require.NoError(t, h.self.Once(ctx, "migrate", func(context.Context) error { panic("a second time") }))
	heard := subscribe(h.self, "t")
	require.NoError(t, h.self.Publish("t", "early"))
	require.Equal(t, `"early"`, await(t, heard, "message"))
	require.Empty(t, before, "it is not adopted")
	ok, _, err = h.self.NewLimiter("new", 0, 1).AllowN(ctx, "k", 1)
	require.True(t, ok && err == nil, "%v", err)
	_, ok, err = h.self.TryLock("own")
	require.True(t, ok && err == nil, "what the program before held is free: %v", err)
	require.Empty(t, h.Awaited())
	locked := make(chan error, 1)
	go func() { _, err := h.self.Lock(ctx, "l"); locked <- err }()
	eventually(t, func() bool { return h.Awaited() == `the lock "l", which worker 1 has` }, "it waits")

	h.Configure(settings)
	h.adopt(a, b)
	require.Empty(t, h.Awaited())
	require.Equal(t, `"early"`, await(t, before, "message"))
	require.NoError(t, a.Publish("t", "late"))
	require.Equal(t, `"late"`, await(t, before, "message"))
	require.Equal(t, `"late"`, await(t, heard, "message"))
	require.Empty(t, locked)
	free()
	require.NoError(t, await(t, locked, "lock"))
	value, _, err = b.Open("s").Get(ctx, "own")
	require.Equal(t, []any{"v2", nil}, []any{string(value), err})
	require.Empty(t, all, "who led leads")
	require.Equal(t, coordinate.LeadStats{Name: "x", Worker: 1, Candidates: 2}, h.shown())
	h.self.Lead("x", all.fn("self"))
	a.Drain()
	h.Leave(1)
	close(leader.ends)
	require.Equal(t, "b", await(t, all, "leader").who)
	require.Empty(t, all)
	require.Empty(t, h.self.reports)
}

// TestRestoredWaits: what workers are to be told between the two programs they are told when
// they are adopted, in order, but for those that are gone.
func TestRestoredWaits(t *testing.T) {
	old := newHub(t, settings)
	a, b := old.join(1), old.join(2)
	free, err := old.self.Lock(t.Context(), "l")
	require.NoError(t, err)
	defer free()
	locked := make(chan error, 1)
	go func() { _, err := a.Lock(t.Context(), "l"); locked <- err }()
	eventually(t, func() bool { return old.waiters("l") == 1 }, "it waits")
	heard, gone := subscribe(a.process, "t"), subscribe(b.process, "t")

	h := old.successor(t)
	large, _ := json.Marshal(strings.Repeat("x", absentRoom/4))
	for range 6 { // for three there is room
		require.NoError(t, h.self.Publish("t", json.RawMessage(large)))
	}
	require.Empty(t, locked)
	h.adopt(a)
	require.NoError(t, await(t, locked, "lock"))
	h.Dead(2)
	for range 3 {
		await(t, heard, "message")
	}
	require.EqualValues(t, 3+3, h.Stats().Missed)
	require.ErrorContains(t, await(t, a.accused, "error"), "the worker misses messages")
	require.Empty(t, a.accused)
	require.Empty(t, gone)
}

// TestPretends: in the check of an upgrade nothing runs that another process has.
func TestPretends(t *testing.T) {
	h, all := newHub(t, settings), make(runs, 10)
	h.Pretend()
	h.self.Lead("x", all.fn("self"))
	require.NoError(t, h.self.Once(t.Context(), "migrate", func(context.Context) error { panic("it runs") }))
	require.NoError(t, h.self.Open("s").Set(t.Context(), "k", []byte("v"), 0))
	require.False(t, h.self.Leads("x"))
	require.Empty(t, all)
	require.Empty(t, h.self.reports)
}

// TestHeld: while the state is held, what is asked waits, and what is said of workers does
// not; it is in the state all the same.
func TestHeld(t *testing.T) {
	h, all := newHub(t, settings), make(runs, 10)
	a, b := h.join(1), h.join(2)
	a.Lead("x", all.fn("a"))
	b.Lead("x", all.fn("b"))
	await(t, all, "leader")
	release := h.Hold()
	set := make(chan error, 1)
	go func() { set <- h.self.Open("s").Set(t.Context(), "k", []byte("v"), 0) }()
	h.Lost(1)
	h.Dead(1)
	state, err := h.State()
	require.NoError(t, err)
	st, err := coordinate.Restore(state)
	require.NoError(t, err)
	require.Equal(t, 2, st.Stats(time.Now()).Leads[0].Worker)
	require.Equal(t, "b", await(t, all, "leader").who)
	require.Empty(t, set)
	h.Leave(2)
	release()
	require.NoError(t, await(t, set, "what was asked"))
	require.Zero(t, h.shown().Candidates)
}
