//go:build unix

package handles_test

import (
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// networks are those whose connections and listeners can be sent.
var networks = []string{"tcp", "unix"}

// TestSendPacketConn: a worker answers on a datagram socket of the master's.
func TestSendPacketConn(t *testing.T) {
	early, err := cluster.ListenPacket("udp", "127.0.0.1:0") // before the fork
	require.NoError(t, err)
	defer early.Close()
	workers, outcomes := takers(t, 1, cluster.Options{})
	plain, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer plain.Close()
	held, err := cluster.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer held.Close()
	for _, c := range []net.PacketConn{early, plain, held} {
		require.NoError(t, workers[0].SendHandle(parcel{Cmd: "packet"}, c))
		o := clustertest.Await(t, outcomes, "outcome")
		require.Empty(t, o.Errors)
		require.Equal(t, c.LocalAddr().String(), o.Text)
		client, err := net.Dial("udp", o.Text)
		require.NoError(t, err)
		defer client.Close()
		_, err = client.Write([]byte("hello"))
		require.NoError(t, err)
		client.SetReadDeadline(time.Now().Add(clustertest.Patience))
		b := make([]byte, 100)
		n, err := client.Read(b)
		require.NoError(t, err)
		require.Equal(t, "worker "+strconv.Itoa(workers[0].ID())+" hello", string(b[:n]))
	}
}

// TestSendFile: files of any kind travel with their offset, and nobody's O_NONBLOCK
// changes.
func TestSendFile(t *testing.T) {
	workers, outcomes := takers(t, 1, cluster.Options{})
	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteString("head and tail")
	require.NoError(t, err)
	_, err = f.Seek(int64(len("head and ")), io.SeekStart)
	require.NoError(t, err)
	require.NoError(t, workers[0].SendHandle(parcel{Cmd: "file"}, f))
	o := clustertest.Await(t, outcomes, "outcome")
	require.Empty(t, o.Errors)
	require.Equal(t, "tail", o.Text)

	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	require.NoError(t, workers[0].SendHandle(parcel{Cmd: "file"}, r))
	_, err = w.WriteString("through a pipe")
	require.NoError(t, err)
	require.NoError(t, w.Close())
	o = clustertest.Await(t, outcomes, "outcome")
	require.Empty(t, o.Errors)
	require.Equal(t, "through a pipe", o.Text)
	require.NoError(t, r.SetReadDeadline(time.Now()), "it blocks now")
}

// TestResetOnTheWay: a connection whose client has gone is an error, and not a
// connection without an address.
func TestResetOnTheWay(t *testing.T) {
	workers, outcomes := takers(t, 1, cluster.Options{})
	server, client := pair(t, "tcp")
	require.NoError(t, client.(*net.TCPConn).SetLinger(0))
	require.NoError(t, client.Close())
	clustertest.Eventually(t, func() bool {
		_, err := server.Read(make([]byte, 1))
		return err != nil && !errors.Is(err, io.EOF)
	}, "reset")
	require.NoError(t, workers[0].SendHandle(parcel{Cmd: "conn"}, server))
	o := clustertest.Await(t, outcomes, "outcome")
	require.Len(t, o.Errors, 1)
	require.True(t, strings.Contains(o.Errors[0], "not connected"), "%v", o.Errors)
}
