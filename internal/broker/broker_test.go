package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-cluster/cluster/internal/coordinate"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/stretchr/testify/require"
)

// TestLockGrantedTooLate: a lock that is granted just when the wait for it ends goes to the next
// that waits.
func TestLockGrantedTooLate(t *testing.T) {
	h := newHub(t, settings)
	late, next := h.join(1), h.join(2)
	unlock, err := h.self.Lock(t.Context(), "l")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	lock := func(c *cable, ctx context.Context) <-chan error {
		done := make(chan error, 1)
		before := h.Stats().Locks[0].Waiters
		go func() { _, err := c.Lock(ctx, "l"); done <- err }()
		eventually(t, func() bool { return h.Stats().Locks[0].Waiters == before+1 }, "it waits")
		return done
	}
	a, b := lock(late, ctx), lock(next, t.Context())
	late.set(func() { late.hold = true })
	unlock()
	require.Equal(t, 1, h.Stats().Locks[0].Worker, "it is granted, and its word under way")
	cancel()
	require.ErrorIs(t, await(t, a, "end of the wait"), context.Canceled)
	require.NoError(t, await(t, b, "lock"))
	late.release()
	require.Equal(t, 2, h.Stats().Locks[0].Worker)
	require.Empty(t, late.reports)
}

// TestLockTwice: a goroutine that locks twice waits for itself, until its context ends.
func TestLockTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, settings)
		unlock, err := h.self.Lock(t.Context(), "l")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begun := time.Now()
		_, err = h.self.Lock(ctx, "l")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Hour, time.Since(begun))
		require.Zero(t, h.Stats().Locks[0].Waiters)
		unlock()
		unlock()
		require.Empty(t, h.Stats().Locks)
	})
}

// TestOnceDies: when the process that runs the once dies, the next one runs it. All that wait
// hear that it is done.
func TestOnceDies(t *testing.T) {
	h := newHub(t, settings)
	a, b, c := h.join(1), h.join(2), h.join(3)
	began, ends := make(chan string, 10), make(chan error)
	once := func(who string, p *cable) <-chan error {
		done := make(chan error, 1)
		go func() {
			done <- p.Once(t.Context(), "x", func(context.Context) error { began <- who; return <-ends })
		}()
		return done
	}
	first := once("a", a)
	require.Equal(t, "a", await(t, began, "run"))
	second := once("b", b)
	eventually(t, func() bool { return h.Stats().Onces[0].Waiters == 1 }, "it waits")
	third := once("c", c)
	eventually(t, func() bool { return h.Stats().Onces[0].Waiters == 2 }, "both wait")
	h.Lost(1)
	require.Empty(t, began, "it may still run there")
	h.Dead(1)
	require.Equal(t, "b", await(t, began, "run"))
	ends <- nil // of the dead or of b; one of both
	ends <- nil
	require.NoError(t, await(t, second, "b"))
	require.NoError(t, await(t, third, "c"))
	require.NoError(t, await(t, first, "a"))
	require.NoError(t, c.Once(t.Context(), "x", nil))
	require.Equal(t, coordinate.LockStats{Name: "x", Worker: -1, Done: true}, h.Stats().Onces[0])
}

// TestPublishToOneThatDoesNotRead: what a worker does not take is counted, and
// reported at the first of each burst.
func TestPublishToOneThatDoesNotRead(t *testing.T) {
	h := newHub(t, settings)
	a, b := h.join(1), h.join(2)
	heard := make(chan string, 100)
	for _, c := range []*cable{a, b} {
		c.Subscribe("x", func(msg []byte) error { heard <- fmt.Sprint(c.id, " ", string(msg)); return nil })
	}
	publish := func(n int) {
		t.Helper()
		require.NoError(t, a.Publish("x", n))
		require.Equal(t, fmt.Sprint(2, n), await(t, heard, "message"))
	}
	for burst := range 2 {
		a.set(func() { a.full = true })
		for i := range 3 {
			publish(i)
		}
		err := await(t, a.accused, "report")
		require.ErrorIs(t, err, errs.Backlog)
		require.ErrorContains(t, err, `topic "x": the worker does not read`)
		require.Empty(t, a.accused, "once a burst")
		require.EqualValues(t, 3*(burst+1), h.Stats().Topics[0].Missed)
		a.set(func() { a.full = false })
		require.NoError(t, b.Publish("x", 9))
		require.ElementsMatch(t, []string{"1 9", "2 9"}, []string{await(t, heard, "message"), await(t, heard, "message")})
	}
	require.EqualValues(t, 8, h.Stats().Topics[0].Published)
	a.set(func() { a.backlog = true })
	err := a.Publish("x", 1)
	require.ErrorIs(t, err, errs.Backlog)
	require.ErrorContains(t, err, `coord: Publish("x")`)
	h.Dead(1)
	h.Dead(2)
	require.Empty(t, h.Stats().Topics)
	require.EqualValues(t, 6, h.Stats().Missed, "they count for ever")
}

