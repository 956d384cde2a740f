package socket

import (
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

// sharedSocket is a socket that listens, and a listener on it as a worker has one.
func sharedSocket(t *testing.T, network, address string) (*handle.Handle, net.Listener) {
	t.Helper()
	a, err := Resolve(network, address, false, Options{})
	require.NoError(t, err)
	h, _, err := openTCP(a)
	require.NoError(t, err)
	t.Cleanup(h.Release)
	ln, err := NewListener(h)
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	return h, ln
}

// connected is a connection that ln has accepted, and the client's end.
func connected(t *testing.T, ln net.Listener) (server *Conn, client *net.TCPConn) {
	t.Helper()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	s, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s.(*Conn), c.(*net.TCPConn)
}

// TestSharedSocketIsSharedByProcesses: two sockets that WSADuplicateSocket made
// of one accept side by side, IPv4 and IPv6; Close ends the Accepts under way of
// the one, at once, and the other has all connections from then on.
func TestSharedSocketIsSharedByProcesses(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		t.Run(address, func(t *testing.T) {
			h, ours := sharedSocket(t, "tcp", address)
			text, err := handle.Duplicate(h.Socket(), os.Getpid())
			require.NoError(t, err)
			other, err := handle.Adopt(text)
			require.NoError(t, err)
			defer other.Release()
			theirs, err := NewListener(other)
			require.NoError(t, err)
			defer theirs.Close()
			require.Equal(t, ours.Addr(), theirs.Addr())

			ends := make(chan error, 3)
			for range cap(ends) {
				go func() {
					_, err := ours.Accept()
					ends <- err
				}()
			}
			roomtest.Selecting(t, "(*calls).waitOnce", cap(ends))
			begun := time.Now()
			require.NoError(t, ours.Close())
			require.Less(t, time.Since(begun), roomtest.Patience/10)
			for range cap(ends) {
				require.ErrorIs(t, roomtest.Await(t, ends, "end of Accept"), net.ErrClosed)
			}
			require.ErrorIs(t, ours.Close(), net.ErrClosed)
			for range 20 {
				server, client := connected(t, theirs)
				_, err := server.Write([]byte("x"))
				require.NoError(t, err)
				_, err = io.ReadFull(client, make([]byte, 1))
				require.NoError(t, err)
			}
		})
	}
}

// TestCloseWaitsForItsAccepts: when Close returns no Accept is under way, which
// would take a connection from the other processes; and the kernel has done with
// what it had the addresses of.
func TestCloseWaitsForItsAccepts(t *testing.T) {
	for range 20 {
		_, ln := sharedSocket(t, "tcp", "127.0.0.1:0")
		a := ln.(*listener).a
		o, err := a.begin()
		require.NoError(t, err)
		a.end(o) // the next one's
		accept := roomtest.Pending(func() error {
			_, err := ln.Accept()
			return err
		})
		roomtest.Selecting(t, "(*calls).waitOnce", 1)
		require.EqualValues(t, windows.STATUS_PENDING, o.ov.Internal)
		require.NoError(t, ln.Close())
		require.NotEqualValues(t, windows.STATUS_PENDING, o.ov.Internal, "the kernel has it")
		require.Zero(t, o.event, "an Accept is under way")
		require.ErrorIs(t, roomtest.Result(t, accept), net.ErrClosed)
	}
}

