package coord_test

import (
	"sync"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestStoreIsShared: workers and the master have one store, which outlives a worker.
func TestStoreIsShared(t *testing.T) {
	clustertest.WithMaster(t, coordWorker, cluster.Options{})
	s := coord.Open("shared")
	defer s.DeletePrefix(t.Context(), "")
	workers := forkAll(t, 2)
	var all sync.WaitGroup
	for _, w := range workers {
		for range 8 {
			all.Go(func() {
				for range 50 {
					ask(t, w, "incr", "shared", key("n"), count(1, 0))
				}
			})
		}
	}
	all.Wait()
	n, err := s.Incr(t.Context(), "n", 0, 0)
	require.NoError(t, err)
	require.EqualValues(t, 800, n)
	dead := clustertest.Deaths(t)
	require.NoError(t, workers[0].OSProcess().Kill())
	clustertest.Await(t, dead, "death")
	require.Equal(t, "800", string(ask(t, workers[1], "get", "shared", key("n")).Val))
	_, err = tryAsk(t, workers[1], "incr", "shared", key("\xff"))
	_ = err // JSON makes it valid on its way
}

// TestLockIsFair: the lock goes on in the order in which it was asked for, and
// when its holder dies.
func TestLockIsFair(t *testing.T) {
	clustertest.WithMaster(t, coordWorker, cluster.Options{})
	said := words(t)
	w := forkAll(t, 3)
	ask(t, w[0], "lock", "L")
	require.Same(t, w[0], await(t, said, "locked L"))
	require.False(t, ask(t, w[1], "trylock", "L").OK)
	_, ok, err := coord.TryLock("L")
	require.NoError(t, err)
	require.False(t, ok)
	for i, one := range w[1:] {
		ask(t, one, "lock", "L")
		clustertest.Eventually(t, func() bool { return locks(t)["L"] == i+1 }, "it waits")
	}
	require.NoError(t, w[0].OSProcess().Kill())
	require.Same(t, w[1], await(t, said, "locked L"))
	ask(t, w[1], "end", "L", key("lock"))
	require.Same(t, w[2], await(t, said, "locked L"))
	ask(t, w[2], "end", "L", key("lock"))
	unlock, ok, err := coord.TryLock("L")
	require.NoError(t, err)
	require.True(t, ok)
	unlock()
	unlock()
}

// locks are those that somebody holds, with how many wait.
func locks(t testing.TB) map[string]int {
	m := make(map[string]int)
	for _, l := range cluster.Stats().Coord.Locks {
		m[l.Name] = l.Waiters
	}
	return m
}
