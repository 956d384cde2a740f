package drain

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/stretchr/testify/require"
)

// foreign is a stream connection whose type is not one of package net.
type foreign struct{ *net.TCPConn }

// foreignListener makes foreign connections of package net's.
type foreignListener struct{ *net.TCPListener }

func (l foreignListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return foreign{c}, nil
}

// listen opens a socket for connections of the kind.
func listen(t *testing.T, kind string) Source {
	t.Helper()
	network, address := "tcp", "127.0.0.1:0"
	if kind == "unix" {
		network, address = "unix", filepath.Join(tempDir(t), "s")
	}
	ln, err := net.Listen(network, address)
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	if kind == "foreign" {
		return foreignListener{ln.(*net.TCPListener)}
	}
	return ln.(Source)
}

// tempDir is a directory that goes with the test. Wine cannot remove one as
// t.TempDir does.
func tempDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "drain")
	require.NoError(t, err)
	t.Cleanup(func() {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			os.Remove(filepath.Join(dir, e.Name()))
		}
		os.Remove(dir)
	})
	return dir
}

// trackedPair is a connection as Accept returns it, and the client's end.
func trackedPair(t *testing.T, kind string) (server net.Conn, c *conn, client net.Conn) {
	t.Helper()
	source := listen(t, kind)
	tracker := newTracker(Limits{}, nil, func() {}, nil, nil)
	l := tracker.Listener(source, source.Addr(), net.KeepAliveConfig{}, func() {})
	defer l.Close()
	client, err := net.Dial(source.Addr().Network(), source.Addr().String())
	require.NoError(t, err)
	server, err = l.Accept()
	require.NoError(t, err)
	_, active := tracker.Counts()
	require.Equal(t, 1, active)
	t.Cleanup(func() {
		server.Close()
		client.Close()
		_, active := tracker.Counts()
		require.Zero(t, active, "a closed connection is in flight no more")
	})
	return server, connOf(server), client
}

func eachKind(t *testing.T, test func(t *testing.T, server net.Conn, c *conn, client net.Conn)) {
	for _, kind := range connKinds {
		t.Run(kind, func(t *testing.T) {
			server, c, client := trackedPair(t, kind)
			test(t, server, c, client)
		})
	}
}

func readByte(c net.Conn) func() error {
	return func() error {
		_, err := c.Read(make([]byte, 10))
		return err
	}
}

// An accepted connection has what package net's have: the descriptor, half-close,
// both addresses, and bytes that come as they were sent.
func TestConnIsWhole(t *testing.T) {
	eachKind(t, func(t *testing.T, server net.Conn, _ *conn, client net.Conn) {
		rc, err := server.(syscall.Conn).SyscallConn()
		require.NoError(t, err)
		require.NoError(t, rc.Control(func(fd uintptr) { require.True(t, roomtest.IsSocket(fd)) }))
		require.Equal(t, client.LocalAddr().String(), server.RemoteAddr().String())
		require.Equal(t, client.RemoteAddr().String(), server.LocalAddr().String())

		data := bytes.Repeat([]byte("0123456789"), 100_000)
		echoed := roomtest.Pending(func() error {
			_, err := io.Copy(server, server)
			return errors.Join(err, server.(interface{ CloseWrite() error }).CloseWrite())
		})
		sent := roomtest.Pending(func() error {
			_, err := client.Write(data)
			return errors.Join(err, client.(interface{ CloseWrite() error }).CloseWrite())
		})
		got, err := io.ReadAll(client)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got))
		require.NoError(t, roomtest.Result(t, sent))
		require.NoError(t, roomtest.Result(t, echoed))
	})
}

// A file goes through ReadFrom (sendfile), whole or in part, and what is no file
// arrives as well.
func TestConnReadFrom(t *testing.T) {
	server, c, client := trackedPair(t, "tcp")
	path := filepath.Join(tempDir(t), "f")
	data := bytes.Repeat([]byte("abcdefgh"), 50_000)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	require.True(t, isRegularFile(f))
	require.True(t, isRegularFile(io.LimitReader(f, 5)))
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	require.False(t, isRegularFile(r), "a pipe waits")

	copied := roomtest.Pending(func() error {
		_, err := io.CopyN(server, f, 1000)
		if err == nil {
			_, err = io.Copy(server, f)
		}
		if err == nil {
			_, err = io.Copy(server, bytes.NewBufferString("tail"))
		}
		return errors.Join(err, server.Close())
	})
	got, err := io.ReadAll(client)
	require.NoError(t, err)
	require.True(t, bytes.Equal(append(data, "tail"...), got))
	require.NoError(t, roomtest.Result(t, copied))
	require.Zero(t, c.writing.Load())
}

