package share

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/socket"
)

// Another process that has a lent socket can make accept(2) on it wait. Then nobody waits for
// the accepting goroutine, and that goes on.
func TestLentSocketThatBlocks(t *testing.T) {
	h, addr, _, err := socket.Open(t.Context(), resolved(t, "tcp", "127.0.0.1:0").Address)
	require.NoError(t, err)
	defer h.Release()
	d, err := newDispatcher("key", []*handle.Handle{h}, true, inTurn{}, closeConn(new(handle.Closer), addr), func(error) {})
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, unix.SetNonblock(h.FD(), false))
		worker := newCommandWorker()
		worker.take.Store(true)
		close(worker.may)
		within(t, func() { d.add(worker) })
		c, err := net.Dial("tcp", addr.String())
		require.NoError(t, err)
		defer c.Close()
		roomtest.Await(t, worker.taken, "connection").Release()
		d.remove(worker)
	}
	require.NoError(t, unix.SetNonblock(h.FD(), false))
	within(t, func() { d.handOut(true) })
	within(t, d.close)
}

// within calls fn, which must not wait for anybody.
func within(t *testing.T, fn func()) {
	t.Helper()
	done := make(chan bool, 1)
	go func() { fn(); done <- true }()
	roomtest.Await(t, done, "return")
}

// A worker can make the close of a connection that it has taken wait. Its answer is
// looked at all the same.
func TestTakenConnectionLingers(t *testing.T) {
	d, dial := newDispatcherFor(t)
	worker := newCommandWorker()
	worker.take.Store(true)
	d.add(worker)
	client := dial()
	h := roomtest.Await(t, worker.taken, "connection")
	var err error
	for err == nil {
		_, err = unix.Write(h.FD(), make([]byte, 64<<10))
	}
	require.ErrorIs(t, err, unix.EAGAIN)
	require.NoError(t, unix.SetsockoptLinger(h.FD(), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}))
	h.Release()
	close(worker.may)
	require.Eventually(t, func() bool { return worker.took.Load() == 1 }, roomtest.Patience, time.Millisecond)
	client.Close()
}

// Nor does the close of a unix connection hold up anybody, which closes what a client has
// sent with it and no worker has read: here a connection that lingers.
func TestUnixConnectionHasDescriptors(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	c, err := ln.Accept()
	require.NoError(t, err)
	h, err := socket.Duplicate(c.(*net.TCPConn))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	for err == nil {
		_, err = unix.Write(h.FD(), make([]byte, 64<<10))
	}
	require.ErrorIs(t, err, unix.EAGAIN)
	require.NoError(t, unix.SetsockoptLinger(h.FD(), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}))
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Sendmsg(ends[0], []byte("x"), unix.UnixRights(h.FD()), nil, 0))
	h.Release()
	unix.Close(ends[0])
	within(t, func() { closeConn(new(handle.Closer), &net.UnixAddr{Net: "unix"})(ends[1]) })
}
