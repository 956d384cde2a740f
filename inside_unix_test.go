//go:build unix

package cluster

import (
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/socket"
)

// writeFar writes p, with n descriptors beside it.
func writeFar(peer roomtest.Peer, p []byte, n uint8) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return
	}
	defer null.Close()
	rights := make([]int, n)
	for i := range rights {
		rights[i] = int(null.Fd())
	}
	sent, _, _ := peer.(*net.UnixConn).WriteMsgUnix(p, unix.UnixRights(rights...), nil)
	peer.Write(p[sent:])
}

// drainFar reads to the end.
func drainFar(peer roomtest.Peer) {
	p, oob := make([]byte, 4096), make([]byte, 4096)
	for {
		_, oobn, _, _, err := peer.(*net.UnixConn).ReadMsgUnix(p, oob)
		for _, fd := range channel.ParseRights(oob[:oobn]) {
			unix.Close(fd)
		}
		if err != nil {
			return
		}
	}
}

// endFar says that nothing more is written.
func endFar(peer roomtest.Peer) { peer.(*net.UnixConn).CloseWrite() }

// anyHandle is one that can be passed on.
func anyHandle(t testing.TB) *handle.Handle {
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer f.Close()
	h, err := socket.Duplicate(f)
	require.NoError(t, err)
	return h
}

// TestStopBehindControlSignals: a SIGTERM is taken, however many signals of the
// other kind wait.
func TestStopBehindControlSignals(t *testing.T) {
	stops, controls, end := newCluster().master.takeSignals(new(running))
	defer end()
	deadline := time.Now().Add(30 * time.Second)
	for len(controls) < cap(controls) {
		require.True(t, time.Now().Before(deadline), "%d signals have come", len(controls))
		before := len(controls)
		require.NoError(t, unix.Kill(os.Getpid(), syscall.SIGHUP))
		for len(controls) == before && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond) // two at once are one
		}
	}
	require.NoError(t, unix.Kill(os.Getpid(), syscall.SIGTERM))
	require.Equal(t, syscall.SIGTERM, roomtest.Await(t, stops, "the stop"))
}
