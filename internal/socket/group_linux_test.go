package socket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/handle"
)

// openGroup opens n sockets, until the end of the test.
func openGroup(t *testing.T, network, address string, n int, choose []Instruction) Group {
	t.Helper()
	a, err := Resolve(network, address, false, Options{})
	require.NoError(t, err)
	g, err := OpenGroup(t.Context(), a, n, choose)
	require.NoError(t, err)
	require.NoError(t, g.Lack)
	t.Cleanup(func() {
		for _, h := range g.Sockets {
			h.Release()
		}
	})
	require.Len(t, g.Sockets, n)
	return g
}

// waiting is where the connections of a group wait.
func waiting(g Group) (all []int) {
	for _, h := range g.Sockets {
		n, _ := Queue(h)
		all = append(all, n)
	}
	return all
}

// settled waits until n connections wait, all told: the last step of each is the kernel's
// own, behind the back of the client.
func settled(t *testing.T, g Group, n int) (all []int) {
	t.Helper()
	require.Eventually(t, func() bool {
		all = waiting(g)
		sum := 0
		for _, n := range all {
			sum += n
		}
		return sum == n
	}, 30*time.Second, time.Millisecond)
	return all
}

// dialFrom connects from an address of this machine.
func dialFrom(t *testing.T, from string, to net.Addr) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(t.Context(), "tcp", to.String())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
}

// The sockets of a group share the connections, and nobody else gets the address: no
// group, and no socket alone.
func TestGroup(t *testing.T) {
	for network, address := range map[string]string{"tcp": ":0", "tcp4": "127.0.0.1:0", "udp": ":0", "udp4": "127.0.0.1:0"} {
		t.Run(network, func(t *testing.T) {
			g := openGroup(t, network, address, 8, nil)
			_, port := ipPort(g.Addr)
			again, err := Resolve(network, fmt.Sprintf(address[:len(address)-1]+"%d", port), false, Options{})
			require.NoError(t, err)
			_, err = OpenGroup(t.Context(), again, 8, nil)
			require.ErrorIs(t, err, unix.EADDRINUSE)
			_, _, _, err = Open(t.Context(), again)
			require.ErrorIs(t, err, unix.EADDRINUSE)
			if again.IsPacket() {
				return
			}
			const n = 64
			for range n {
				dialFrom(t, "127.0.0.1", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
			}
			all := 0
			for _, n := range settled(t, g, n) {
				all += min(n, 1)
			}
			require.Greater(t, all, 4, "%v", waiting(g))
		})
	}
}

// By chance, what comes again and again from one port of one client is on several sockets;
// the kernel's hash would choose the same one each time.
func TestByChance(t *testing.T) {
	const n = 8
	g := openGroup(t, "tcp4", "127.0.0.1:0", n, ByChance(n))
	require.NoError(t, g.Refused)
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, 1)}}
	used := make(map[int]bool)
	for i := range 64 {
		c, err := from.DialContext(t.Context(), "tcp4", g.Addr.String())
		require.NoError(t, err)
		from.LocalAddr = c.LocalAddr()
		for at, waiting := range settled(t, g, i+1) {
			used[at] = used[at] || waiting > 0
		}
		require.NoError(t, c.(*net.TCPConn).SetLinger(0)) // the port is free at once
		require.NoError(t, c.Close())
	}
	require.NotZero(t, from.LocalAddr.(*net.TCPAddr).Port)
	all := 0
	for _, has := range used {
		if has {
			all++
		}
	}
	require.Greater(t, all, n/2)
}

// One client is always on the same socket; different ones are on different sockets.
func TestByClient(t *testing.T) {
	for network, clients := range map[string]func(i int) string{
		"tcp4": func(i int) string { return fmt.Sprintf("127.0.1.%d", i+1) },
		"tcp":  func(i int) string { return fmt.Sprintf("127.0.1.%d", i+1) }, // v4-mapped
	} {
		t.Run(network, func(t *testing.T) {
			const n, each = 16, 5
			g := openGroup(t, network, ":0", n, ByClient(n))
			require.NoError(t, g.Refused)
			_, port := ipPort(g.Addr)
			for i := range n {
				for range each {
					dialFrom(t, clients(i), &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
				}
			}
			sockets := 0
			for _, n := range settled(t, g, n*each) {
				require.Zero(t, n%each, "%v", waiting(g))
				sockets += min(n, 1)
			}
			require.Greater(t, sockets, n/3, "%v", waiting(g))
		})
	}
	t.Run("tcp6", func(t *testing.T) {
		if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
			t.Skip("no IPv6 here")
		}
		const n = 16
		g := openGroup(t, "tcp6", "[::1]:0", n, ByClient(n))
		require.NoError(t, g.Refused)
		for range n {
			dialFrom(t, "::1", g.Addr)
		}
		require.Contains(t, settled(t, g, n), n)
	})
}

// A socket that cannot be opened takes the others with it, and leaves the first as one that
// is opened alone.
func TestGroupOfOne(t *testing.T) {
	a, err := Resolve("tcp", "127.0.0.1:0", false, Options{})
	require.NoError(t, err)
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	low, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer low.Close()
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(low.Fd()) + 8, Max: limit.Max}))
	g, err := OpenGroup(t.Context(), a, 64, nil)
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	require.NoError(t, err)
	require.ErrorIs(t, g.Lack, unix.EMFILE)
	require.Len(t, g.Sockets, 1)
	defer g.Sockets[0].Release()
	on, err := unix.GetsockoptInt(g.Sockets[0].FD(), unix.SOL_SOCKET, unix.SO_REUSEPORT)
	require.NoError(t, err)
	require.Zero(t, on)
	dialFrom(t, "127.0.0.1", g.Addr)
}

