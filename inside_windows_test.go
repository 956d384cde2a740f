package cluster

import (
	"net"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

// sharedSocket is a socket that listens, and a listener on it as a worker has one.
func sharedSocket(t *testing.T, network, address string) (*handle.Handle, net.Listener) {
	t.Helper()
	a, err := socket.Resolve(network, address, false, socket.Options{})
	require.NoError(t, err)
	h, _, _, err := socket.Open(t.Context(), a)
	require.NoError(t, err)
	t.Cleanup(h.Release)
	ln, err := socket.NewListener(h)
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	return h, ln
}

// connected connects to ln, which accepts.
func connected(t *testing.T, ln net.Listener) {
	t.Helper()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	s, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
}

// TestListenError: what Listen returns has the numbers of Winsock, by both their
// names.
func TestListenError(t *testing.T) {
	_, ln := sharedSocket(t, "tcp", "127.0.0.1:0")
	_, err := Listen("tcp", ln.Addr().String())
	for _, want := range []error{windows.WSAEADDRINUSE, syscall.EADDRINUSE} {
		require.ErrorIs(t, err, want)
	}
	var errno syscall.Errno
	require.ErrorAs(t, err, &errno)
	require.Equal(t, syscall.Errno(windows.WSAEADDRINUSE), errno)
	require.NotErrorIs(t, err, syscall.EACCES)
}

// writeFar writes p: nothing can go beside it.
func writeFar(peer roomtest.Peer, p []byte, _ uint8) { peer.Write(p) }

// drainFar reads to the end.
func drainFar(peer roomtest.Peer) {
	p := make([]byte, 4096)
	for {
		if _, err := peer.Read(p); err != nil {
			return
		}
	}
}

// endFar says that nothing more is written: a pipe has no half to close.
func endFar(peer roomtest.Peer) { peer.Close() }

// anyHandle is one that can be passed on.
func anyHandle(t testing.TB) *handle.Handle {
	s, err := windows.WSASocket(windows.AF_INET, windows.SOCK_STREAM, windows.IPPROTO_TCP, nil, 0, windows.WSA_FLAG_OVERLAPPED|windows.WSA_FLAG_NO_HANDLE_INHERIT)
	require.NoError(t, err)
	return handle.New(int(s))
}
