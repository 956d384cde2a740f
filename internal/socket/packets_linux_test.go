package socket

import (
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/handle"
)

// newMergedPackets merges the first n sockets of a group of as many.
func newMergedPackets(t *testing.T, network, address string, n int) (m *MergedPackets, g Group, reads *atomic.Int64) {
	t.Helper()
	g = openGroup(t, network, address, n, nil)
	reads = new(atomic.Int64)
	m, err := NewMergedPackets(g.Sockets[0], func() { reads.Add(1) })
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return m, g, reads
}

// What comes to any of the sockets is read, by whatever method, and answered from the
// address of all.
func TestMergedPackets(t *testing.T) {
	for network, address := range map[string]string{"udp4": "127.0.0.1:0", "udp": ":0"} {
		t.Run(network, func(t *testing.T) {
			m, g, reads := newMergedPackets(t, network, address, 4)
			for i, h := range g.Sockets {
				require.NoError(t, m.Add(i, h))
			}
			require.Equal(t, 4, m.Len())
			_, port := ipPort(g.Addr)
			b, oob := make([]byte, 100), make([]byte, 100)
			ways := []func() (n int, from net.Addr, err error){
				func() (int, net.Addr, error) { n, err := m.Read(b); return n, nil, err },
				func() (int, net.Addr, error) { return m.ReadFrom(b) },
				func() (int, net.Addr, error) { return m.ReadFromUDP(b) },
				func() (int, net.Addr, error) {
					n, from, err := m.ReadFromUDPAddrPort(b)
					return n, net.UDPAddrFromAddrPort(from), err
				},
				func() (int, net.Addr, error) { n, _, _, from, err := m.ReadMsgUDP(b, oob); return n, from, err },
				func() (int, net.Addr, error) {
					n, _, _, from, err := m.ReadMsgUDPAddrPort(b, oob)
					return n, net.UDPAddrFromAddrPort(from), err
				},
				func() (n int, from net.Addr, err error) {
					rc, err := m.SyscallConn()
					require.NoError(t, err)
					err = rc.Read(func(fd uintptr) bool {
						n, _, err = unix.Recvfrom(int(fd), b, 0)
						return err == nil
					})
					return n, nil, err
				},
			}
			for i := range 40 { // so many that all sockets have some
				c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
				require.NoError(t, err)
				defer c.Close()
				word := strings.Repeat("x", i+1)
				_, err = c.Write([]byte(word))
				require.NoError(t, err)
				n, from, err := ways[i%len(ways)]()
				require.NoError(t, err)
				require.Equal(t, word, string(b[:n]))
				if from != nil {
					require.Equal(t, c.LocalAddr().String(), from.String())
					_, err = m.WriteTo([]byte("answer"), from)
					require.NoError(t, err)
					n, err = c.Read(b)
					require.NoError(t, err)
					require.Equal(t, "answer", string(b[:n]))
				}
			}
			require.EqualValues(t, 40, reads.Load())
		})
	}
}

// A socket that comes later has what the program has set before on the others.
func TestMergedPacketsOptions(t *testing.T) {
	m, g, _ := newMergedPackets(t, "udp4", "127.0.0.1:0", 3)
	require.NoError(t, m.Add(1, g.Sockets[1]))
	rc, err := m.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) {
		require.NoError(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
	}))
	before, err := unix.GetsockoptInt(g.Sockets[2].FD(), unix.SOL_SOCKET, unix.SO_RCVBUF)
	require.NoError(t, err)
	require.NoError(t, m.SetReadBuffer(before/4))
	require.NoError(t, m.Add(2, g.Sockets[2]))
	for i, h := range g.Sockets {
		v, err := unix.GetsockoptInt(h.FD(), unix.IPPROTO_IP, unix.IP_PKTINFO)
		require.NoError(t, err)
		require.Equal(t, 1, v, "socket %d", i)
		v, err = unix.GetsockoptInt(h.FD(), unix.SOL_SOCKET, unix.SO_RCVBUF)
		require.NoError(t, err)
		require.Equal(t, before/2 < v, i == 2, "socket %d", i)
	}
}

// Reads end with their deadline and with Close. What is removed is read no more.
func TestMergedPacketsEnd(t *testing.T) {
	m, g, _ := newMergedPackets(t, "udp4", "127.0.0.1:0", 2)
	for i, h := range g.Sockets {
		require.NoError(t, m.Add(i, h))
	}
	require.NoError(t, m.SetReadDeadline(time.Unix(1, 0)))
	_, _, err := m.ReadFrom(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.True(t, err.(net.Error).Timeout())
	require.NoError(t, m.SetDeadline(time.Time{}))
	for i := range g.Sockets {
		m.Remove(i)
	}
	require.Zero(t, m.Len())
	c, err := net.Dial("udp", g.Addr.String())
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("x"))
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { _, _, err := m.ReadFrom(make([]byte, 1)); ended <- err }()
	require.Eventually(t, func() bool { return waits(g) }, 30*time.Second, time.Millisecond)
	require.Empty(t, ended)
	require.NoError(t, m.Close())
	require.ErrorIs(t, await(t, ended), net.ErrClosed)
	require.ErrorIs(t, m.Close(), net.ErrClosed)
	require.ErrorIs(t, m.Add(0, g.Sockets[0]), net.ErrClosed)
}

// waits reports whether a datagram waits at one of the sockets.
func waits(g Group) bool {
	for _, h := range g.Sockets {
		if waitsAt(h) {
			return true
		}
	}
	return false
}

func waitsAt(h *handle.Handle) bool {
	n, _, err := unix.Recvfrom(h.FD(), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == nil && n > 0
}
