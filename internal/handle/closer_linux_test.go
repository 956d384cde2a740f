package handle

import (
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// duplicate is another descriptor of c's, which is closed.
func duplicate(t *testing.T, c interface {
	syscall.Conn
	Close() error
}) (fd int) {
	rc, err := c.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) }))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	return fd
}

// lingering is a descriptor whose close waits until the client closes.
func lingering(t *testing.T) (fd int, client net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	client, err = net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	c, err := ln.Accept()
	require.NoError(t, err)
	fd = duplicate(t, c.(*net.TCPConn))
	for err == nil {
		_, err = unix.Write(fd, make([]byte, 64<<10))
	}
	require.ErrorIs(t, err, unix.EAGAIN)
	require.NoError(t, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}))
	return fd, client
}

// Nobody waits for the close of a socket that lingers, nor for another one behind it.
func TestCloserDoesNotWait(t *testing.T) {
	c := new(Closer)
	var clients []net.Conn
	for i := range 5 {
		fd, client := lingering(t)
		[]func(int){c.Close, c.CloseTCP}[i%2](fd)
		clients = append(clients, client)
	}
	require.False(t, c.Await(4, time.Millisecond))
	require.True(t, c.Await(5, roomtest.Patience))
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	c.Later(duplicate(t, w))
	_, err = r.Read(make([]byte, 1)) // ends since nobody holds the other end
	require.Error(t, err)
	for _, client := range clients {
		client.Close()
	}
	require.True(t, c.Await(0, roomtest.Patience))
}

// A descriptor whose close cannot wait is closed when Close returns: above all a listener, even
// if its connections linger.
func TestCloserClosesAtOnce(t *testing.T) {
	c := new(Closer)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	fd := duplicate(t, ln.(*net.TCPListener))
	require.NoError(t, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}))
	c.Close(fd)
	require.Zero(t, c.busy)
	_, err = net.Dial("tcp", ln.Addr().String())
	require.Error(t, err)
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	c.Close(duplicate(t, udp.(*net.UDPConn)))
	require.Zero(t, c.busy)
}
