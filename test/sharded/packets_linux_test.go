package sharded_test

import (
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// replying is a worker that answers each datagram with its slot. It reads as programs do,
// by a method, or by the descriptor, as x/net does for batches.
var replying = clustertest.Program("replying", func() {
	pc, err := cluster.ListenPacket("udp", "127.0.0.1:0")
	clustertest.Must(err)
	c := pc.(interface {
		net.PacketConn
		syscall.Conn
	})
	rc, err := c.SyscallConn()
	clustertest.Must(err)
	b := make([]byte, 10)
	for {
		var to net.Addr
		if cluster.Worker.Slot()%2 == 0 {
			_, to, err = c.ReadFrom(b)
		} else {
			err = rc.Read(func(fd uintptr) bool {
				_, from, readErr := syscall.Recvfrom(int(fd), b, 0)
				if readErr == nil {
					from := from.(*syscall.SockaddrInet4)
					to = &net.UDPAddr{IP: from.Addr[:], Port: from.Port}
				}
				return readErr == nil
			})
		}
		clustertest.Must(err)
		_, err = c.WriteTo([]byte(strconv.Itoa(cluster.Worker.Slot())), to)
		clustertest.Must(err)
	}
})

// beginPackets starts n workers and returns where they read, and flows to them.
func beginPackets(t *testing.T, n, flows int, s cluster.Scheduling) (all []net.Conn) {
	t.Helper()
	clustertest.WithMaster(t, replying, cluster.Options{Workers: n, Scheduling: s, ReadyFor: time.Millisecond,
		Watchdog: cluster.Watchdog{Interval: 100 * time.Millisecond, Timeout: time.Hour}})
	addrs, ready := make(chan string, 100), make(chan bool, 100)
	t.Cleanup(cluster.OnListening(func(_ *cluster.Process, addr net.Addr) { addrs <- addr.String() }))
	t.Cleanup(cluster.OnReady(func(*cluster.Process) { ready <- true }))
	require.NoError(t, cluster.AutoFork())
	for range n {
		clustertest.Await(t, ready, "ready")
	}
	addr := clustertest.Await(t, addrs, "address")
	for range flows {
		c, err := net.Dial("udp", addr)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		all = append(all, c)
	}
	return all
}

// reply sends one datagram and returns the slot that answers it. Nothing may be lost.
func reply(t *testing.T, c net.Conn) (slot int) {
	t.Helper()
	_, err := c.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(clustertest.Patience)))
	b := make([]byte, 10)
	n, err := c.Read(b)
	require.NoError(t, err)
	return clustertest.Atoi(string(b[:n]))
}

// The datagrams of a flow come to one slot, and flows are spread. What a worker that is
// stopped leaves others read, and what comes to the slot of one that is dead; afterwards
// its flows are at home again.
func TestPackets(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	const n = 4
	flows := beginPackets(t, n, 48, cluster.Sharded)
	l := listener(t)
	require.Equal(t, "Sharded", l.Scheduling)
	require.Empty(t, l.Fallback)
	require.Equal(t, 64, l.Sockets)
	home := make([]int, len(flows))
	// A worker that gets no turn of this machine for a while has its flows read by others.
	clustertest.Eventually(t, func() bool {
		count := make(map[int]int)
		for i, c := range flows {
			home[i] = reply(t, c)
			count[home[i]]++
		}
		for i, c := range flows {
			if reply(t, c) != home[i] {
				return false
			}
		}
		return len(count) == n
	}, "flows that stay, at all slots")
	atHome := func() {
		t.Helper()
		clustertest.Eventually(t, func() bool {
			for i, c := range flows {
				if reply(t, c) != home[i] {
					return false
				}
			}
			return true
		}, "all flows at home at once")
	}
	w := bySlot(t, home[0])
	clustertest.PauseWorker(t, w)
	require.NotEqual(t, home[0], reply(t, flows[0]), "others read it")
	for _, c := range flows {
		require.NotEqual(t, home[0], reply(t, c))
	}
	clustertest.Kill(t, w.PID(), clustertest.SigCont)
	atHome()
	kill(t, w)
	for _, c := range flows {
		reply(t, c)
	}
	require.NoError(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)))
	atHome()
}

// By client, all flows of one address come to one slot.
func TestPacketsByClient(t *testing.T) {
	flows := beginPackets(t, 2, 20, cluster.ByClient)
	require.Equal(t, "ByClient", listener(t).Scheduling)
	clustertest.Eventually(t, func() bool {
		first := reply(t, flows[0])
		for _, c := range flows {
			if reply(t, c) != first {
				return false
			}
		}
		return true
	}, "all at one slot")
}
