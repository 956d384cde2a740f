package drain

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// makeBlocking does what another process does that shares the socket.
func makeBlocking(t *testing.T, c syscall.Conn) {
	rc, err := c.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) { require.NoError(t, syscall.SetNonblock(int(fd), false)) }))
}

// A stuckListener has an Accept that waits in the kernel.
type stuckListener struct {
	*worker
	*Listener
	conns chan net.Conn
	end   chan error
}

func newStuckListener(t *testing.T, network string, limits Limits) stuckListener {
	l := stuckListener{worker: newWorkerWith(limits)}
	close(l.work)
	address := "127.0.0.1:0"
	if network == "unix" {
		address = t.TempDir() + "/s"
	}
	raw, err := net.Listen(network, address)
	require.NoError(t, err)
	t.Cleanup(func() { raw.Close() })
	src := raw.(Source)
	l.Listener = l.worker.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() {})
	l.conns, l.end = accepting(l.Listener)
	// The first accept waits for the poller, the next one in the kernel.
	makeBlocking(t, src)
	l.connect(t)
	l.waits(t)
	return l
}

// connect makes a connection, which is accepted and closed.
func (l stuckListener) connect(t *testing.T) {
	c, err := net.Dial(l.Addr().Network(), l.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, (<-l.conns).Close())
}

// waits returns when an Accept has begun.
func (l stuckListener) waits(t *testing.T) {
	require.Eventually(t, func() bool { _, any := l.calls.newest(); return any }, time.Minute, time.Millisecond)
}

// TestBlockingAccept: a socket that another process has made blocking holds up neither a
// drain nor a Close.
func TestBlockingAccept(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, l stuckListener){
		"a stop":   func(t *testing.T, l stuckListener) { l.Begin(ByStop, time.Minute) },
		"a reload": func(t *testing.T, l stuckListener) { l.Begin(ByMaster, time.Minute) },
		"a close":  func(t *testing.T, l stuckListener) { require.NoError(t, l.Close()) },
		"a close in a drain": func(t *testing.T, l stuckListener) {
			l.Begin(ByMaster, time.Minute)
			require.NoError(t, l.Close())
		},
		"a close of what is non-blocking again": func(t *testing.T, l stuckListener) {
			rc, err := l.SyscallConn()
			require.NoError(t, err)
			require.NoError(t, rc.Control(func(fd uintptr) { require.NoError(t, syscall.SetNonblock(int(fd), true)) }))
			require.NoError(t, l.Close())
		},
	} {
		for _, network := range []string{"tcp", "unix"} {
			t.Run(name+" "+network, func(t *testing.T) {
				l := newStuckListener(t, network, Limits{})
				end(t, l)
				if l.Draining() {
					require.Contains(t, strings.Join(l.worker.ended(t), "\n"), "close", "all steps are taken")
					l.Close()
				}
				require.ErrorIs(t, <-l.end, net.ErrClosed)
			})
		}
	}
}

// A deadline ends an Accept that waits in the kernel.
func TestBlockingAcceptWithDeadline(t *testing.T) {
	l := newStuckListener(t, "tcp", Limits{})
	require.NoError(t, l.SetDeadline(time.Now().Add(time.Millisecond)))
	require.True(t, isTimeout(<-l.end))
	require.NoError(t, l.Close())
}

// A worker that fills up accepts no more, by an Accept that waits in the kernel either.
func TestBlockingAcceptOfAFullWorker(t *testing.T) {
	l := newStuckListener(t, "tcp", Limits{Open: 1})
	require.True(t, l.Reserve(), "a connection of another listener")
	require.Eventually(t, func() bool { _, any := l.calls.newest(); return !any }, time.Minute, time.Millisecond)
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	require.Empty(t, l.conns)
	l.Unreserve()
	require.NoError(t, (<-l.conns).Close())
	require.NoError(t, l.Close())
	require.ErrorIs(t, <-l.end, net.ErrClosed)
}

// The same of datagrams: a read that waits in the kernel ends at a Close, and takes
// nothing once a drain has begun.
func TestBlockingRead(t *testing.T) {
	for _, drains := range []bool{false, true} {
		w := newWorker()
		close(w.work)
		raw, err := net.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		makeBlocking(t, raw.(*net.UDPConn))
		c := w.PacketConn(raw.(*net.UDPConn), raw.LocalAddr(), func() {})
		end := make(chan error, 1)
		go func() {
			_, _, err := c.ReadFrom(make([]byte, 10))
			end <- err
		}()
		calls := &c.(*udpConn).calls
		require.Eventually(t, func() bool { _, any := calls.newest(); return any }, time.Minute, time.Millisecond)
		if drains {
			w.Begin(ByMaster, time.Minute)
			w.ended(t)
			_, err := raw.WriteTo([]byte("late"), raw.LocalAddr())
			require.NoError(t, err)
		}
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-end, net.ErrClosed)
	}
}
