package quic_test

import (
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestMaxConnections: a worker that has as many connections as it may takes no further one;
// others do, and if none can, the client waits until somebody has room. What is there goes on.
func TestMaxConnections(t *testing.T) {
	addr, config, _ := beginWith(t, echo, cluster.Options{Workers: 2, MaxConnections: 1})
	counted := func() (all [2]int64) {
		for _, w := range cluster.Stats().Workers {
			all[w.Slot] = w.Active
		}
		return all
	}
	first := dial(t, addr, config)
	at, _ := first.ask(t)
	for range 3 {
		second := dial(t, addr, config)
		pid, _ := second.ask(t)
		require.NotEqual(t, at, pid, "that worker is full")
		clustertest.Eventually(t, func() bool { return counted() == [2]int64{1, 1} }, "both are full")
		third := make(chan peer, 1)
		go func() { third <- dial(t, addr, config) }()
		for range 3 {
			got, _ := first.ask(t)
			require.Equal(t, at, got)
		}
		require.Empty(t, third, "nobody has room")
		first.CloseWithError(0, "")
		p := clustertest.Await(t, third, "connection")
		got, _ := p.ask(t)
		require.Equal(t, at, got)
		first = p
		second.CloseWithError(0, "")
		clustertest.Eventually(t, func() bool { all := counted(); return all[0]+all[1] == 1 }, "a place is free")
	}
	accepted := int64(0)
	for _, w := range cluster.Stats().Workers {
		accepted += w.Accepted
	}
	require.EqualValues(t, 7, accepted)
}
