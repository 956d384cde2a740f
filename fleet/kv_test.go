package fleet

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

type natsOptions = server.Options

// TestKV: the methods do what those of coord.Store do, here in one test for both.
func TestKV(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	a := member(t, quickly, Options{URL: s.URL, Node: "a"})
	b := member(t, quickly, Options{URL: s.URL, Node: "b"})
	ctx := long(t)
	stores := map[string][2]store{
		"fleet": {a.KV("a b"), b.KV("a b")},
		"coord": {coord.Open(fleetName(t)), coord.Open(fleetName(t))},
	}
	for name, both := range stores {
		one, other := both[0], both[1]
		val, ok, err := one.Get(ctx, "k")
		require.NoError(t, err, name)
		require.False(t, ok)
		require.Nil(t, val)
		require.NoError(t, one.Set(ctx, "k", []byte("v"), 0))
		val, ok, err = other.Get(ctx, "k")
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, "v", string(val))
		added, err := other.Add(ctx, "k", []byte("w"), 0)
		require.NoError(t, err)
		require.False(t, added)
		swapped, err := other.CompareAndSwap(ctx, "k", []byte("x"), []byte("w"), 0)
		require.NoError(t, err)
		require.False(t, swapped)
		swapped, err = other.CompareAndSwap(ctx, "k", []byte("v"), nil, 0)
		require.NoError(t, err)
		require.True(t, swapped)
		swapped, err = one.CompareAndSwap(ctx, "k", nil, []byte("7"), 0)
		require.NoError(t, err)
		require.True(t, swapped)
		swapped, err = one.CompareAndSwap(ctx, "none", nil, []byte("7"), 0)
		require.NoError(t, err)
		require.False(t, swapped)
		n, err := one.Incr(ctx, "k", -8, 0)
		require.NoError(t, err)
		require.Equal(t, int64(-1), n)
		_, err = one.Incr(ctx, "k", math.MinInt64, 0)
		require.Error(t, err)
		require.NoError(t, one.Delete(ctx, "k"))
		require.NoError(t, one.Delete(ctx, "k"))
		_, ok, err = other.Get(ctx, "k")
		require.NoError(t, err)
		require.False(t, ok)
		added, err = other.Add(ctx, "k", []byte("text"), 0)
		require.NoError(t, err)
		require.True(t, added)
		_, err = one.Incr(ctx, "k", 1, 0)
		require.Error(t, err)
		require.Error(t, one.Set(ctx, "k", nil, -time.Second))
		require.ErrorIs(t, one.Set(ctx, strings.Repeat("k", 1025), nil, 0), cluster.ErrTooLarge)
		require.ErrorIs(t, one.Set(ctx, "much", bytes.Repeat([]byte("x"), 1<<20+1), 0), cluster.ErrTooLarge)
		for _, key := range []string{"", "a.b", "a*c", "a\x00"} {
			require.NoError(t, one.Set(ctx, key, []byte(key), 0))
		}
		keys, err := other.Keys(ctx, "")
		require.NoError(t, err)
		require.Equal(t, []string{"", "a\x00", "a*c", "a.b", "k"}, keys)
		require.NoError(t, other.DeletePrefix(ctx, "a"))
		keys, err = one.Keys(ctx, "")
		require.NoError(t, err)
		require.Equal(t, []string{"", "k"}, keys)
	}
}

// store are the methods that coord.Store and KV have.
type store interface {
	Get(ctx context.Context, key string) (val []byte, ok bool, err error)
	Set(ctx context.Context, key string, val []byte, ttl time.Duration) error
	Add(ctx context.Context, key string, val []byte, ttl time.Duration) (added bool, err error)
	CompareAndSwap(ctx context.Context, key string, old, val []byte, ttl time.Duration) (swapped bool, err error)
	Incr(ctx context.Context, key string, n int64, ttl time.Duration) (int64, error)
	Delete(ctx context.Context, key string) error
	DeletePrefix(ctx context.Context, prefix string) error
	Keys(ctx context.Context, prefix string) ([]string, error)
}

// TestKVTogether: no addition is lost, whoever adds.
func TestKVTogether(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ctx := long(t)
	var all sync.WaitGroup
	var last *Fleet
	for i := range 3 {
		f := member(t, quickly, Options{URL: s.URL, Node: strconv.Itoa(i)})
		last = f
		for range 2 {
			all.Go(func() {
				for range 20 {
					if _, err := f.KV("n").Incr(ctx, "k", 1, 0); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
	val, _, err := last.KV("n").Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "120", string(val))
}

// TestKVEnds: entries end, in time or as their ttl is kept, and leave nothing.
func TestKVEnds(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	f := member(t, quickly, Options{URL: s.URL, Node: "a"})
	ctx := long(t)
	kv := f.KV("x")
	for begin := time.Now().Add(-time.Hour); time.Since(begin) > time.Second; { // once more if it took so long that they may have ended
		begin = time.Now()
		require.NoError(t, kv.DeletePrefix(ctx, ""))
		_, err := kv.Incr(ctx, "b", 1, 2*time.Second)
		require.NoError(t, err)
		_, err = kv.Incr(ctx, "b", 1, 0)
		require.NoError(t, err)
		require.NoError(t, kv.Set(ctx, "c", []byte("1"), 2*time.Second))
		require.NoError(t, kv.Set(ctx, "c", []byte("2"), coord.KeepTTL))
	}
	require.NoError(t, kv.Set(ctx, "a", []byte("1"), time.Second))
	require.NoError(t, kv.Set(ctx, "d", []byte("1"), coord.KeepTTL))
	require.NoError(t, kv.Set(ctx, "e", []byte("1"), time.Hour))
	require.NoError(t, kv.Set(ctx, "e", []byte("2"), 0))
	clustertest.Eventually(t, func() bool {
		keys, err := kv.Keys(ctx, "")
		require.NoError(t, err)
		return fmt.Sprint(keys) == "[d e]"
	}, "the end of entries")
	added, err := kv.Add(ctx, "a", []byte("2"), 0)
	require.NoError(t, err)
	require.True(t, added)
}

// TestKVTrouble: a connection that is lost, and rights that are not there, are said.
func TestKVTrouble(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(o *natsOptions) {
		o.Users = []*server.User{{Username: "u", Password: "x", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$KV.*.kv.secret.>", "$JS.API.STREAM.PURGE.*"}},
		}}}
	})
	p := startProxy(t, s)
	f := member(t, touchily, Options{URL: p.URL, Node: "a", NATS: []nats.Option{nats.UserInfo("u", "x")}})
	ctx := long(t)
	require.NoError(t, f.KV("open").Set(ctx, "k", []byte("v"), 0))
	err := f.KV("secret").Set(ctx, "k", []byte("v"), 0)
	require.ErrorIs(t, err, nats.ErrPermissionViolation)
	require.ErrorContains(t, err, "secret")
	p.Cut()
	clustertest.Eventually(t, func() bool { return f.Publish("x", 1) != nil }, "the loss")
	require.ErrorIs(t, f.KV("open").Set(ctx, "k", nil, 0), ErrNoFleet)
	_, _, err = f.KV("open").Get(ctx, "k")
	require.ErrorIs(t, err, ErrNoFleet)
}
