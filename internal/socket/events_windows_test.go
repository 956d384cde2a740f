package socket

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

// sent is a connection as another process gets it whose sender goes on using its own:
// sender, which is on the completion port of this process.
func sent(t *testing.T) (c *Conn, sender, client *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	dialed, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { dialed.Close() })
	accepted, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { accepted.Close() })
	h, err := Duplicate(accepted.(*net.TCPConn))
	require.NoError(t, err)
	got, err := NewConn(h)
	require.NoError(t, err)
	t.Cleanup(func() { got.Close() })
	require.IsType(t, new(events), got.(*Conn).f, "it is on a completion port already")
	return got.(*Conn), accepted.(*net.TCPConn), dialed.(*net.TCPConn)
}

// TestSentConn: a connection that another process has on its completion port reads and
// writes, and so does that process's own, until each of the two is closed.
func TestSentConn(t *testing.T) {
	c, sender, client := sent(t)
	require.Equal(t, client.LocalAddr().String(), c.RemoteAddr().String())
	require.Equal(t, client.RemoteAddr().String(), c.LocalAddr().String())
	said := func(from net.Conn, to net.Conn, what string) {
		t.Helper()
		_, err := from.Write([]byte(what))
		require.NoError(t, err)
		b := make([]byte, len(what))
		to.SetReadDeadline(time.Now().Add(roomtest.Patience))
		_, err = io.ReadFull(to, b)
		require.NoError(t, err)
		require.Equal(t, what, string(b))
	}
	for range 10 {
		said(client, c, "to the receiver")
		said(c, client, "from the receiver")
		said(sender, client, "from the sender")
		said(client, sender, "to the sender")
	}
	require.NoError(t, sender.Close())
	said(client, c, "to the receiver alone")
	said(c, client, "from the receiver alone")
	n, err := c.Read(nil)
	require.Zero(t, n)
	require.NoError(t, err)
	require.NoError(t, client.CloseWrite())
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Close(), net.ErrClosed)
	_, err = client.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

// TestSentConnInBulk: more than the kernel takes at once, both ways at the same time.
func TestSentConnInBulk(t *testing.T) {
	c, _, client := sent(t)
	all := make([]byte, 3*maxWrite+17)
	rand.Read(all)
	read := func(r io.Reader) <-chan error {
		return roomtest.Pending(func() error {
			b := make([]byte, len(all))
			if _, err := io.ReadFull(r, b); err != nil {
				return err
			}
			if !bytes.Equal(all, b) {
				return io.ErrUnexpectedEOF
			}
			return nil
		})
	}
	write := func(w io.Writer) <-chan error {
		return roomtest.Pending(func() error {
			_, err := w.Write(all)
			return err
		})
	}
	for _, done := range []<-chan error{read(c), read(client), write(c), write(client)} {
		require.NoError(t, roomtest.Result(t, done))
	}
}

// TestSentConnDeadlines end reads and writes under way, and are lifted. What comes
// later is read by the next one.
func TestSentConnDeadlines(t *testing.T) {
	c, sender, client := sent(t)
	require.NoError(t, sender.Close())
	reading := roomtest.Pending(readByte(c))
	roomtest.Selecting(t, "(*calls).waitOnce", 1)
	require.NoError(t, c.SetReadDeadline(time.Unix(1, 0)))
	require.ErrorIs(t, roomtest.Result(t, reading), os.ErrDeadlineExceeded)
	require.ErrorIs(t, readByte(c)(), os.ErrDeadlineExceeded)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	require.ErrorIs(t, readByte(c)(), os.ErrDeadlineExceeded)
	require.NoError(t, c.SetDeadline(time.Time{}))
	reading = roomtest.Pending(readByte(c))
	roomtest.Selecting(t, "(*calls).waitOnce", 1)
	_, err := client.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, roomtest.Result(t, reading))

	written := 0
	writing := roomtest.Pending(func() (err error) {
		for err == nil {
			var n int
			n, err = c.Write(make([]byte, maxWrite))
			written += n
		}
		return err
	})
	roomtest.Selecting(t, "(*calls).waitOnce", 1)
	require.NoError(t, c.SetWriteDeadline(time.Unix(1, 0)))
	require.ErrorIs(t, roomtest.Result(t, writing), os.ErrDeadlineExceeded)
	require.NoError(t, c.Close())
	client.SetReadDeadline(time.Now().Add(roomtest.Patience))
	n, err := io.Copy(io.Discard, client)
	require.NoError(t, err)
	require.LessOrEqual(t, int64(written), n)
}

