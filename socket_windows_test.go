package cluster

import (
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster/internal/handle"
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

// TestSocketInAMessage: it finds its way to a worker's side, and is the same.
func TestSocketInAMessage(t *testing.T) {
	h, ln := sharedSocket(t, "tcp", "127.0.0.1:0")
	l := newTestLink(t, peerGo, Options{})
	l.ch.own, l.ch.peer = true, pid
	l.start()
	line, beside := l.ch.attach([]byte(handleLine), h)
	require.Nil(t, beside)
	l.write(string(line))
	require.Equal(t, `{"cmd":"NODE_HANDLE_ACK"}`, l.readLine())
	got := waitFor(t, l.internals, "handle")
	require.Equal(t, "k", got.w.Key)
	same, err := socket.NewListener(got.h)
	require.NoError(t, err)
	got.h.Release()
	defer same.Close()
	require.Equal(t, ln.Addr(), same.Addr())
	connected(t, same)
	for _, bad := range []string{"", "rubbish", strings.Repeat("A", 1000)} {
		l.write(handleLine[:len(handleLine)-2] + `,"socket":"` + bad + "\"}\n")
		require.Equal(t, `{"cmd":"NODE_HANDLE_NACK"}`, l.readLine())
		require.Contains(t, l.error(), "without its descriptor")
	}
}

// TestMasterTakesNoSocket: what a worker sends as one could be any handle of the
// master's own, which would be closed.
func TestMasterTakesNoSocket(t *testing.T) {
	h, ln := sharedSocket(t, "tcp", "127.0.0.1:0")
	l := newTestLink(t, peerGo, Options{}).start()
	text, err := handle.Duplicate(h.Socket(), pid)
	require.NoError(t, err)
	l.write(handleLine[:len(handleLine)-2] + `,"socket":"` + text + "\"}\n")
	require.Equal(t, `{"cmd":"NODE_HANDLE_NACK"}`, l.readLine())
	require.Contains(t, l.error(), "without its descriptor")
	require.Empty(t, l.internals)
	same, err := handle.Adopt(text) // nobody has taken it
	require.NoError(t, err)
	same.Release()
	connected(t, ln)
}