// TestSubscribeUnanswered: the wait for a master that does not answer ends, is
// reported, and leaves nothing.
func TestSubscribeUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, settings)
		a := h.join(1)
		a.silent = true
		begun := time.Now()
		stop := a.Subscribe("x", nil)
		require.Equal(t, subscribeTime, time.Since(begun))
		require.ErrorContains(t, await(t, a.reports, "report"), `coord: Subscribe("x"): the master has not answered for 5s`)
		stop()
		require.Empty(t, a.topics)
		require.Empty(t, h.Stats().Topics)
	})
}

// TestMessagesTooLarge: what does not fit into MaxMessage is an error where it is
// given, and so is an answer.
func TestMessagesTooLarge(t *testing.T) {
	h, ctx := newHub(t, settings), t.Context()
	a := h.join(1)
	a.room = 10_000
	s, own := a.Open("s"), h.self.Open("s")
	require.NoError(t, s.Set(ctx, "k", make([]byte, 7000), 0))
	v, ok, err := s.Get(ctx, "k")
	require.NoError(t, err)
	require.True(t, ok)
	require.Len(t, v, 7000)
	calls := a.calls
	for _, err := range []error{
		s.Set(ctx, "k", make([]byte, 8000), 0),
		a.Publish("x", strings.Repeat("x", 10_000)),
	} {
		require.ErrorIs(t, err, errs.TooLarge)
		require.ErrorContains(t, err, "the message to the master has")
	}
	require.Equal(t, calls, a.calls, "it is not sent")

	require.NoError(t, own.Set(ctx, "k", make([]byte, 8000), 0))
	_, _, err = s.Get(ctx, "k")
	require.ErrorIs(t, err, errs.TooLarge)
	require.ErrorContains(t, err, "more than MaxMessage")
	require.NoError(t, own.Delete(ctx, "k"))
	for i := range 100 {
		require.NoError(t, own.Set(ctx, fmt.Sprint(strings.Repeat("k", 100), i), nil, 0))
	}
	_, err = s.Keys(ctx, "")
	require.ErrorIs(t, err, errs.TooLarge)
	keys, err := s.Keys(ctx, strings.Repeat("k", 100)+"5")
	require.NoError(t, err)
	require.Len(t, keys, 11)
}

// TestStoreIsBounded by Settings.MaxStore, of all names together. What was used least
// recently goes.
func TestStoreIsBounded(t *testing.T) {
	s := settings
	s.MaxStore = 10 * (1000 + coordinate.EntryCost)
	h, ctx := newHub(t, s), t.Context()
	a := h.join(1).Open("s")
	value := make([]byte, 1000-1)
	for i := range 10 {
		require.NoError(t, h.self.Open(fmt.Sprint("s", i%2)).Set(ctx, fmt.Sprint(i), value, 0))
	}
	_, ok, err := h.self.Open("s0").Get(ctx, "0")
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, a.Set(ctx, "x", value, 0))
	_, ok, _ = h.self.Open("s1").Get(ctx, "1")
	require.False(t, ok)
	_, ok, _ = h.self.Open("s0").Get(ctx, "0")
	require.True(t, ok)
	shown := h.Stats()
	require.Equal(t, []int{s.MaxStore, s.MaxStore}, []int{shown.Bytes, shown.Max})
	require.Equal(t, []coordinate.StoreStats{{Name: "s", Keys: 1, Bytes: 1128}, {Name: "s0", Keys: 5, Bytes: 5640}, {Name: "s1", Keys: 4, Bytes: 4512}}, shown.Stores)
	s.MaxStore = 2 * 1128
	h.Configure(s)
	require.ErrorIs(t, a.Set(ctx, "x", make([]byte, 3000), 0), errs.TooLarge)
	require.NoError(t, a.Set(ctx, "x", value, 0))
	require.Equal(t, s.MaxStore, h.Stats().Bytes)

	for more, n := range map[int64]int64{1: math.MaxInt64, -1: math.MinInt64} {
		key := fmt.Sprint(n)
		sum, err := a.Incr(ctx, key, n, 0)
		require.NoError(t, err)
		require.Equal(t, n, sum)
		_, err = a.Incr(ctx, key, more, 0)
		require.ErrorContains(t, err, "overflow")
		v, _, err := a.Get(ctx, key)
		require.NoError(t, err)
		require.Equal(t, key, string(v), "it changes nothing")
	}
}

