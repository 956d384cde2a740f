package clustertest

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// Fork forks a worker and fails the test if that fails.
func Fork(t *testing.T, env ...string) *cluster.Process {
	t.Helper()
	w, err := TryFork(env...)
	require.NoError(t, err)
	return w
}

// TryFork is cluster.Fork. If that fails for no reason (see spurious), it tries once more.
func TryFork(env ...string) (*cluster.Process, error) {
	w, err := cluster.Fork(env...)
	if spurious(err) {
		return cluster.Fork(env...)
	}
	return w, err
}

// Death is a worker whose death the test will wait for.
type Death struct {
	Worker *cluster.Process
	Exit   cluster.Exit
}

// Deaths returns a channel with the deaths of all workers from now on.
func Deaths(t *testing.T) <-chan Death {
	c := make(chan Death, 10000)
	t.Cleanup(cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) { c <- Death{w, e} }))
	return c
}

// Onlines returns a channel with the workers that come online from now on.
func Onlines(t *testing.T) <-chan *cluster.Process {
	c := make(chan *cluster.Process, 10000)
	t.Cleanup(cluster.OnOnline(func(w *cluster.Process) { c <- w }))
	return c
}

// Listenings returns a channel with the workers that listen from now on.
func Listenings(t *testing.T) <-chan *cluster.Process {
	c := make(chan *cluster.Process, 10000)
	t.Cleanup(cluster.OnListening(func(w *cluster.Process, _ net.Addr) { c <- w }))
	return c
}

// StopAll ends the test's cluster, gracefully.
func StopAll(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	require.NoError(t, cluster.Disconnect(ctx))
}

// RequireKilled checks that e is the end of a worker that was killed.
func RequireKilled(t testing.TB, e cluster.Exit) {
	t.Helper()
	require.Equal(t, System.Killed, fmt.Sprint(e.Code, " ", e.Signal))
}
