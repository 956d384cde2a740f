package handles_test

import (
	"net"
	"os"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestWindows: a listener goes to a worker and comes from one; the rest says that it
// is not supported.
func TestWindows(t *testing.T) {
	workers, outcomes := takers(t, 1, cluster.Options{})
	w := workers[0]
	early, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer early.Close()
	held, err := cluster.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	for _, ln := range []net.Listener{early, held} {
		require.NoError(t, w.SendHandle(parcel{Cmd: "listener"}, ln))
		o := clustertest.Await(t, outcomes, "outcome")
		require.Empty(t, o.Errors)
		require.NoError(t, ln.Close())
		id, _ := clustertest.GreetingFrom(t, "tcp", o.Text)
		require.Equal(t, w.ID(), id)
	}

	got := make(chan net.Listener, 1)
	t.Cleanup(w.OnMessage(func(_ *cluster.Process, m cluster.Message) {
		if m.HasHandle() {
			ln, err := m.Listener()
			clustertest.Must(err)
			got <- ln
		}
	}))
	clustertest.Request(t, w, sending{"send", "listener", "127.0.0.1:0"}, nil)
	ln := clustertest.Await(t, got, "listener")
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	c, err := ln.Accept()
	require.NoError(t, err)
	require.NoError(t, c.Close())
	requireEnd(t, client)

	server, _ := pair(t, "tcp")
	for _, h := range []any{server, os.Stdin} {
		require.ErrorIs(t, w.SendHandle(1, h), cluster.ErrNotSupported)
	}
}