// TestLimiterKeys: the number of keys that are not full is bounded, for all processes
// together. Keys that are full again make room. Numbers that make no sense are an error of each
// call.
func TestLimiterKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ctx := newHub(t, settings), t.Context()
		l := h.join(1).NewLimiter("l", 1, 1)
		other := h.join(2).NewLimiter("l", 1, 1)
		for i := range settings.MaxKeys {
			ok, _, err := l.AllowN(ctx, fmt.Sprint(i), 1)
			require.NoError(t, err)
			require.True(t, ok)
		}
		_, _, err := other.AllowN(ctx, "more", 1)
		require.ErrorIs(t, err, errs.TooMany)
		require.ErrorContains(t, err, `coord: Limiter("l")`)
		_, retry, err := other.AllowN(ctx, "5", 1)
		require.NoError(t, err, "it is there")
		require.Equal(t, time.Second, retry)
		time.Sleep(time.Second)
		ok, _, err := other.AllowN(ctx, "more", 1)
		require.NoError(t, err)
		require.True(t, ok)

		_, _, err = l.AllowN(ctx, "k", 2)
		require.ErrorContains(t, err, "more than the burst")
		_, _, err = l.AllowN(ctx, "k", -1)
		require.ErrorContains(t, err, "cannot be taken")
		for _, bad := range []*Limiter{h.self.NewLimiter("b", -1, 1), h.self.NewLimiter("b", math.NaN(), 1), h.self.NewLimiter("b", 1, -1), h.self.NewLimiter("\xff", 1, 1)} {
			_, _, err := bad.AllowN(ctx, "k", 1)
			require.Error(t, err)
			require.Error(t, bad.Wait(ctx, "k"))
		}
		free := h.self.NewLimiter("free", math.Inf(1), 0)
		for range 1000 {
			ok, _, err := free.AllowN(ctx, "k", 1_000_000)
			require.NoError(t, err)
			require.True(t, ok)
		}
	})
}

// TestLimiterWait waits as long as it has to, and not at all if that is after the
// deadline.
func TestLimiterWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, settings)
		l := h.join(1).NewLimiter("l", 0.1, 1)
		begun := time.Now()
		require.NoError(t, l.Wait(t.Context(), "k"))
		require.Zero(t, time.Since(begun))
		ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
		defer cancel()
		require.ErrorIs(t, l.Wait(ctx, "k"), context.DeadlineExceeded)
		require.Zero(t, time.Since(begun))
		require.NoError(t, l.Wait(t.Context(), "k"))
		require.InDelta(t, 10, time.Since(begun).Seconds(), 0.1)
		time.AfterFunc(1500*time.Millisecond, func() { h.self.NewLimiter("l", 1000, 1) })
		require.NoError(t, l.Wait(t.Context(), "k"), "the newest numbers hold, also for who waits")
		require.InDelta(t, 12, time.Since(begun).Seconds(), 0.1)
	})
}

// TestReloadPrefers: during a reload a worker of the new generation leads.
func TestReloadPrefers(t *testing.T) {
	h, all := newHub(t, settings), make(runs, 10)
	old := []*cable{h.join(1), h.join(2)}
	for _, c := range old {
		c.Lead("x", all.fn(fmt.Sprint(c.id)))
	}
	first := await(t, all, "leader")
	h.Reload(1)
	c := h.joinAs(3, 7, 2)
	c.Lead("x", all.fn("3"))
	old[0].Drain()
	close(first.ends)
	second := await(t, all, "leader")
	require.Equal(t, "3", second.who)
	h.Reload(-1)
	c.Drain()
	close(second.ends)
	third := await(t, all, "leader")
	require.Equal(t, "2", third.who)
	close(third.ends)
}