// TestAbortWaitsForTheKernel: a call that is cancelled has not ended for that, and
// may end with a connection.
func TestAbortWaitsForTheKernel(t *testing.T) {
	_, ln := sharedSocket(t, "tcp", "127.0.0.1:0")
	a := ln.(*listener).a
	o, err := a.begin()
	require.NoError(t, err)
	defer a.end(o)
	l := a.h.Socket()
	start := func() {
		o.ov = windows.Overlapped{HEvent: o.event | 1}
		require.ErrorIs(t, a.start(l, o, toAccept(t, a)), windows.ERROR_IO_PENDING)
	}
	start()
	dialed := make(chan net.Conn, 1)
	// Wine's CancelIoEx has ended the call when it returns, and Windows' not.
	slow := func(windows.Handle, *windows.Overlapped) error {
		go func() {
			c, _ := net.Dial("tcp", ln.Addr().String())
			dialed <- c
		}()
		return nil
	}
	require.NoError(t, o.abort(l, net.ErrClosed, slow), "the connection came in time")
	require.NotEqualValues(t, windows.STATUS_PENDING, o.ov.Internal, "the kernel has it")
	client := roomtest.Await(t, dialed, "client")
	require.NotNil(t, client)
	require.NoError(t, client.Close())

	start()
	require.ErrorIs(t, o.abort(l, net.ErrClosed, windows.CancelIoEx), net.ErrClosed)
}

// toAccept is a socket that becomes a connection.
func toAccept(t *testing.T, a *Acceptor) windows.Handle {
	s, err := newSocket(a.family)
	require.NoError(t, err)
	t.Cleanup(func() { windows.Closesocket(s) })
	return s
}

func readByte(c net.Conn) func() error {
	return func() error {
		_, err := c.Read(make([]byte, 10))
		return err
	}
}

// TestConnCloseIsClosesocket: what does the waiting would close the socket with
// CloseHandle, and not at its last reference, but under those who hold it.
func TestConnCloseIsClosesocket(t *testing.T) {
	_, ln := sharedSocket(t, "tcp", "127.0.0.1:0")
	c, client := connected(t, ln)
	h := c.h.Retain()
	reading := roomtest.Pending(readByte(c))
	require.NoError(t, c.Close())
	require.ErrorIs(t, roomtest.Result(t, reading), net.ErrClosed)
	require.True(t, roomtest.IsSocket(uintptr(h.FD())), "it is closed")
	client.SetReadDeadline(time.Unix(1, 0))
	require.ErrorIs(t, readByte(client)(), os.ErrDeadlineExceeded, "the client sees no end")
	h.Release()
	require.False(t, roomtest.IsSocket(uintptr(h.FD())), "it is left open")
	client.SetReadDeadline(time.Now().Add(roomtest.Patience))
	require.ErrorIs(t, readByte(client)(), io.EOF)
}

// TestSharedSocketDeadline: past, future, moved and lifted while an Accept waits.
// What was in the queue stays there.
func TestSharedSocketDeadline(t *testing.T) {
	_, l := sharedSocket(t, "tcp", "127.0.0.1:0")
	ln := l.(*listener)
	accept := func() <-chan error {
		return roomtest.Pending(func() error {
			c, err := ln.Accept()
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	require.NoError(t, ln.SetDeadline(time.Unix(1, 0)))
	err := roomtest.Result(t, accept())
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
	require.NoError(t, ln.SetDeadline(time.Now().Add(20*time.Millisecond)))
	require.ErrorIs(t, roomtest.Result(t, accept()), os.ErrDeadlineExceeded)
	require.NoError(t, ln.SetDeadline(time.Time{}))
	waiting := accept()
	require.NoError(t, ln.SetDeadline(time.Now().Add(time.Hour)))
	require.NoError(t, ln.SetDeadline(time.Unix(1, 0)))
	require.ErrorIs(t, roomtest.Result(t, waiting), os.ErrDeadlineExceeded)
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, ln.SetDeadline(time.Time{}))
	require.NoError(t, roomtest.Result(t, accept()))
	require.NoError(t, ln.Close())
	require.ErrorIs(t, ln.SetDeadline(time.Time{}), net.ErrClosed)
}

// TestSharedSocketLeaksNothing: connection after connection, of many clients and
// many Accepts at once, each is accepted once, and no handle is left.
func TestSharedSocketLeaksNothing(t *testing.T) {
	_, ln := sharedSocket(t, "tcp", "127.0.0.1:0")
	const clients, each = 8, 25
	var accepting sync.WaitGroup
	accepted := make(chan net.Conn, clients*each)
	for range 4 {
		accepting.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				accepted <- c
			}
		})
	}
	round := func() {
		var dialing sync.WaitGroup
		for range clients {
			dialing.Go(func() {
				for range each {
					c, err := net.Dial("tcp", ln.Addr().String())
					if err != nil {
						t.Error(err)
						return
					}
					io.ReadAll(c)
					c.Close()
				}
			})
		}
		for range clients * each {
			roomtest.Await(t, accepted, "connection").Close()
		}
		dialing.Wait()
	}
	round() // the threads that it needs stay, and each has handles
	before := handles(t)
	for range 3 {
		round()
	}
	require.Less(t, handles(t), before+clients*each/2, "of %d connections", 3*clients*each)
	require.NoError(t, ln.Close())
	accepting.Wait()
	require.Empty(t, accepted)
}

