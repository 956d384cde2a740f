package socket

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// newCarefree makes a Merged of one socket, whose calls have no deadline of their own.
func newCarefree(t *testing.T) (*Merged, Group) {
	g := openGroup(t, "tcp", "127.0.0.1:0", 1, nil)
	m, err := NewMerged()
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	require.NoError(t, m.Add(0, g.Sockets[0]))
	require.True(t, m.careful.Load(), "who had it may have it still")
	m.careful.Store(false)
	return m, g
}

// overtaken is what an Accept returns from a socket of m whose connection somebody else has
// taken.
func overtaken(t *testing.T, m *Merged, g Group) <-chan error {
	dialFrom(t, "127.0.0.1", g.Addr)
	index, err := m.ready()
	require.NoError(t, err)
	settled(t, g, 1)
	take(g.Sockets)
	ended := make(chan error, 1)
	go func() {
		c, err := m.accept(m.all[index])
		if err == nil {
			c.Close()
		}
		ended <- err
	}()
	return ended
}

// A call that waits since another process has taken the connection is ended by the next look
// but one. From then on calls have a deadline, for a while, and other connections come.
func TestGuard(t *testing.T) {
	m, g := newCarefree(t)
	for range 2 {
		require.ErrorIs(t, await(t, overtaken(t, m, g)), os.ErrDeadlineExceeded)
		require.True(t, m.careful.Load())
		for _, careful := range []bool{true, false} {
			m.careful.Store(careful)
			dialFrom(t, "127.0.0.1", g.Addr)
			c, err := m.Accept()
			require.NoError(t, err)
			require.NoError(t, c.Close())
		}
	}
	require.Eventually(t, func() bool { return !m.looking.Load() }, 30*time.Second, time.Millisecond, "nothing comes, and it looks")
}

// A deadline that passes ends such a call as well, and so does the removal of the socket.
func TestOvertakenEnds(t *testing.T) {
	m, g := newCarefree(t)
	m.looking.Store(true) // so that nobody looks
	ended := overtaken(t, m, g)
	s := m.all[0]
	require.Eventually(t, func() bool { return s.calls.Load()%2 != 0 }, 30*time.Second, time.Millisecond)
	require.NoError(t, m.SetDeadline(time.Now()))
	require.ErrorIs(t, await(t, ended), os.ErrDeadlineExceeded)
	require.NoError(t, m.SetDeadline(time.Time{}))
	m.careful.Store(false)
	ended = overtaken(t, m, g)
	require.Eventually(t, func() bool { return s.calls.Load()%2 != 0 }, 30*time.Second, time.Millisecond)
	m.Remove(0)
	require.ErrorIs(t, await(t, ended), net.ErrClosed)
}