// TestQuestionsAreJudged: what no Client asks is refused, so that a worker cannot make
// others be told what is no line, nor the master keep more than others may.
func TestQuestionsAreJudged(t *testing.T) {
	h := newHub(t, settings)
	mad, other := h.join(1), h.join(2)
	heard := make(chan string, 10)
	other.Subscribe("x", func(msg []byte) error { heard <- string(msg); return nil })
	other.NewLimiter("l", 10, 5)
	long := strings.Repeat("k", longestKey+1)
	for says, q := range map[string]Question{
		"no message":            {Verb: verbPublish, Name: "x"},
		"the key has 72 bytes":  {Verb: verbTake, Name: "l", Key: long, N: 1},
		"-1 messages":           {Verb: verbMissed, Ticket: 1, N: -1},
		"2147483648 messages":   {Verb: verbMissed, Ticket: 1, N: math.MaxInt32 + 1},
		"the name has":          {Verb: verbLock, Name: strings.Repeat("n", coordinate.MaxKey+1)},
		"the value has":         {Verb: verbSet, Name: "s", Value: make([]byte, coordinate.MaxValue+1)},
		"does not know":         {Verb: "none"},
		"a question that is no": {},
	} {
		msg, err := json.Marshal(q)
		require.NoError(t, err)
		if q.Verb == "" {
			msg = []byte("[]")
		}
		h.Receive(1, 7, msg)
		var a Answer
		require.NoError(t, json.Unmarshal(mad.answers[7], &a))
		require.NotNil(t, a.Fault, says)
		require.Contains(t, a.Fault.Text, says)
	}
	require.NoError(t, other.Publish("x", 1))
	require.Equal(t, "1", await(t, heard, "message"))
	require.Zero(t, h.Stats().Missed)
	require.Zero(t, h.Stats().Buckets)
	// A key that is long is hashed where it is given.
	l := other.NewLimiter("l", 0.001, 1)
	for i, want := range []bool{true, false} {
		ok, _, err := l.AllowN(t.Context(), long, 1)
		require.NoError(t, err)
		require.Equal(t, want, ok, i)
	}
}

// FuzzQuestions lets a worker say anything. What the others are told are lines, and
// they are served; when it is dead, nothing of it is left.
func FuzzQuestions(f *testing.F) {
	for _, q := range []Question{
		{Verb: verbStand, Name: "x", Ticket: 1}, {Verb: verbReturned, Name: "x", Ticket: 1, Outcome: 2}, {Verb: verbWithdraw, Name: "x", Ticket: 1},
		{Verb: verbLock, Name: "x", Ticket: 2}, {Verb: verbUnlock, Name: "x", Ticket: 2}, {Verb: verbTryLock, Name: "x"},
		{Verb: verbOnce, Name: "y"}, {Verb: verbOnceFailed, Name: "y"}, {Verb: verbSubscribe, Name: "x"}, {Verb: verbPublish, Name: "x"},
		{Verb: verbPublish, Name: "x", Message: json.RawMessage(`"m"`)}, {Verb: verbMissed, Ticket: 1, N: math.MaxInt64}, {Verb: verbUnsubscribe, Name: "x"},
		{Verb: verbSet, Name: "s", Key: "k", Value: []byte("1")}, {Verb: verbIncr, Name: "s", Key: "k", N: 1}, {Verb: verbKeys, Name: "s"},
		{Verb: verbRate, Name: "l", Rate: 1, N: 5}, {Verb: verbTake, Name: "l", Key: "k", N: 1, Ahead: 3}, {Verb: verbTake, Name: "l", Key: "k", N: 1, Unused: 1 << 30},
		{Verb: verbTake, Name: "l", Key: strings.Repeat("k", 1000), N: 1}, {Verb: "none"},
	} {
		b, err := json.Marshal(q)
		require.NoError(f, err)
		f.Add(uint64(1), b, b)
	}
	f.Add(uint64(0), []byte("no JSON"), []byte("[]"))
	f.Fuzz(func(t *testing.T, id uint64, first, second []byte) {
		h := newHub(t, settings)
		other := h.join(2)
		other.Subscribe("x", func([]byte) error { return nil })
		other.NewLimiter("l", 10, 5)
		mad := h.join(1)
		mad.hold = true // it handles nothing
		for _, q := range [][]byte{first, second, first} {
			h.Receive(1, id, q)
		}
		for _, a := range mad.answers {
			require.True(t, json.Valid(a))
		}
		require.GreaterOrEqual(t, h.Stats().Missed, int64(0))
		h.Dead(1)
		for _, l := range h.Stats().Leads {
			require.True(t, l.Done || l.Candidates == 0, "%+v", l)
		}
		_, err := other.Lock(t.Context(), "x")
		require.NoError(t, err)
		_, _, err = other.TryLock("z")
		require.NoError(t, err)
		require.NoError(t, other.Open("s").Set(t.Context(), "k", nil, 0))
	})
}