// TestAcceptSurvivesResets: clients that go at once are no error.
func TestAcceptSurvivesResets(t *testing.T) {
	_, ln := sharedSocket(t, "tcp", "127.0.0.1:0")
	for range 100 {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		require.NoError(t, c.(*net.TCPConn).SetLinger(0))
		require.NoError(t, c.Close())
	}
	last, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer last.Close()
	for {
		c, err := ln.Accept()
		require.NoError(t, err)
		c.Close()
		if c.RemoteAddr().String() == last.LocalAddr().String() {
			return
		}
	}
}

var procHandleCount = windows.NewLazySystemDLL("kernel32.dll").NewProc("GetProcessHandleCount")

// handles is how many this process has.
func handles(t *testing.T) int {
	t.Helper()
	var n uint32
	ok, _, err := procHandleCount.Call(uintptr(windows.CurrentProcess()), uintptr(unsafe.Pointer(&n)))
	require.NotZero(t, ok, err)
	return int(n)
}

// TestSocketOptions: a connection begins with what package net sets, and each can
// be changed.
func TestSocketOptions(t *testing.T) {
	_, ln := sharedSocket(t, "tcp", "127.0.0.1:0")
	c, _ := connected(t, ln)
	get := func(level, opt int) int {
		n, err := windows.GetsockoptInt(c.h.Socket(), level, opt)
		require.NoError(t, err)
		return n
	}
	on := func(level, opt int) bool { return get(level, opt) != 0 }
	require.True(t, on(windows.IPPROTO_TCP, windows.TCP_NODELAY))
	require.True(t, on(windows.SOL_SOCKET, windows.SO_KEEPALIVE))
	require.NoError(t, c.SetNoDelay(false))
	require.False(t, on(windows.IPPROTO_TCP, windows.TCP_NODELAY))
	require.NoError(t, c.SetKeepAlive(false))
	require.False(t, on(windows.SOL_SOCKET, windows.SO_KEEPALIVE))
	require.NoError(t, c.SetKeepAlivePeriod(time.Minute))
	require.True(t, on(windows.SOL_SOCKET, windows.SO_KEEPALIVE))
	require.NoError(t, c.SetKeepAliveConfig(net.KeepAliveConfig{}))
	require.False(t, on(windows.SOL_SOCKET, windows.SO_KEEPALIVE))
	require.NoError(t, c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 7 * time.Second, Interval: 3 * time.Second}))
	require.True(t, on(windows.SOL_SOCKET, windows.SO_KEEPALIVE))
	require.NoError(t, c.SetReadBuffer(1<<16))
	require.NoError(t, c.SetWriteBuffer(1<<16))
	require.NoError(t, c.SetLinger(0))
	require.NoError(t, c.Close())
	for _, err := range []error{c.SetNoDelay(true), c.SetKeepAlive(true), c.SetLinger(1), c.CloseWrite(), c.CloseRead()} {
		require.ErrorIs(t, err, net.ErrClosed)
	}
}

