package coord_test

import (
	"bytes"
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster/coord"
	"github.com/stretchr/testify/require"
)

// TestStore goes through the operations in a process that has not forked.
func TestStore(t *testing.T) {
	ctx := t.Context()
	s := coord.Open(t.Name())
	defer s.DeletePrefix(ctx, "")

	_, ok, err := s.Get(ctx, "a")
	require.NoError(t, err)
	require.False(t, ok)
	val := []byte("1")
	require.NoError(t, s.Set(ctx, "a", val, 0))
	val[0] = 'x' // it is the caller's again
	got, ok, err := s.Get(ctx, "a")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "1", string(got))
	got[0] = 'y'
	got, _, _ = s.Get(ctx, "a")
	require.Equal(t, "1", string(got))

	added, err := s.Add(ctx, "a", nil, 0)
	require.NoError(t, err)
	require.False(t, added)
	added, err = s.Add(ctx, "empty", nil, 0)
	require.NoError(t, err)
	require.True(t, added)
	got, ok, _ = s.Get(ctx, "empty")
	require.True(t, ok)
	require.Equal(t, []byte{}, got)

	swapped, err := s.CompareAndSwap(ctx, "none", nil, []byte("x"), 0)
	require.NoError(t, err)
	require.False(t, swapped, "it never makes a key")
	swapped, _ = s.CompareAndSwap(ctx, "empty", nil, []byte("x"), 0)
	require.True(t, swapped)
	swapped, _ = s.CompareAndSwap(ctx, "empty", nil, []byte("y"), 0)
	require.False(t, swapped)

	n, err := s.Incr(ctx, "a", 41, 0)
	require.NoError(t, err)
	require.EqualValues(t, 42, n)
	n, err = s.Incr(ctx, "count", -3, 0)
	require.NoError(t, err)
	require.EqualValues(t, -3, n)
	got, _, _ = s.Get(ctx, "count")
	require.Equal(t, "-3", string(got))
	_, err = s.Incr(ctx, "empty", 1, 0)
	require.ErrorContains(t, err, "decimal")
	_, err = s.Incr(ctx, "a", math.MaxInt64, 0)
	require.ErrorContains(t, err, "overflow")

	keys, err := s.Keys(ctx, "")
	require.NoError(t, err)
	require.Equal(t, []string{"a", "count", "empty"}, keys)
	require.NoError(t, s.DeletePrefix(ctx, "e"))
	require.NoError(t, s.Delete(ctx, "a"))
	require.NoError(t, s.Delete(ctx, "a"))
	keys, _ = s.Keys(ctx, "")
	require.Equal(t, []string{"count"}, keys)
}

// TestStoreTTL: an entry ends when its time is over, and KeepTTL leaves that as it
// is.
func TestStoreTTL(t *testing.T) {
	ctx := t.Context()
	s := coord.Open(t.Name())
	defer s.DeletePrefix(ctx, "")
	require.ErrorContains(t, s.Set(ctx, "a", nil, -1), "negative")
	require.NoError(t, s.Set(ctx, "kept", nil, coord.KeepTTL))
	require.NoError(t, s.Set(ctx, "a", nil, 50*time.Millisecond))
	require.NoError(t, s.Set(ctx, "a", []byte("x"), coord.KeepTTL))
	_, err := s.Incr(ctx, "n", 1, 50*time.Millisecond)
	require.NoError(t, err)
	_, err = s.Incr(ctx, "n", 1, time.Hour) // it was made before
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		keys, err := s.Keys(ctx, "")
		return err == nil && len(keys) == 1 && keys[0] == "kept"
	}, 30*time.Second, 5*time.Millisecond)
}

// TestStoreLimits: what is too large is told where it is given.
func TestStoreLimits(t *testing.T) {
	ctx := t.Context()
	s := coord.Open(t.Name())
	defer s.DeletePrefix(ctx, "")
	require.NoError(t, s.Set(ctx, strings.Repeat("k", 1<<10), make([]byte, 1<<20), 0))
	require.ErrorIs(t, s.Set(ctx, strings.Repeat("k", 1<<10+1), nil, 0), coord.ErrTooLarge)
	require.ErrorIs(t, s.Set(ctx, "k", make([]byte, 1<<20+1), 0), coord.ErrTooLarge)
	require.ErrorContains(t, s.Set(ctx, "\xff", nil, 0), "UTF-8")
	require.ErrorIs(t, coord.Open(strings.Repeat("n", 1<<10+1)).Set(ctx, "k", nil, 0), coord.ErrTooLarge)
	_, _, err := s.Get(ctx, strings.Repeat("k", 1<<10+1))
	require.ErrorIs(t, err, coord.ErrTooLarge)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, s.Set(ended, "k", nil, 0), context.Canceled)
	require.ErrorContains(t, s.Set(ended, "k", nil, 0), `.Set("k"): `)
}

// TestStoreJSON: values as JSON.
func TestStoreJSON(t *testing.T) {
	ctx := t.Context()
	s := coord.Open(t.Name())
	defer s.DeletePrefix(ctx, "")
	type user struct{ Name string }
	require.NoError(t, coord.Set(ctx, s, "u", user{"Ada"}, 0))
	u, ok, err := coord.Get[user](ctx, s, "u")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, user{"Ada"}, u)
	_, ok, err = coord.Get[user](ctx, s, "none")
	require.NoError(t, err)
	require.False(t, ok)
	_, _, err = coord.Get[int](ctx, s, "u")
	require.ErrorContains(t, err, "u")
	require.Error(t, coord.Set(ctx, s, "f", func() {}, 0))
	require.NoError(t, s.Set(ctx, "raw", bytes.Repeat([]byte{0xff}, 10), 0)) // any bytes
}
