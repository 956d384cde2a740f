//go:build unix

package coord_test

import (
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestStoppedLeader: a process that is stopped goes on leading and holding its lock, also
// when it is told to drain. Nobody takes over before it is dead.
func TestStoppedLeader(t *testing.T) {
	clustertest.WithMaster(t, coordWorker, cluster.Options{})
	name, said := unique(t), words(t)
	w := forkAll(t, 2)
	ask(t, w[0], "lead", name)
	require.Same(t, w[0], await(t, said, "leads "+name))
	ask(t, w[0], "lock", name)
	require.Same(t, w[0], await(t, said, "locked "+name))
	clustertest.PauseWorker(t, w[0])
	ask(t, w[1], "lead", name)
	ask(t, w[1], "lock", name)
	drained := make(chan error, 1)
	go func() { drained <- w[0].Disconnect(t.Context()) }()
	clustertest.Eventually(t, func() bool {
		l := leadOf(name)
		return w[0].State() == cluster.Draining && l.Worker == w[0].ID() && locks(t)[name] == 1
	}, "it is told to drain, and the other one waits")
	require.False(t, ask(t, w[1], "", name, key("leads")).OK)
	require.Empty(t, said)
	require.NoError(t, w[0].OSProcess().Kill())
	got := map[string]bool{}
	for range 2 {
		one := clustertest.Await(t, said, "word")
		require.Same(t, w[1], one.w)
		got[one.what] = true
	}
	require.Equal(t, map[string]bool{"leads " + name: true, "locked " + name: true}, got)
	clustertest.Await(t, drained, "end of the drain")
}
