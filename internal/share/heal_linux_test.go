package share

import (
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/socket"
)

// A socket that one worker has shut down is opened again, although no worker dies: a TCP socket
// for all that have it, a unix socket for those that ask from now on.
func TestShutDownHeals(t *testing.T) {
	for network, address := range map[string]string{
		"tcp":  "127.0.0.1:0",
		"unix": filepath.Join(t.TempDir(), "s"),
	} {
		for name, how := range map[string]int{"for reading": unix.SHUT_RD, "both": unix.SHUT_RDWR} {
			t.Run(network+" "+name, func(t *testing.T) {
				r := newTestRegistry(t)
				ask := func() *handle.Handle {
					m := newCommandWorker()
					w := resolved(t, network, address).message()
					require.NoError(t, r.Answer(m, reread(t, w), Terms{}))
					require.Contains(t, roomtest.Await(t, m.answers, "answer"), `"errno":0`)
					return roomtest.Await(t, m.sockets, "socket")
				}
				listen := func() net.Listener {
					h := ask()
					defer h.Release()
					ln, err := socket.NewListener(h)
					require.NoError(t, err)
					t.Cleanup(func() { ln.Close() })
					if u, ok := ln.(*net.UnixListener); ok {
						u.SetUnlinkOnClose(false)
					}
					return ln
				}
				ln, h := listen(), ask()
				real := ln.Addr().String()
				require.False(t, socket.ShutDown(h))
				require.NoError(t, unix.Shutdown(h.FD(), how))
				h.Release()
				var c net.Conn
				require.Eventually(t, func() bool {
					var err error
					c, err = net.Dial(network, real)
					return err == nil
				}, roomtest.Patience, 10*time.Millisecond)
				defer c.Close()
				if network == "unix" {
					ln = listen()
				}
				s, err := ln.Accept()
				require.NoError(t, err)
				s.Close()
			})
		}
	}
}

// A datagram socket that one worker has connected hears of everybody again, with the same
// port, also if the system chose that.
func TestConnectedHeals(t *testing.T) {
	free, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, free.Close())
	for name, address := range map[string][2]string{
		"any port": {"udp4", "127.0.0.1:0"},
		"a port":   {"udp4", free.LocalAddr().String()},
		"both":     {"udp", ":0"},
		"unixgram": {"unixgram", filepath.Join(t.TempDir(), "s")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			network := address[0]
			r := newTestRegistry(t)
			m := newCommandWorker()
			w := resolved(t, network, address[1]).message()
			require.NoError(t, r.Answer(m, reread(t, w), Terms{}))
			require.Contains(t, roomtest.Await(t, m.answers, "answer"), `"errno":0`)
			h := roomtest.Await(t, m.sockets, "socket")
			defer h.Release()
			require.False(t, socket.Connected(h))
			before, err := unix.Getsockname(h.FD())
			require.NoError(t, err)

			peer, err := unix.Getsockname(h.FD()) // itself
			require.NoError(t, err)
			if in6, ok := peer.(*unix.SockaddrInet6); ok {
				peer = &unix.SockaddrInet6{Port: in6.Port, Addr: [16]byte{15: 1}}
			}
			require.NoError(t, unix.Connect(h.FD(), peer))
			require.Eventually(t, func() bool { return !socket.Connected(h) }, roomtest.Patience, 10*time.Millisecond)
			require.Eventually(t, func() bool {
				after, err := unix.Getsockname(h.FD())
				require.NoError(t, err)
				return assert.ObjectsAreEqual(before, after)
			}, roomtest.Patience, 10*time.Millisecond)

			c, err := socket.NewPacketConn(h)
			require.NoError(t, err)
			defer c.Close()
			to := c.LocalAddr()
			if udp, ok := to.(*net.UDPAddr); ok {
				to = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: udp.Port}
			}
			client, err := net.Dial(to.Network(), to.String())
			require.NoError(t, err)
			defer client.Close()
			_, err = client.Write([]byte("x"))
			require.NoError(t, err)
			c.SetReadDeadline(time.Now().Add(roomtest.Patience))
			_, _, err = c.ReadFrom(make([]byte, 1))
			require.NoError(t, err)
		})
	}
}

// A master at rest is woken neither by the clock nor by the connections of its workers, and
// all the same hears of a socket that is shut down.
func TestAtRest(t *testing.T) {
	var mu sync.Mutex
	var turns atomic.Int32
	turn := func(fn func()) {
		mu.Lock()
		defer mu.Unlock()
		turns.Add(1)
		fn()
	}
	r := NewRegistry(Host{Turn: turn, UID: 7})
	var sockets []*handle.Handle
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
		m := newCommandWorker()
		w := resolved(t, network, address).message()
		require.NoError(t, r.Answer(m, reread(t, w), Terms{}))
		h := roomtest.Await(t, m.sockets, "socket")
		defer h.Release()
		sockets = append(sockets, h)
	}
	before := turns.Load()
	for end := time.Now().Add(healTime + time.Second); time.Now().Before(end); { // only time tells that nothing comes with it
		for _, h := range sockets {
			ln, err := socket.NewListener(h)
			require.NoError(t, err)
			c, err := net.Dial(ln.Addr().Network(), ln.Addr().String())
			require.NoError(t, err)
			s, err := ln.Accept()
			require.NoError(t, err)
			s.Close()
			c.Close()
			if u, ok := ln.(*net.UnixListener); ok {
				u.SetUnlinkOnClose(false)
			}
			ln.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
	require.Equal(t, before, turns.Load())
	for _, h := range sockets {
		before = turns.Load()
		require.NoError(t, unix.Shutdown(h.FD(), unix.SHUT_RDWR))
		require.Eventually(t, func() bool { return turns.Load() > before }, roomtest.Patience, time.Millisecond)
	}
	turn(r.CloseAll)
	require.Nil(t, r.watcher)
}
