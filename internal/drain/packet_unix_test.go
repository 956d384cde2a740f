//go:build unix

package drain

import (
	"net"
	"os"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/stretchr/testify/require"
)

// A readsSource tells of its reads.
type readsSource struct {
	PacketSource
	begin, end chan struct{} // have room for each read of the test
}

func (s readsSource) ReadFrom(b []byte) (int, net.Addr, error) {
	s.begin <- struct{}{}
	defer func() { s.end <- struct{}{} }()
	return s.PacketSource.ReadFrom(b)
}

// TestPacketConn: in a drain reads wait until the socket is closed, and what was
// read before can still be answered.
func TestPacketConn(t *testing.T) {
	w := newWorker()
	close(w.work)
	raw, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	released := make(chan struct{})
	source := readsSource{raw.(*net.UDPConn), make(chan struct{}, 10), make(chan struct{}, 10)}
	c := w.PacketConn(source, raw.LocalAddr(), func() { close(released) })
	client, err := net.Dial("udp", c.LocalAddr().String())
	require.NoError(t, err)
	defer client.Close()

	require.Zero(t, w.accepts.Load())
	rc, err := c.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(uintptr) {}))
	require.Zero(t, w.accepts.Load())
	require.NoError(t, rc.Read(func(uintptr) bool { return true }))
	require.EqualValues(t, 1, w.accepts.Load(), "who reads from the descriptor reads")

	require.NoError(t, c.SetDeadline(past))
	_, _, err = c.ReadFrom(make([]byte, 10))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, c.SetDeadline(time.Time{}))
	_, err = client.Write([]byte("ask"))
	require.NoError(t, err)
	_, from, err := c.ReadFrom(make([]byte, 10))
	require.NoError(t, err)

	read := func() error { _, _, err := c.ReadFrom(make([]byte, 10)); return err }
	for range 2 {
		<-source.begin
		<-source.end
	}
	under := roomtest.Pending(read)
	<-source.begin
	w.Begin(ByMaster, time.Hour)
	w.ended(t)
	<-source.end // Until it has returned, it may still take what arrives.
	require.NoError(t, c.SetReadDeadline(time.Time{}))
	after := roomtest.Pending(read)
	_, err = client.Write([]byte("too late"))
	require.NoError(t, err)
	_, err = c.WriteTo([]byte("answer"), from)
	require.NoError(t, err)
	b := make([]byte, 10)
	n, err := client.Read(b)
	require.NoError(t, err)
	require.Equal(t, "answer", string(b[:n]))
	require.Empty(t, under)
	require.Empty(t, after)
	require.NoError(t, c.Close())
	require.ErrorIs(t, roomtest.Result(t, under), net.ErrClosed)
	require.ErrorIs(t, roomtest.Result(t, after), net.ErrClosed)
	require.ErrorIs(t, c.Close(), net.ErrClosed)
	<-released
}

// TestUDPConn: a UDP socket has all methods of package net's, and all reads wait in a drain.
func TestUDPConn(t *testing.T) {
	w := newWorker()
	close(w.work)
	raw, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	c := w.PacketConn(raw.(*net.UDPConn), raw.LocalAddr(), func() {}).(*udpConn)
	whole := reflect.TypeFor[*net.UDPConn]()
	for m := range whole.Methods() {
		_, ok := reflect.TypeOf(c).MethodByName(m.Name)
		require.True(t, ok, m.Name)
	}
	require.Nil(t, c.RemoteAddr())

	client, err := net.Dial("udp", c.LocalAddr().String())
	require.NoError(t, err)
	defer client.Close()
	to := client.LocalAddr().(*net.UDPAddr)
	b := make([]byte, 10)
	reads := map[string]func() (string, error){
		"Read":                func() (string, error) { n, err := c.Read(b); return string(b[:n]), err },
		"ReadFrom":            func() (string, error) { n, _, err := c.ReadFrom(b); return string(b[:n]), err },
		"ReadFromUDP":         func() (string, error) { n, _, err := c.ReadFromUDP(b); return string(b[:n]), err },
		"ReadFromUDPAddrPort": func() (string, error) { n, _, err := c.ReadFromUDPAddrPort(b); return string(b[:n]), err },
		"ReadMsgUDP":          func() (string, error) { n, _, _, _, err := c.ReadMsgUDP(b, nil); return string(b[:n]), err },
		"ReadMsgUDPAddrPort": func() (string, error) {
			n, _, _, _, err := c.ReadMsgUDPAddrPort(b, nil)
			return string(b[:n]), err
		},
		"SyscallConn": func() (text string, err error) {
			rc, err := c.SyscallConn()
			if err != nil {
				return "", err
			}
			err = rc.Read(func(fd uintptr) bool {
				n, err := syscall.Read(int(fd), b)
				text = string(b[:max(n, 0)])
				return err != syscall.EAGAIN
			})
			return text, err
		},
	}
	for name, read := range reads {
		_, err := client.Write([]byte(name[:4]))
		require.NoError(t, err)
		got, err := read()
		require.NoError(t, err, name)
		require.Equal(t, name[:4], got, name)
	}

	w.Begin(ByMaster, time.Hour)
	w.ended(t)
	done := make(map[string]<-chan error)
	for name, read := range reads {
		done[name] = roomtest.Pending(func() error { _, err := read(); return err })
	}
	for name, write := range map[string]func([]byte) error{
		"WriteTo":            func(b []byte) error { _, err := c.WriteTo(b, to); return err },
		"WriteToUDP":         func(b []byte) error { _, err := c.WriteToUDP(b, to); return err },
		"WriteToUDPAddrPort": func(b []byte) error { _, err := c.WriteToUDPAddrPort(b, to.AddrPort()); return err },
		"WriteMsgUDP":        func(b []byte) error { _, _, err := c.WriteMsgUDP(b, nil, to); return err },
		"WriteMsgUDPAddrPort": func(b []byte) error {
			_, _, err := c.WriteMsgUDPAddrPort(b, nil, to.AddrPort())
			return err
		},
	} {
		require.NoError(t, write([]byte(name)), name)
		answer := make([]byte, 30)
		n, err := client.Read(answer)
		require.NoError(t, err)
		require.Equal(t, name, string(answer[:n]))
	}
	require.NoError(t, c.Close())
	for name, end := range done {
		require.ErrorIs(t, roomtest.Result(t, end), net.ErrClosed, name)
	}
}

// TestPacketConnOfAnOrphan: when the master is gone its successor can have the address,
// whether a drain is under way or not. Reads wait all the same.
func TestPacketConnOfAnOrphan(t *testing.T) {
	for name, before := range map[string]bool{"at rest": false, "in a drain": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorker()
			raw, err := net.ListenPacket("udp", "127.0.0.1:0")
			require.NoError(t, err)
			c := w.PacketConn(raw.(*net.UDPConn), raw.LocalAddr(), func() {})
			read := make(chan error, 1)
			go func() {
				_, _, err := c.ReadFrom(make([]byte, 1))
				read <- err
			}()
			if before {
				w.Begin(ByStop, time.Hour)
			}
			w.Begin(ByOrphan, time.Hour)
			require.Eventually(t, func() bool {
				next, err := net.ListenPacket("udp", raw.LocalAddr().String())
				if err == nil {
					next.Close()
				}
				return err == nil
			}, roomtest.Patience, time.Millisecond)
			require.Empty(t, read)
			require.NoError(t, c.Close())
			require.ErrorIs(t, <-read, net.ErrClosed)
			close(w.work)
		})
	}
}
