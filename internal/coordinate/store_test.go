package coordinate

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/stretchr/testify/require"
)

// modelEntry is one of a list, the last used first.
type modelEntry struct {
	key, value string
	end        time.Time
}

// TestStoreModel does the operations in a random order, beside a list.
func TestStoreModel(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		st, now := New(usual, 1), start
		var model []modelEntry
		find := func(key string) int {
			model = slices.DeleteFunc(model, func(e modelEntry) bool { return !e.end.IsZero() && !e.end.After(now) })
			return slices.IndexFunc(model, func(e modelEntry) bool { return e.key == key })
		}
		put := func(i int, e modelEntry) {
			if i >= 0 {
				model = slices.Delete(model, i, i+1)
			}
			model = slices.Insert(model, 0, e)
			for size := 0; ; size = 0 {
				for _, e := range model {
					size += len(e.key) + len(e.value) + EntryCost
				}
				if size <= usual.MaxStore {
					return
				}
				model = model[:len(model)-1]
			}
		}
		for range 400 {
			now = now.Add(time.Duration(r.IntN(100)) * time.Millisecond)
			key, value := fmt.Sprint("k", r.IntN(25)), fmt.Sprint(r.IntN(1000))
			ttl := []time.Duration{0, time.Second, 300 * time.Millisecond, KeepTTL}[r.IntN(4)]
			i := find(key)
			fresh := modelEntry{key: key, value: value}
			if ttl > 0 {
				fresh.end = now.Add(ttl)
			} else if ttl == KeepTTL && i >= 0 {
				fresh.end = model[i].end
			}
			switch r.IntN(5) {
			case 0:
				got, ok := st.Store.Get(now, "s", key)
				require.Equal(t, i >= 0, ok)
				if ok {
					require.Equal(t, model[i].value, string(got))
					put(i, model[i])
				}
			case 1:
				require.NoError(t, st.Store.Set(now, "s", key, []byte(value), ttl))
				put(i, fresh)
			case 2:
				added, err := st.Store.Add(now, "s", key, []byte(value), ttl)
				require.NoError(t, err)
				require.Equal(t, i < 0, added)
				if added {
					put(i, fresh)
				} else {
					put(i, model[i])
				}
			case 3:
				st.Store.Delete("s", key)
				if i >= 0 {
					model = slices.Delete(model, i, i+1)
				}
			case 4:
				n, err := st.Store.Incr(now, "s", key, 1, ttl)
				require.NoError(t, err)
				if i >= 0 {
					var old int
					fmt.Sscan(model[i].value, &old)
					require.EqualValues(t, old+1, n)
					fresh.end = model[i].end
				}
				fresh.value = fmt.Sprint(n)
				put(i, fresh)
			}
			if r.IntN(20) == 0 {
				b, err := json.Marshal(st)
				require.NoError(t, err)
				st, err = Restore(b)
				require.NoError(t, err)
			}
			find("")
			keys := []string{}
			for _, e := range model {
				keys = append(keys, e.key)
			}
			slices.Sort(keys)
			if got := st.Store.Keys(now, "s", ""); !slices.Equal(keys, got) {
				t.Fatal(keys, got)
			}
		}
		st.Store.DeletePrefix("s", "")
		require.Zero(t, st.Store.bytes)
		require.Empty(t, st.Store.names)
		require.Empty(t, st.Store.ends)
	}
}

// TestStoreTooLarge: what does not fit at all changes nothing.
func TestStoreTooLarge(t *testing.T) {
	st := New(usual, 1)
	require.NoError(t, st.Store.Set(start, "s", "k", []byte("v"), 0))
	require.ErrorIs(t, st.Store.Set(start, "s", "k", make([]byte, usual.MaxStore), 0), errs.TooLarge)
	v, ok := st.Store.Get(start, "s", "k")
	require.True(t, ok)
	require.Equal(t, "v", string(v))
}

// TestNamesAreShared: each question comes with a name of its own. What is kept under a
// name has one string for all of it, also when it was written and read.
func TestNamesAreShared(t *testing.T) {
	st := New(usual, 1)
	require.NoError(t, st.SetRate(0, "name", Rate{1, 1}))
	for i := range 3 {
		require.NoError(t, st.Store.Set(start, strings.Clone("name"), fmt.Sprint(i), nil, 0))
		_, err := st.Take(start, 0, Take{Name: strings.Clone("name"), Key: fmt.Sprint(i), Tokens: 1})
		require.NoError(t, err)
	}
	for range 2 {
		names := make(map[*byte]bool)
		for el := st.Store.recent.Front(); el != nil; el = el.Next() {
			names[unsafe.StringData(el.Value.(*entry).Name)] = true
		}
		require.Len(t, names, 1)
		for at := range st.Limiters.buckets {
			names[unsafe.StringData(at.Limiter)] = true
		}
		require.LessOrEqual(t, len(names), 2) // a decoder may find the two alike
		b, err := json.Marshal(st)
		require.NoError(t, err)
		st, err = Restore(b)
		require.NoError(t, err)
		require.Equal(t, 3, st.Stats(start).Buckets)
	}
}
