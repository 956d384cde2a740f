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

// A readsSource tells of its reads.
type readsSource struct {
	PacketSource
	begin, end chan struct{} // have room for each read of the test
}

func (s readsSource) ReadFrom(b []byte) (int, net.Addr, error) {
	s.begin <- struct{}{}
	defer func() { s.end <- struct{}{} }()
	return s.PacketSource.ReadFrom(b)
}

// TestPacketConn: in a drain reads wait until the socket is closed, and what was
// read before can still be answered.
func TestPacketConn(t *testing.T) {
	w := newWorker()
	close(w.work)
	raw, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	released := make(chan struct{})
	source := readsSource{raw.(*net.UDPConn), make(chan struct{}, 10), make(chan struct{}, 10)}
	c := w.PacketConn(source, raw.LocalAddr(), func() { close(released) })
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
	for range 2 {
		<-source.begin
		<-source.end
	}
	under := pending(read)
	<-source.begin
	w.Begin(ByMaster, time.Hour)
	w.ended(t)
	<-source.end // Until it has returned, it may still take what arrives.
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