// TestSocketHalves: each side can be shut down for itself.
func TestSocketHalves(t *testing.T) {
	_, ln := sharedSocket(t, "tcp", "127.0.0.1:0")
	server, client := connected(t, ln)
	_, err := server.Write([]byte("all"))
	require.NoError(t, err)
	require.NoError(t, server.CloseWrite())
	b, err := io.ReadAll(client)
	require.NoError(t, err)
	require.Equal(t, "all", string(b))
	_, err = server.Write([]byte("more"))
	require.Error(t, err)
	_, err = client.Write([]byte("answer"))
	require.NoError(t, err)
	require.NoError(t, client.Close())
	b, err = io.ReadAll(server)
	require.NoError(t, err)
	require.Equal(t, "answer", string(b))
}

// TestSocketRaw: SyscallConn gives the socket, and its Read waits until there is
// something to read.
func TestSocketRaw(t *testing.T) {
	_, ln := sharedSocket(t, "tcp", "127.0.0.1:0")
	server, client := connected(t, ln)
	rc, err := server.SyscallConn()
	require.NoError(t, err)
	tries := make(chan struct{}, 100)
	buf := make([]byte, 10)
	got := 0
	reading := roomtest.Pending(func() error {
		return rc.Read(func(fd uintptr) bool {
			tries <- struct{}{}
			got = readWaiting(windows.Handle(fd), buf)
			return got > 0
		})
	})
	roomtest.Await(t, tries, "first try")
	_, err = client.Write([]byte("raw"))
	require.NoError(t, err)
	require.NoError(t, roomtest.Result(t, reading))
	require.Equal(t, "raw", string(buf[:got]))
	raw, err := ln.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { require.True(t, roomtest.IsSocket(fd)) }))
	require.NoError(t, ln.Close())
	require.ErrorIs(t, raw.Control(func(uintptr) {}), net.ErrClosed)
}

// readWaiting reads what has come; a read of a socket that has nothing would wait.
func readWaiting(s windows.Handle, p []byte) int {
	const fionread = 0x4004667f
	var waiting, n, flags uint32
	windows.WSAIoctl(s, fionread, nil, 0, (*byte)(unsafe.Pointer(&waiting)), uint32(unsafe.Sizeof(waiting)), &n, nil, 0)
	if waiting == 0 {
		return 0
	}
	b := windows.WSABuf{Len: uint32(len(p)), Buf: &p[0]}
	windows.WSARecv(s, &b, 1, &n, &flags, nil, nil)
	return int(n)
}

// TestSocketErrors have the numbers of Winsock, by both their names.
func TestSocketErrors(t *testing.T) {
	_, ln := sharedSocket(t, "tcp", "127.0.0.1:0")
	server, client := connected(t, ln)
	require.NoError(t, client.SetLinger(0))
	require.NoError(t, client.Close()) // a reset
	var err error
	for err == nil {
		_, err = server.Write(make([]byte, 1<<10))
	}
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	require.Equal(t, server.LocalAddr(), op.Source)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	// ReadFile has names of its own for what Winsock says.
	err = server.opError("read", &fs.PathError{Op: "read", Path: "tcp", Err: windows.ERROR_NETNAME_DELETED})
	require.ErrorIs(t, err, windows.WSAECONNRESET)
	require.ErrorIs(t, err, syscall.ECONNRESET)

	for unix, winsock := range posix {
		for _, number := range []syscall.Errno{unix, winsock} { // as the wire may have it
			err := ErrnoOf(-int(number))
			require.ErrorIs(t, err, unix)
			require.ErrorIs(t, err, winsock)
		}
	}
	require.ErrorIs(t, ErrnoOf(int(windows.WSAEACCES)), os.ErrPermission)
}

// TestBacklogIsSet also where package net would leave it at the system's.
func TestBacklogIsSet(t *testing.T) {
	a, err := Resolve("tcp", "127.0.0.1:0", false, Options{Backlog: 5})
	require.NoError(t, err)
	ln, err := Listen(t.Context(), a, net.KeepAliveConfig{})
	require.NoError(t, err)
	defer ln.Close()
	require.IsType(t, new(listener), ln)
	connected(t, ln)
}