// The application's deadlines hold: past, future, moved, lifted, set while a read
// waits.
func TestConnDeadlines(t *testing.T) {
	eachKind(t, func(t *testing.T, server net.Conn, _ *conn, client net.Conn) {
		past := time.Now().Add(-time.Hour)
		for _, set := range []func(time.Time) error{server.SetDeadline, server.SetReadDeadline} {
			require.NoError(t, set(past))
			require.ErrorIs(t, readByte(server)(), os.ErrDeadlineExceeded)
			require.NoError(t, set(time.Now().Add(20*time.Millisecond)))
			require.ErrorIs(t, roomtest.Result(t, roomtest.Pending(readByte(server))), os.ErrDeadlineExceeded)
			require.NoError(t, set(time.Time{}))
			reading := roomtest.Pending(readByte(server))
			require.NoError(t, set(past))
			require.ErrorIs(t, roomtest.Result(t, reading), os.ErrDeadlineExceeded)
			require.NoError(t, set(time.Time{}))
			_, err := client.Write([]byte("x"))
			require.NoError(t, err)
			require.NoError(t, roomtest.Result(t, roomtest.Pending(readByte(server))))
		}
		require.NoError(t, server.SetWriteDeadline(past))
		_, err := server.Write([]byte("x"))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, server.SetDeadline(time.Time{}))
		_, err = server.Write([]byte("x"))
		require.NoError(t, err)
	})
}

// Close ends reads and writes under way, and a second Close is an error as it is
// in package net.
func TestConnClose(t *testing.T) {
	eachKind(t, func(t *testing.T, server net.Conn, _ *conn, client net.Conn) {
		reading := roomtest.Pending(readByte(server))
		writing := roomtest.Pending(func() error {
			for {
				if _, err := server.Write(make([]byte, 64<<10)); err != nil {
					return err
				}
			}
		})
		require.NoError(t, server.Close())
		require.ErrorIs(t, roomtest.Result(t, reading), net.ErrClosed)
		require.ErrorIs(t, roomtest.Result(t, writing), net.ErrClosed)
		require.ErrorIs(t, server.Close(), net.ErrClosed)
		_, err := io.Copy(io.Discard, client)
		require.NoError(t, err)
	})
}

// A drain ends the wait for a request that does not come. One that has come is
// read, and so is the rest of one that has begun; what the application set as its
// deadline still holds.
func TestConnCutIdle(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		eachKind(t, func(t *testing.T, server net.Conn, c *conn, client net.Conn) {
			reading := roomtest.Pending(readByte(server))
			require.Eventually(t, c.idle, roomtest.Patience, time.Millisecond)
			c.cutIdle()
			require.ErrorIs(t, roomtest.Result(t, reading), io.EOF)
			require.ErrorIs(t, readByte(server)(), io.EOF)
			_, err := server.Write([]byte("bye"))
			require.NoError(t, err, "only the reading is cut")
		})
	})
	t.Run("has come", func(t *testing.T) {
		eachKind(t, func(t *testing.T, server net.Conn, c *conn, client net.Conn) {
			_, err := client.Write([]byte("request"))
			require.NoError(t, err)
			c.cutIdle()
			b := make([]byte, 10)
			n, err := server.Read(b[:3])
			require.NoError(t, err)
			require.Equal(t, "req", string(b[:n]))
			n, err = server.Read(b)
			require.NoError(t, err)
			require.Equal(t, "uest", string(b[:n]))
			_, err = server.Write([]byte("answer"))
			require.NoError(t, err)
			require.ErrorIs(t, readByte(server)(), io.EOF, "it is idle again")
		})
	})
	t.Run("half", func(t *testing.T) {
		eachKind(t, func(t *testing.T, server net.Conn, c *conn, client net.Conn) {
			_, err := client.Write([]byte("requ"))
			require.NoError(t, err)
			whole := roomtest.Pending(func() error {
				_, err := io.ReadFull(server, make([]byte, 7))
				return err
			})
			require.Eventually(t, c.busy.Load, roomtest.Patience, time.Millisecond)
			require.False(t, c.idle())
			c.cutIdle() // as if it had been idle a moment ago
			_, err = client.Write([]byte("est"))
			require.NoError(t, err)
			require.NoError(t, roomtest.Result(t, whole))
		})
	})
	t.Run("deadline", func(t *testing.T) {
		server, c, client := trackedPair(t, "tcp")
		_, err := client.Write([]byte("requ"))
		require.NoError(t, err)
		require.NoError(t, readByte(server)())
		require.NoError(t, server.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		c.cutIdle()
		require.ErrorIs(t, roomtest.Result(t, roomtest.Pending(readByte(server))), os.ErrDeadlineExceeded)
	})
	// A read of one byte is how net/http waits for the client to go away.
	t.Run("one byte", func(t *testing.T) {
		server, c, client := trackedPair(t, "tcp")
		reading := roomtest.Pending(func() error {
			_, err := server.Read(make([]byte, 1))
			return err
		})
		c.cutIdle()
		require.False(t, c.idle())
		_, err := client.Write([]byte("x"))
		require.NoError(t, err)
		require.NoError(t, roomtest.Result(t, reading))
	})
}

