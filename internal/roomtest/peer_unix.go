//go:build unix

package roomtest

import (
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// OpenPeer takes over the worker's end of a channel. It is a *net.UnixConn.
func OpenPeer(t testing.TB, theirs *os.File) Peer {
	t.Helper()
	defer theirs.Close()
	conn, err := net.FileConn(theirs)
	require.NoError(t, err)
	return conn.(*net.UnixConn)
}
