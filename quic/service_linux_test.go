package quic_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/go-cluster/cluster/quic"
	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// service is a program with one main for both roles.
var service = clustertest.Program("service", func() {
	cluster.OnReady(func(w *cluster.Process) { fmt.Println("ready", w.Slot()) })
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2, ShutdownTimeout: 10 * time.Minute, ReadyFor: -1}))
	clustertest.Must(cluster.AutoFork())
	ln, err := quic.Listen(os.Getenv("ADDRESS"), http3.ConfigureTLSConfig(serverTLS()), patient)
	clustertest.Must(err)
	clustertest.Must(quic.Serve(ln, webServer()))
})

// startService starts one, and returns a client's connection to it.
func startService(t *testing.T) (p *clustertest.Proc, client peer) {
	t.Helper()
	cert, key := clustertest.Certificate(t)
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(clustertest.FreePort(t)))
	p = clustertest.Start(t, service, "ADDRESS="+addr, "CERT="+string(cert), "KEY="+string(key))
	p.Expect("ready")
	p.Expect("ready")
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(cert))
	to, err := net.ResolveUDPAddr("udp", addr)
	require.NoError(t, err)
	return p, dial(t, to, &tls.Config{RootCAs: roots, NextProtos: []string{http3.NextProtoH3}})
}

// TestService: the same lines are master and worker, and end with SIGTERM.
func TestService(t *testing.T) {
	p, client := startService(t)
	client.CloseWithError(0, "")
	p.Terminate()
}

// TestOrphans: when the master has died its workers give up the address at once, for the next
// master, even if clients are connected.
func TestOrphans(t *testing.T) {
	p, client := startService(t)
	p.Signal(syscall.SIGKILL)
	select {
	case <-client.Context().Done():
	case <-time.After(clustertest.Patience):
		require.Fail(t, "the connection is still there")
	}
	// A connection that no worker has accepted yet is refused. Its error does not go through
	// ErrorAs, which fails on one that wraps nothing.
	var closed *quicgo.ApplicationError
	var refused *quicgo.TransportError
	switch err := context.Cause(client.Context()); {
	case errors.As(err, &closed):
		require.True(t, closed.Remote, "%v", err)
	case errors.As(err, &refused):
		require.Equal(t, quicgo.ConnectionRefused, refused.ErrorCode, "%v", err)
		require.True(t, refused.Remote, "%v", err)
	default:
		require.Fail(t, "another end", "%T: %v", err, err)
	}
	p.GroupEmpty()
}

// TestAlone: in a process that is no worker it is quic-go alone.
func TestAlone(t *testing.T) {
	clustertest.CheckLeaks(t)
	cert, key := clustertest.Certificate(t)
	t.Setenv("CERT", string(cert))
	t.Setenv("KEY", string(key))
	ln, err := quic.Listen("127.0.0.1:0", serverTLS(), nil)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(cert))
	ctx := clustertest.Within(t, clustertest.Patience)
	client, err := quicgo.DialAddr(ctx, ln.Addr().String(), &tls.Config{RootCAs: roots, NextProtos: []string{"echo"}}, nil)
	require.NoError(t, err)
	server, err := ln.Accept(ctx)
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	_, err = ln.Accept(ctx)
	require.ErrorIs(t, err, quicgo.ErrServerClosed)
	require.ErrorIs(t, ln.Close(), net.ErrClosed)
	_, err = client.OpenStream()
	require.NoError(t, err, "it goes on")
	client.CloseWithError(0, "")
	clustertest.Await(t, server.Context().Done(), "end")
	again, err := net.ListenPacket("udp", ln.Addr().String())
	for ; errors.Is(err, syscall.EADDRINUSE) && ctx.Err() == nil; again, err = net.ListenPacket("udp", ln.Addr().String()) {
		time.Sleep(time.Millisecond)
	}
	require.NoError(t, err)
	again.Close()

	_, err = quic.Listen("127.0.0.1:0", nil, nil)
	require.ErrorContains(t, err, "tls.Config")
	_, err = quic.Listen("nonsense", serverTLS(), nil)
	require.Error(t, err)
}