// However a cut and a request race, a request is read whole or not at all.
func TestConnCutRace(t *testing.T) {
	const size = 7
	for range cutRaces {
		server, c, client := trackedPair(t, "tcp")
		var both sync.WaitGroup
		stop := make(chan struct{})
		both.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if c.ops.Load() > 20 && c.idle() {
					c.cutIdle()
				}
			}
		})
		both.Go(func() {
			b := make([]byte, size)
			for range 1000 {
				if _, err := client.Write(b[:3]); err != nil {
					return
				}
				if _, err := client.Write(b[3:]); err != nil {
					return
				}
				if _, err := io.ReadFull(client, b); err != nil {
					return
				}
			}
		})
		b := make([]byte, size)
		for {
			_, err := io.ReadFull(server, b)
			if err != nil {
				require.ErrorIs(t, err, io.EOF)
				break
			}
			_, err = server.Write(b)
			require.NoError(t, err)
		}
		server.Close()
		close(stop)
		both.Wait()
	}
}

// What the server says of a connection goes before what can be seen of it, and
// TLS without a word from the server gets more time.
func TestConnPhases(t *testing.T) {
	server, c, client := trackedPair(t, "tcp")
	hook := reportState(nil)
	require.Same(t, c, connOf(wrapped{server}))
	require.Nil(t, connOf(client))
	reading := roomtest.Pending(readByte(server))
	require.Eventually(t, c.idle, roomtest.Patience, time.Millisecond)
	hook(wrapped{server}, http.StateActive)
	c.old.Store(true)
	require.False(t, c.idle())
	hook(wrapped{server}, http.StateIdle)
	require.True(t, c.idle())
	require.False(t, c.old.Load())
	require.Equal(t, lameDuck, c.patience())
	_, err := client.Write([]byte{tlsHandshake, 3, 1})
	require.NoError(t, err)
	require.NoError(t, roomtest.Result(t, reading))
	require.Equal(t, lameDuck, c.patience())
	hook(wrapped{server}, http.StateHijacked)
	require.Equal(t, tlsLameDuck, c.patience())
}

// wrapped is a connection as TLS wraps it.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

// TestCopiedConnIsIdle: a connection that is copied onto itself is idle while
// it waits for the peer, so that a drain may close it.
func TestCopiedConnIsIdle(t *testing.T) {
	server, c, peer := trackedPair(t, "tcp")
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(server, server)
		server.Close()
		done <- err
	}()
	for range 3 {
		_, err := peer.Write([]byte("ping"))
		require.NoError(t, err)
		_, err = io.ReadFull(peer, make([]byte, 4))
		require.NoError(t, err)
		require.Eventually(t, c.idle, roomtest.Patience, time.Millisecond)
	}
	c.cutIdle()
	_, err := peer.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, <-done)
}

// Several buffers at once go the way of every write.
func TestConnBuffers(t *testing.T) {
	eachKind(t, func(t *testing.T, server net.Conn, c *conn, client net.Conn) {
		_, err := client.Write([]byte("request"))
		require.NoError(t, err)
		require.NoError(t, readByte(server)())
		require.True(t, c.busy.Load())
		_, err = (&net.Buffers{[]byte("ans"), []byte("wer")}).WriteTo(server)
		require.NoError(t, err)
		require.False(t, c.busy.Load())
		b := make([]byte, 6)
		_, err = io.ReadFull(client, b)
		require.NoError(t, err)
		require.Equal(t, "answer", string(b))
	})
}
