//go:build unix

package drain

import (
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPacketConn: in a drain reads wait until the socket is closed, and what was
// read before can still be answered.
func TestPacketConn(t *testing.T) {
	w := newWorker()
	close(w.work)
	raw, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	released := make(chan struct{})
	c := w.PacketConn(raw.(*net.UDPConn), raw.LocalAddr(), func() { close(released) })
	client, err := net.Dial("udp", c.LocalAddr().String())
	require.NoError(t, err)
	defer client.Close()

	require.Zero(t, w.accepts.Load())
	rc, err := c.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(uintptr) {}))
	require.Zero(t, w.accepts.Load())
	require.NoError(t, rc.Read(func(uintptr) bool { return true }))
	require.EqualValues(t, 1, w.accepts.Load(), "who reads from the descriptor reads")

	require.NoError(t, c.SetDeadline(past))
	_, _, err = c.ReadFrom(make([]byte, 10))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, c.SetDeadline(time.Time{}))
	_, err = client.Write([]byte("ask"))
	require.NoError(t, err)
	_, from, err := c.ReadFrom(make([]byte, 10))
	require.NoError(t, err)

	read := func() error { _, _, err := c.ReadFrom(make([]byte, 10)); return err }
	under := pending(read)
	w.Begin(ByMaster, time.Hour)
	w.ended(t)
	require.NoError(t, c.SetReadDeadline(time.Time{}))
	after := pending(read)
	_, err = client.Write([]byte("too late"))
	require.NoError(t, err)
	_, err = c.WriteTo([]byte("answer"), from)
	require.NoError(t, err)
	b := make([]byte, 10)
	n, err := client.Read(b)
	require.NoError(t, err)
	require.Equal(t, "answer", string(b[:n]))
	require.Empty(t, under)
	require.Empty(t, after)
	require.NoError(t, c.Close())
	require.ErrorIs(t, result(t, under), net.ErrClosed)
	require.ErrorIs(t, result(t, after), net.ErrClosed)
	require.ErrorIs(t, c.Close(), net.ErrClosed)
	<-released
}