// acceptor accepts of m, until that is closed.
func acceptor(t *testing.T, m *Merged) <-chan net.Conn {
	accepted := make(chan net.Conn, 1000)
	go func() {
		defer close(accepted)
		for {
			c, err := m.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				accepted <- c
			}
		}
	}()
	t.Cleanup(func() {
		m.Close()
		for c := range accepted {
			c.Close()
		}
	})
	return accepted
}

func await[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing came")
	}
	return v
}

// Merged accepts what comes to any of its sockets, also to those that it gets while it
// waits. What comes to one that was taken from it waits there.
func TestMerged(t *testing.T) {
	g := openGroup(t, "tcp", "127.0.0.1:0", 4, nil)
	m, err := NewMerged()
	require.NoError(t, err)
	accepted := acceptor(t, m)
	for range 32 {
		dialFrom(t, "127.0.0.1", g.Addr)
	}
	require.Empty(t, accepted, "it has no socket")
	for i, h := range g.Sockets {
		require.NoError(t, m.Add(i, h))
	}
	for range 32 {
		require.IsType(t, &net.TCPConn{}, await(t, accepted))
	}
	require.NoError(t, m.Add(0, g.Sockets[0]), "in the place of itself")
	require.Equal(t, 4, m.Len())
	m.Remove(3)
	m.Remove(3)
	for range 64 {
		dialFrom(t, "127.0.0.1", g.Addr)
	}
	left := 0
	require.Eventually(t, func() bool {
		left = waiting(g)[3]
		return len(accepted)+left == 64
	}, 30*time.Second, time.Millisecond)
	for range 64 - left {
		await(t, accepted)
	}
	require.Positive(t, left)
	require.NoError(t, m.Add(3, g.Sockets[3]))
	for range left {
		await(t, accepted)
	}
}

// A connection that another process has taken is not waited for.
func TestMergedOvertaken(t *testing.T) {
	g := openGroup(t, "tcp", "127.0.0.1:0", 2, nil)
	var all []<-chan net.Conn
	for range 3 {
		m, err := NewMerged()
		require.NoError(t, err)
		for i, h := range g.Sockets {
			require.NoError(t, m.Add(i, h))
		}
		all = append(all, acceptor(t, m))
	}
	for range 200 {
		dialFrom(t, "127.0.0.1", g.Addr)
		select {
		case <-all[0]:
		case <-all[1]:
		case <-all[2]:
		case <-time.After(30 * time.Second):
			t.Fatal("nothing came")
		}
	}
}

// A deadline and Close end an Accept, and a deadline that is lifted is forgotten.
func TestMergedDeadline(t *testing.T) {
	g := openGroup(t, "tcp", "127.0.0.1:0", 2, nil)
	m, err := NewMerged()
	require.NoError(t, err)
	require.NoError(t, m.Add(0, g.Sockets[0]))
	require.NoError(t, m.SetDeadline(time.Unix(1, 0)))
	_, err = m.Accept()
	timeout, ok := err.(net.Error)
	require.True(t, ok && timeout.Timeout(), "%v", err)
	require.NoError(t, m.SetDeadline(time.Time{}))
	ended := make(chan error, 1)
	go func() { _, err := m.Accept(); ended <- err }()
	require.NoError(t, m.Close())
	require.ErrorIs(t, await(t, ended), net.ErrClosed)
	require.ErrorIs(t, m.Close(), net.ErrClosed)
	require.ErrorIs(t, m.Add(1, g.Sockets[1]), net.ErrClosed)
	require.Zero(t, m.Len())
}

// Traffic tells of the first connection, and of no other until it is armed again; then
// also of one that came meanwhile and waits.
func TestTraffic(t *testing.T) {
	g := openGroup(t, "tcp", "127.0.0.1:0", 4, nil)
	traffic, err := NewTraffic()
	require.NoError(t, err)
	for _, h := range g.Sockets {
		require.NoError(t, traffic.Add(h))
	}
	told := make(chan bool)
	go func() {
		defer close(told)
		for traffic.Wait() {
			told <- true
		}
	}()
	for range 20 {
		dialFrom(t, "127.0.0.1", g.Addr)
	}
	require.True(t, await(t, told))
	select {
	case <-told:
		t.Fatal("told twice")
	case <-time.After(50 * time.Millisecond): // it is not told: there is no event to wait for
	}
	require.NoError(t, traffic.Rest())
	require.True(t, await(t, told), "they wait")
	settled(t, g, 20)
	take(g.Sockets)
	require.NoError(t, traffic.Rest())
	select {
	case <-told:
		t.Fatal("told of nothing")
	case <-time.After(50 * time.Millisecond):
	}
	dialFrom(t, "127.0.0.1", g.Addr)
	require.True(t, await(t, told))
	settled(t, g, 1)
	var waiting []int
	traffic.Waiting(func(fd int) { waiting = append(waiting, fd) })
	require.Len(t, waiting, 1)
	for range 2 {
		require.NoError(t, traffic.After(time.Millisecond))
		require.True(t, await(t, told), "the time is over")
	}
	for i, h := range g.Sockets {
		require.Equal(t, len(g.Sockets)-1-i, traffic.Remove(h))
	}
	traffic.Close()
	require.False(t, await(t, told))
	require.ErrorIs(t, traffic.Rest(), os.ErrClosed)
	require.ErrorIs(t, traffic.After(time.Millisecond), os.ErrClosed)
	traffic.Waiting(func(int) { t.Error("closed") })
}

// take empties the queues.
func take(all []*handle.Handle) {
	for _, h := range all {
		for {
			fd, err := acceptNow(h.FD())
			if err != nil {
				break
			}
			unix.Close(fd)
		}
	}
}
