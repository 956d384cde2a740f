package socket

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/roomtest"
)

var testTag = FlowTag{0xc1, 0x05, 0x7e, 0x12}

const testIDLength = 14

// flowsAt opens a group on a free port, and a reader for each of its sockets that tells
// the index of what it has read.
func flowsAt(t *testing.T, network, address string, shares, more int) (f *Flows, read func(what string) int) {
	t.Helper()
	a, err := Resolve(network, address, false, Options{})
	require.NoError(t, err)
	f, err = OpenFlows(t.Context(), a, shares, testTag, testIDLength)
	require.NoError(t, err)
	t.Cleanup(f.Release)
	for range more {
		require.NoError(t, f.Append(t.Context()))
	}
	require.Len(t, f.Sockets, shares+more)
	return f, func(what string) int {
		t.Helper()
		polled := make([]unix.PollFd, len(f.Sockets))
		for i, h := range f.Sockets {
			polled[i] = unix.PollFd{Fd: int32(h.FD()), Events: unix.POLLIN}
		}
		n, err := unix.Poll(polled, int(roomtest.Patience/time.Millisecond))
		require.NoError(t, err)
		require.Equal(t, 1, n, what)
		for i, p := range polled {
			if p.Revents != 0 {
				b := make([]byte, 2000)
				n, _, err := unix.Recvfrom(int(p.Fd), b, 0)
				require.NoError(t, err)
				require.Equal(t, what, string(b[:n]))
				return i
			}
		}
		return -1
	}
}

func longPacket(id string) string {
	return "\xc0\x00\x00\x00\x01" + string(byte(len(id))) + id + "\x00payload"
}

func shortPacket(id string) string { return "\x40" + id + "payload" }

// ours is a connection ID of the group.
func ours(cookie uint16) string {
	return string(testTag[:]) + string(binary.BigEndian.AppendUint16(nil, cookie)) + "12345678"
}

// TestFlows: what has an ID of ours comes to its socket, from wherever it comes; what has
// not to one of the shares, and all of one client to the same.
func TestFlows(t *testing.T) {
	for _, at := range []struct{ network, address, from string }{
		{"udp", "127.0.0.1:0", "127.0.0.1:0"},
		{"udp", "[::1]:0", "[::1]:0"},
		{"udp", ":0", "127.0.0.1:0"}, // dual-stack: a client of IPv4
		{"udp", ":0", "[::1]:0"},
		{"udp4", "0.0.0.0:0", "127.0.0.1:0"},
	} {
		t.Run(at.network+" "+at.address+" from "+at.from, func(t *testing.T) {
			client := func() net.PacketConn {
				c, err := net.ListenPacket("udp", at.from)
				if err != nil {
					t.Skip(err)
				}
				t.Cleanup(func() { c.Close() })
				return c
			}
			const shares, more = 16, 3
			c := client()
			f, read := flowsAt(t, at.network, at.address, shares, more)
			to := netip.AddrPortFrom(c.LocalAddr().(*net.UDPAddr).AddrPort().Addr(), f.Addr.(*net.UDPAddr).AddrPort().Port())
			comesTo := func(c net.PacketConn, what string) int {
				t.Helper()
				_, err := c.WriteTo([]byte(what), net.UDPAddrFromAddrPort(to))
				require.NoError(t, err)
				return read(what)
			}
			for cookie := range more {
				for range 3 {
					c := client()
					require.Equal(t, shares+cookie, comesTo(c, shortPacket(ours(uint16(cookie)))))
					require.Equal(t, shares+cookie, comesTo(c, longPacket(ours(uint16(cookie)))))
				}
			}
			home := comesTo(c, longPacket("random-1"))
			require.Less(t, home, shares)
			for _, what := range []string{longPacket("another-ID-14."), longPacket(ours(0) + "longer"), shortPacket("another-ID-14."), longPacket("")} {
				require.Equal(t, home, comesTo(c, what), "%q", what)
			}
			require.Zero(t, comesTo(c, "\xc0"))
			require.Zero(t, comesTo(c, "\x40"+string(testTag[:3])))
			comesTo(c, shortPacket(ours(more))) // it is somebody's

			spread := make(map[int]bool)
			for range 64 {
				spread[comesTo(client(), longPacket("random-1"))] = true
			}
			require.Greater(t, len(spread), shares/2, "64 clients")
			for i := range spread {
				require.Less(t, i, shares)
			}
		})
	}
}

// TestFlowsAreAlone: nobody else has the address, and who comes second is told.
func TestFlowsAreAlone(t *testing.T) {
	f, _ := flowsAt(t, "udp", "127.0.0.1:0", 4, 1)
	a, err := Resolve("udp", f.Addr.String(), false, Options{})
	require.NoError(t, err)
	_, err = OpenFlows(t.Context(), a, 4, testTag, testIDLength)
	require.ErrorIs(t, err, unix.EADDRINUSE)
	_, err = net.ListenPacket("udp", f.Addr.String())
	require.ErrorIs(t, err, unix.EADDRINUSE)
	f.Release()
	f, err = OpenFlows(t.Context(), a, 4, testTag, testIDLength)
	require.NoError(t, err)
	f.Release()
}
