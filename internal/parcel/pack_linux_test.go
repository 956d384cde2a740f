package parcel

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// TestPackOneOfTwo: what reads from two sockets, as a service manager opens them for one port,
// is not sent as one of them.
func TestPackOneOfTwo(t *testing.T) {
	duplicates := func(sockets ...any) (all []*handle.Handle) {
		for _, s := range sockets {
			out, err := Pack(s)
			require.NoError(t, err)
			all = append(all, out.Handle)
		}
		return all
	}
	var listeners, packets []any
	for range 2 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer ln.Close()
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		defer c.Close()
		listeners, packets = append(listeners, ln), append(packets, c)
	}
	ln, err := socket.NewListenerOf(duplicates(listeners...), &net.TCPAddr{})
	require.NoError(t, err)
	defer ln.Close()
	c, err := socket.NewPacketConnOf(duplicates(packets...), &net.UDPAddr{})
	require.NoError(t, err)
	defer c.Close()
	for _, both := range []any{ln, c} {
		_, err := Pack(both)
		require.ErrorIs(t, err, errs.NotSupported)
		require.ErrorContains(t, err, "listen on one family")
	}
}