// TestSentConnClose: Close ends the reads and writes under way. When it returns, the kernel has
// none of their memory any more. The sender's own reads and writes go on.
func TestSentConnClose(t *testing.T) {
	for range 20 {
		c, sender, client := sent(t)
		o, err := c.f.(*events).in.begin()
		require.NoError(t, err)
		c.f.(*events).in.end(o) // the next one's
		reading := roomtest.Pending(readByte(c))
		raw, err := c.SyscallConn()
		require.NoError(t, err)
		roomtest.Selecting(t, "(*calls).waitOnce", 1)
		require.EqualValues(t, windows.STATUS_PENDING, o.ov.Internal)
		require.NoError(t, c.Close())
		require.NotEqualValues(t, windows.STATUS_PENDING, o.ov.Internal, "the kernel has it")
		require.Zero(t, o.event, "a read is under way")
		require.ErrorIs(t, roomtest.Result(t, reading), net.ErrClosed)
		require.ErrorIs(t, raw.Control(func(uintptr) {}), net.ErrClosed)
		require.ErrorIs(t, raw.Read(func(uintptr) bool { return true }), net.ErrClosed)
		require.ErrorIs(t, raw.Write(func(uintptr) bool { return true }), net.ErrClosed)
		for _, err := range []error{c.SetDeadline(time.Time{}), c.SetReadDeadline(time.Time{}), c.SetWriteDeadline(time.Time{})} {
			require.ErrorIs(t, err, net.ErrClosed)
		}
		_, err = c.Write([]byte("x"))
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = client.Write([]byte("x"))
		require.NoError(t, err)
		require.NoError(t, readByte(sender)())
		require.NoError(t, sender.Close())
		require.NoError(t, client.Close())
	}
}

// TestSentConnRaw: SyscallConn gives the socket, and its Read waits until there is
// something to read.
func TestSentConnRaw(t *testing.T) {
	c, _, client := sent(t)
	rc, err := c.SyscallConn()
	require.NoError(t, err)
	buf, got := make([]byte, 10), 0
	reading := roomtest.Pending(func() error {
		return rc.Read(func(fd uintptr) bool {
			got = readWaiting(windows.Handle(fd), buf)
			return got > 0
		})
	})
	roomtest.Selecting(t, "(*calls).waitOnce", 1)
	_, err = client.Write([]byte("raw"))
	require.NoError(t, err)
	require.NoError(t, roomtest.Result(t, reading))
	require.Equal(t, "raw", string(buf[:got]))
	require.NoError(t, rc.Control(func(fd uintptr) { require.True(t, roomtest.IsSocket(fd)) }))
	require.NoError(t, rc.Write(func(fd uintptr) bool { return roomtest.IsSocket(fd) }))
	require.ErrorIs(t, rc.Write(func(uintptr) bool { return false }), syscall.EWINDOWS)
}

// TestSentConnReset: a client that has gone is an error of the connection.
func TestSentConnReset(t *testing.T) {
	c, _, client := sent(t)
	require.NoError(t, client.SetLinger(0))
	require.NoError(t, client.Close())
	var err error
	for err == nil { // Wine reads an end of some resets
		_, err = c.Write(make([]byte, 1<<10))
	}
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	require.Equal(t, c.LocalAddr(), op.Source)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NotErrorIs(t, err, net.ErrClosed)
}

// TestSentConnsLeakNothing: connection after connection.
func TestSentConnsLeakNothing(t *testing.T) {
	round := func(n int) {
		for range n {
			c, sender, client := sent(t)
			reading := roomtest.Pending(readByte(c))
			_, err := c.Write([]byte("x"))
			require.NoError(t, err)
			require.NoError(t, readByte(client)())
			require.NoError(t, c.Close())
			require.Error(t, roomtest.Result(t, reading))
			sender.Close()
			client.Close()
		}
	}
	round(20)
	before := handles(t)
	round(100)
	require.Less(t, handles(t), before+50)
}

// TestSendable says what cannot go to another process, and what to send.
func TestSendable(t *testing.T) {
	require.NoError(t, Sendable(Stream, "tcp"))
	require.NoError(t, Sendable(Listener, "tcp"))
	for text, err := range map[string]error{
		"a file":                        Sendable(File, ""),
		"a datagram socket":             Sendable(Packet, "udp"),
		"a connection of a unix socket": Sendable(Stream, "unix"),
		"a listener of a unix socket":   Sendable(Listener, "unix"),
	} {
		require.EqualError(t, err, text+" on Windows: not supported here: unsupported operation; send a TCP connection or listener")
	}
}
