package cluster

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCopiedConnIsIdle: a connection that is copied onto itself is idle while
// it waits for the peer, so that a drain may close it.
func TestCopiedConnIsIdle(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer peer.Close()
	raw, err := ln.Accept()
	require.NoError(t, err)

	l := &listener{in: &inside{conns: make(map[*track]struct{})}}
	c, tr := l.trackConn(raw)
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, c)
		c.Close()
		done <- err
	}()
	for range 3 {
		_, err = peer.Write([]byte("ping"))
		require.NoError(t, err)
		_, err = io.ReadFull(peer, make([]byte, 4))
		require.NoError(t, err)
		require.Eventually(t, tr.idle, 30*time.Second, time.Millisecond)
	}
	tr.cutIdle()
	_, err = peer.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, <-done)
}