// refused is a service in a sandbox, where the kernel does not take the program that chooses.
var refused = clustertest.Program("refused", func() {
	refuseProgram()
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 1}))
	clustertest.Must(cluster.AutoFork())
	if cluster.IsMaster() {
		clustertest.Must(cluster.Run(context.Background()))
		return
	}
	_, err := quic.Listen("127.0.0.1:0", serverTLS(), nil)
	fmt.Println("refused", errors.Is(err, cluster.ErrNotSupported), err)
	<-cluster.Context().Done()
	select {}
})

// refuseProgram makes the kernel answer EPERM to this process that attaches one.
func refuseProgram() {
	const number, level, name = 0, 24, 32 // in struct seccomp_data, little-endian
	refuse := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ, K: unix.SYS_SETSOCKOPT, Jf: 5},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: level},
		{Code: unix.BPF_JMP | unix.BPF_JEQ, K: unix.SOL_SOCKET, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: name},
		{Code: unix.BPF_JMP | unix.BPF_JEQ, K: unix.SO_ATTACH_REUSEPORT_CBPF, Jf: 1},
		{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW},
	}
	filter := unix.SockFprog{Len: uint16(len(refuse)), Filter: &refuse[0]}
	clustertest.Must(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		clustertest.Must(errno)
	}
}

// TestRefused: where a sandbox refuses the program, the error says so.
func TestRefused(t *testing.T) {
	cert, key := clustertest.Certificate(t)
	p := clustertest.Start(t, refused, "CERT="+string(cert), "KEY="+string(key))
	line := p.Expect("refused")
	require.Contains(t, line, "true cluster: listen udp4 127.0.0.1:0: ")
	require.Contains(t, line, "SO_ATTACH_REUSEPORT_CBPF")
	p.Terminate()
}

// batches is a worker that answers datagrams by the batches of x/net.
var batches = clustertest.Program("batches", func() {
	c, err := cluster.ListenPacket("udp", "127.0.0.1:0")
	clustertest.Must(err)
	p := ipv4.NewPacketConn(c)
	cluster.OnShutdown(func(ctx context.Context) error {
		return cluster.Worker.Request(ctx, "drains", nil) // answered when the test goes on
	})
	messages := make([]ipv4.Message, 8)
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, 100)}
	}
	for {
		n, err := p.ReadBatch(messages, 0)
		clustertest.Must(err)
		for i := range n {
			answer := fmt.Appendf(nil, "%s %d", messages[i].Buffers[0][:messages[i].N], os.Getpid())
			_, err := p.WriteBatch([]ipv4.Message{{Buffers: [][]byte{answer}, Addr: messages[i].Addr}}, 0)
			clustertest.Must(err)
		}
	}
})

// TestBatches: x/net reads and writes batches by the socket that cluster.ListenPacket
// returns, and in a drain leaves what comes to the next worker.
func TestBatches(t *testing.T) {
	clustertest.WithMaster(t, batches, cluster.Options{})
	addrs := make(chan net.Addr, 10)
	t.Cleanup(cluster.OnListening(func(_ *cluster.Process, addr net.Addr) { addrs <- addr }))
	drains, goOn := make(chan bool, 10), make(chan bool, 10)
	t.Cleanup(cluster.OnRequest(func(*cluster.Process, cluster.Message) (any, error) {
		drains <- true
		<-goOn
		return nil, nil
	}))
	first := clustertest.Fork(t)
	addr := clustertest.Await(t, addrs, "address")
	client, err := net.Dial("udp", addr.String())
	require.NoError(t, err)
	defer client.Close()
	answered := func(want string) {
		t.Helper()
		b := make([]byte, 100)
		require.NoError(t, client.SetReadDeadline(time.Now().Add(clustertest.Patience)))
		n, err := client.Read(b)
		require.NoError(t, err)
		require.Equal(t, want, string(b[:n]))
	}
	for range 3 {
		fmt.Fprint(client, "before")
		answered(fmt.Sprintf("before %d", first.PID()))
	}
	ended := make(chan error, 1)
	go func() { ended <- first.Disconnect(context.Background()) }()
	clustertest.Await(t, drains, "drain")
	fmt.Fprint(client, "in the drain")
	second := clustertest.Fork(t)
	answered(fmt.Sprintf("in the drain %d", second.PID()))
	goOn <- true
	require.NoError(t, clustertest.Await(t, ended, "end"))
	close(goOn)
	require.NoError(t, second.Disconnect(clustertest.Within(t, clustertest.Patience)))
}
