package parcel

import (
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/go-cluster/cluster/internal/errs"
)

// datagrams is a UDP socket. Package net opens none under Wine.
type datagrams struct {
	net.PacketConn
	s windows.Handle
}

func (d datagrams) SyscallConn() (syscall.RawConn, error)    { return d, nil }
func (d datagrams) Control(f func(fd uintptr)) error         { f(uintptr(d.s)); return nil }
func (d datagrams) Read(func(fd uintptr) (done bool)) error  { return nil }
func (d datagrams) Write(func(fd uintptr) (done bool)) error { return nil }

// TestPack: connections and listeners go; the rest says that it does not, and what
// does.
func TestPack(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	for _, v := range []any{ln, client} {
		out, err := Pack(v)
		require.NoError(t, err)
		require.NotEmpty(t, out.Node.Type)
		out.Handle.Release()
	}
	s, err := windows.WSASocket(windows.AF_INET, windows.SOCK_DGRAM, windows.IPPROTO_UDP, nil, 0, windows.WSA_FLAG_OVERLAPPED)
	require.NoError(t, err)
	defer windows.Closesocket(s)
	for _, v := range []any{datagrams{s: s}, os.Stdin} {
		_, err = Pack(v)
		require.ErrorIs(t, err, errs.NotSupported)
		require.ErrorContains(t, err, "send a TCP connection or listener")
	}
}

// TestParcel: what came is a connection, which is taken once and as nothing else.
func TestParcel(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	out, err := Pack(client)
	require.NoError(t, err)
	p := New(out.Handle)
	for method, take := range map[string]func() error{
		"Listener":   func() error { _, err := p.Listener(); return err },
		"PacketConn": func() error { _, err := p.PacketConn(); return err },
		"File":       func() error { _, err := p.File(); return err },
	} {
		require.ErrorContains(t, take(), "what came is a connection: take it with Conn", method)
	}
	require.True(t, p.Has())
	c, err := p.Conn()
	require.NoError(t, err)
	require.NoError(t, c.Close())
	_, err = p.Conn()
	require.ErrorIs(t, err, errTaken)
}
