package handles_test

import (
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// TestSendListenerOfManySockets: a listener of which a copy would be only a part is refused
// with the way out, in the master and in a worker, before its first Accept and after.
func TestSendListenerOfManySockets(t *testing.T) {
	workers, _ := takers(t, 1, cluster.Options{})
	w := workers[0]
	for name, s := range map[string]cluster.Scheduling{"sharded": cluster.Sharded, "by client": cluster.ByClient} {
		lc := cluster.ListenConfig{Scheduling: s}
		ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer ln.Close()
		pc, err := lc.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
		require.NoError(t, err)
		defer pc.Close()
		for _, h := range []any{ln, pc} {
			requireManySockets(t, w.SendHandle(parcel{Cmd: "leave"}, h))
		}
		for _, kind := range []string{name, name + ", accepted", name + ", packets"} {
			requireManySockets(t, w.Request(t.Context(), sending{"send", kind, "127.0.0.1:0"}, nil))
		}
	}
}

func requireManySockets(t *testing.T, err error) {
	t.Helper()
	require.ErrorContains(t, err, "cluster: SendHandle: ")
	require.ErrorContains(t, err, "many sockets")
	require.ErrorContains(t, err, "listen with Scheduling: Shared")
}
