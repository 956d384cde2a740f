package coordinate

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/stretchr/testify/require"
)

// TestLimiterInAnyInterval lets members take tokens, and use their lots as late as
// they may: in no interval more than burst + rate·t pass.
func TestLimiterInAnyInterval(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 2))
		rate := Rate{PerSecond: []float64{50, 1000, 20000, 1e6}[r.IntN(4)], Burst: 1 + r.IntN(500)}
		st, now := New(usual, 1), start
		require.NoError(t, st.SetRate(0, "l", rate))
		type held struct {
			tokens int
			end    time.Time
		}
		lots := make([]held, 4)
		var passed []time.Time
		pass := func(n int) {
			for range n {
				passed = append(passed, now)
			}
		}
		for range 400 {
			now = now.Add(time.Duration(r.ExpFloat64() * float64(time.Second) / rate.PerSecond * float64(r.IntN(20))))
			m := r.IntN(len(lots))
			if l := &lots[m]; l.tokens > 0 && now.Before(l.end) && r.IntN(3) > 0 {
				n := 1 + r.IntN(l.tokens)
				pass(n)
				l.tokens -= n
				continue
			}
			unused := lots[m].tokens
			got, err := st.Take(now, m, Take{Name: "l", Key: "k", Tokens: 1, Ahead: r.IntN(1000), Unused: unused})
			if err != nil {
				t.Fatal(err)
			}
			lots[m] = held{got.Lot, now.Add(LotTime)}
			if got.OK {
				pass(1)
			} else {
				require.Positive(t, got.Retry)
			}
			if r.IntN(4) == 0 { // use it all at its end
				now = now.Add(LotTime - 1)
				if lots[m].tokens > 0 {
					pass(lots[m].tokens)
					lots[m].tokens = 0
				}
			}
		}
		for i := 0; i < len(passed); i += 1 + len(passed)/500 {
			for j := i; j < len(passed); j += 1 + len(passed)/200 {
				most := float64(rate.Burst) + rate.PerSecond*passed[j].Sub(passed[i]).Seconds() + 1e-6
				if float64(j-i+1) > most {
					t.Fatalf("seed %d: %d pass, and %v may: %+v", seed, j-i+1, most, rate)
				}
			}
		}
		require.NotEmpty(t, passed)
	}
}

// TestLimiterGivesAll: a member that asks again and again, without lots, gets all that the
// rate allows.
func TestLimiterGivesAll(t *testing.T) {
	st, now := New(usual, 1), start
	require.NoError(t, st.SetRate(0, "l", Rate{100, 10}))
	passed := 0
	for range 100_000 {
		got, err := st.Take(now, passed%4, Take{Name: "l", Key: "k", Tokens: 1})
		if err != nil {
			t.Fatal(err)
		}
		if got.OK {
			passed++
		}
		now = now.Add(100 * time.Microsecond)
	}
	require.InDelta(t, 10+100*10, passed, 1)
}

// TestLimiterForgets: a key that is full again is forgotten, and there are so many
// others at most.
func TestLimiterForgets(t *testing.T) {
	st, now := New(usual, 1), start
	require.NoError(t, st.SetRate(0, "l", Rate{1, 1}))
	take := func(i int) error {
		_, err := st.Take(now, 0, Take{Name: "l", Key: fmt.Sprint(i), Tokens: 1})
		return err
	}
	for i := range usual.MaxKeys {
		if err := take(i); err != nil {
			t.Fatal(err)
		}
	}
	require.ErrorIs(t, take(usual.MaxKeys), errs.TooMany)
	require.NoError(t, take(0), "it is there")
	now = now.Add(2 * time.Second)
	require.NoError(t, take(usual.MaxKeys))
	left := len(st.Limiters.buckets)
	require.Less(t, left, usual.MaxKeys)
	for range 1000 {
		if _, err := st.Take(now, 0, Take{Name: "l", Key: "another", Tokens: 1}); err != nil {
			t.Fatal(err)
		}
	}
	require.Less(t, len(st.Limiters.buckets), left-1000)
}

// TestLimiterAtItsBound: with as many keys as there may be, no key costs more than a few
// hundred bytes and no call looks at all of them; what is in use stays, and of what is
// full again only as much goes as is needed.
func TestLimiterAtItsBound(t *testing.T) {
	settings := usual
	settings.MaxKeys = atBound
	st, now := New(settings, 1), start
	require.NoError(t, st.SetRate(0, "slow", Rate{0.001, 1}))
	require.NoError(t, st.SetRate(0, "quick", Rate{1, 1}))
	take := func(name string, i int) (bool, error) {
		got, err := st.Take(now, 0, Take{Name: name, Key: fmt.Sprintf("2001:db8::%d", i), Tokens: 1})
		return got.OK, err
	}
	passes := func(name string, i int) {
		if ok, err := take(name, i); err != nil || !ok {
			t.Fatalf("key %d of %s: %v %v", i, name, ok, err)
		}
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range atBound / 2 {
		passes("slow", i)
		passes("quick", i)
	}
	each := (heap() - before) / atBound
	t.Logf("%d bytes for each of %d keys", each, atBound)
	require.Less(t, each, uint64(512))

	// Each refusal that looked at all keys would take milliseconds.
	const calls = 20_000
	began := time.Now()
	for i := range calls {
		_, err := take("quick", atBound+i)
		if !errors.Is(err, errs.TooMany) {
			t.Fatal("one more: ", err)
		}
	}
	t.Logf("%v for a key that is refused", time.Since(began)/calls)
	require.Less(t, time.Since(began), 10*time.Second)
	ok, err := take("slow", 0)
	require.NoError(t, err, "what is there goes on")
	require.False(t, ok)
	require.Len(t, st.Limiters.buckets, atBound)

	// The quick ones are full again, and make room. A slow one never does.
	now = now.Add(2 * time.Second)
	for i := range calls {
		passes("slow", atBound+i)
	}
	for i := range calls {
		if ok, err := take("slow", i); ok || err != nil {
			t.Fatalf("key %d has passed before: %v %v", i, ok, err)
		}
	}
	require.Greater(t, len(st.Limiters.buckets), atBound-4*calls, "not all go at once")
	require.LessOrEqual(t, len(st.Limiters.buckets), atBound)
	now = now.Add(time.Hour)
	was := len(st.Limiters.buckets)
	for range calls {
		take("quick", 0)
	}
	require.Less(t, len(st.Limiters.buckets), was-calls, "each call forgets a few")
}
