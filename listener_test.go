package cluster_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// answeredBy is the id of the socket worker that answers at the address.
func answeredBy(t *testing.T, network, address string) int {
	t.Helper()
	if strings.HasPrefix(network, "tcp") || strings.HasPrefix(network, "udp") {
		if _, port, _ := net.SplitHostPort(address); strings.HasPrefix(address, "[::]") || strings.HasPrefix(address, "0.0.0.0") {
			address = "127.0.0.1:" + port
		}
	}
	if network == "unix" || strings.HasPrefix(network, "tcp") {
		id, _ := clustertest.GreetingFrom(t, network, address)
		return id
	}
	local := net.Addr(nil)
	if network == "unixgram" {
		local = &net.UnixAddr{Name: filepath.Join(clustertest.TempDir(t), "client"), Net: network}
	}
	d := net.Dialer{LocalAddr: local}
	c, err := d.Dial(network, address)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("who?"))
	require.NoError(t, err)
	c.SetReadDeadline(time.Now().Add(clustertest.Patience))
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	require.NoError(t, err)
	id, found := strings.CutPrefix(string(buf[:n]), "worker ")
	require.True(t, found)
	return clustertest.Atoi(id)
}

// The n-th listen on port 0 is the same socket in every worker, and the n-th is
// the lowest that is free: a listener closed and opened again is what it was, while
// another worker has it.
func TestListenNthFreePort(t *testing.T) {
	workers := clustertest.SocketWorkers(t, 3, cluster.Options{})
	var first, second string
	for i, w := range workers {
		a := clustertest.MustListen(t, w, "tcp", "127.0.0.1:0", cluster.ListenConfig{})
		b := clustertest.MustListen(t, w, "tcp", "127.0.0.1:0", cluster.ListenConfig{})
		if i == 0 {
			first, second = a.Addr, b.Addr
			require.NotEqual(t, first, second)
		}
		require.Equal(t, first, a.Addr)
		require.Equal(t, second, b.Addr)
		if i > 0 { // else nobody else listens there, and the address ends
			clustertest.CloseSocket(t, w, a)
			require.Equal(t, first, clustertest.MustListen(t, w, "tcp", "127.0.0.1:0", cluster.ListenConfig{}).Addr)
		}
		// Another address counts for itself.
		require.NotEqual(t, first, clustertest.MustListen(t, w, "tcp4", "0.0.0.0:0", cluster.ListenConfig{}).Addr)
	}
}

// A worker that listens twice on one address gets EADDRINUSE, as it would
// without a cluster; after a Close it may listen again, on the same socket.
func TestListenTwiceInOneWorker(t *testing.T) {
	for _, scheduling := range []cluster.Scheduling{cluster.Shared, cluster.RoundRobin} {
		t.Run(scheduling.String(), func(t *testing.T) {
			workers := clustertest.SocketWorkers(t, 1, cluster.Options{Scheduling: scheduling})
			r := clustertest.MustListen(t, workers[0], "tcp", "127.0.0.1:0", cluster.ListenConfig{})
			// It holds that port as 127.0.0.1:0; the number itself is another address.
			twice := clustertest.TryListen(t, workers[0], "tcp", r.Addr, cluster.ListenConfig{})
			require.True(t, twice.InUse, twice.Err)

			addr := clustertest.UnusedAddress(t, "tcp", "")
			r = clustertest.MustListen(t, workers[0], "tcp", addr, cluster.ListenConfig{})
			twice = clustertest.TryListen(t, workers[0], "tcp", addr, cluster.ListenConfig{})
			require.True(t, twice.InUse, twice.Err)
			require.Contains(t, twice.Err, addr)
			clustertest.CloseSocket(t, workers[0], r)
			clustertest.MustListen(t, workers[0], "tcp", addr, cluster.ListenConfig{})
			id, _ := clustertest.GreetingFrom(t, "tcp", addr)
			require.Equal(t, workers[0].ID(), id)
		})
	}
}

// The cause of a failed Listen crosses the process boundary: errors.Is finds
// it, and the text says what could not be opened, why, and by whom. A later
// Listen tries again.
func TestListenErrors(t *testing.T) {
	addr := clustertest.UnusedAddress(t, "tcp", "") // it will be free again, and nobody else's
	foreign, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	defer foreign.Close()
	w := clustertest.SocketWorkers(t, 1, cluster.Options{})[0]

	r := clustertest.TryListen(t, w, "tcp", addr, cluster.ListenConfig{})
	require.True(t, r.InUse)
	require.Contains(t, r.Err, "cluster: listen tcp4 "+addr+": "+clustertest.ErrInUse.Error())
	require.Contains(t, r.Err, "("+clustertest.System.OpenedBy)
	r = clustertest.TryListen(t, w, "tcp", addr, cluster.ListenConfig{Exclusive: true})
	require.True(t, r.InUse)
	require.Contains(t, r.Err, "this worker opens it, for itself")
	if clustertest.System.Has("unix") {
		r = clustertest.TryListen(t, w, "unix", filepath.Join(clustertest.TempDir(t), "none", "s"), cluster.ListenConfig{})
		require.True(t, r.NotExists, r.Err)
	}
	for _, bad := range []clustertest.ListenOrder{
		{Network: "tcp5", Address: ":0"}, {Network: "ip", Address: ":0"}, {Network: "", Address: ":0"},
		{Network: "tcp", Address: "127.0.0.1"}, {Network: "tcp", Address: ":99999"}, {Network: "tcp4", Address: "[::1]:0"},
		{Network: "unix", Address: ""}, {Network: "unixgram", Address: "@"}, {Network: "unix", Address: "a\x00b"},
		{Network: "tcp", Address: ":0", Config: cluster.ListenConfig{Backlog: -1}},
		{Network: "tcp", Address: ":0", Config: cluster.ListenConfig{Scheduling: 9}},
		{Network: "tcp4", Address: ":0", Config: cluster.ListenConfig{IPv6Only: true}},
	} {
		r := clustertest.TryListen(t, w, bad.Network, bad.Address, bad.Config)
		require.True(t, strings.HasPrefix(r.Err, "cluster: listen "+bad.Network+" "), "%+v: %q", bad, r.Err)
	}

	foreign.Close()
	clustertest.MustListen(t, w, "tcp", addr, cluster.ListenConfig{})
	id, _ := clustertest.GreetingFrom(t, "tcp", addr)
	require.Equal(t, w.ID(), id)
}

// AllowListen is told the resolved address, may take its time and ask that
// very worker, and its refusal reaches the worker with its text, as EACCES.
func TestListenAllowed(t *testing.T) {
	asks := make(chan string, 10)
	w := clustertest.SocketWorkers(t, 1, cluster.Options{AllowListen: func(w *cluster.Process, network, address string) error {
		var id int
		if err := w.Request(context.Background(), clustertest.Order{Cmd: "who"}, &id); err != nil || id != w.ID() {
			return fmt.Errorf("the worker does not answer: %d, %v", id, err)
		}
		asks <- network + " " + address
		if strings.HasSuffix(address, ":9") {
			return errors.New("no discard service, says the policy")
		}
		return nil
	}})[0]
	clustertest.MustListen(t, w, "tcp", "localhost:0", cluster.ListenConfig{})
	require.Equal(t, "tcp4 127.0.0.1:0", clustertest.Await(t, asks, "question"))
	r := clustertest.TryListen(t, w, "tcp", "127.0.0.1:9", cluster.ListenConfig{})
	require.True(t, r.Denied, r.Err)
	require.Contains(t, r.Err, "cluster: listen tcp4 127.0.0.1:9: "+clustertest.ErrDenied.Error()+" (refused by AllowListen: no discard service, says the policy")
	require.Equal(t, "tcp4 127.0.0.1:9", clustertest.Await(t, asks, "question"))
	if clustertest.System.Has("unix") {
		path := clustertest.TempDir(t) + "/sub/../s"
		clustertest.MustListen(t, w, "unix", path, cluster.ListenConfig{})
		require.Equal(t, "unix "+filepath.Clean(path), clustertest.Await(t, asks, "question"))
	}
}

// Two clusters cannot have the same port.
func TestListenTwoMasters(t *testing.T) {
	addr := clustertest.UnusedAddress(t, "tcp", "")
	first := clustertest.Start(t, listenAt, listenAtEnv+"="+addr)
	require.Equal(t, addr, first.Expect("listening"))
	second := clustertest.Start(t, listenAt, listenAtEnv+"="+addr)
	text := second.Expect("failed")
	require.Contains(t, text, "true")
	require.Contains(t, text, clustertest.ErrInUse.Error())
	require.Contains(t, text, addr)
	second.Signal(syscall.SIGTERM)
	require.Equal(t, 0, second.Exit())
	first.Signal(syscall.SIGTERM)
	require.Equal(t, 0, first.Exit())
	third := clustertest.Start(t, listenAt, listenAtEnv+"="+addr)
	require.Equal(t, addr, third.Expect("listening"))
}

const listenAtEnv = "CLUSTER_TEST_LISTEN"

// listenAt is a master whose worker tries to listen at the address, tcp or (a
// path) unix.
var listenAt = clustertest.Program("listenAt", func() {
	address := os.Getenv(listenAtEnv)
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	if cluster.IsMaster() {
		clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 1}))
		clustertest.Must(cluster.Run(context.Background()))
		return
	}
	ln, err := cluster.Listen(network, address)
	if err != nil {
		fmt.Println("failed", errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EACCES), err)
	} else {
		fmt.Println("listening", ln.Addr())
		go clustertest.AnswerConns(ln)
	}
	<-cluster.Context().Done()
	select {}
})

// What the program listened on before it forked is shared with workers that
// ask for the same address, and does not collide with them.
func TestListenInMasterBeforeFork(t *testing.T) {
	clustertest.CheckLeaks(t)
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	addr := ln.Addr().String()
	workers := clustertest.SocketWorkers(t, 2, cluster.Options{})
	for _, w := range workers {
		require.Equal(t, addr, clustertest.MustListen(t, w, "tcp", addr, cluster.ListenConfig{}).Addr)
	}
	clustertest.GreetingFrom(t, "tcp", addr)
	require.NoError(t, ln.Close())
	// Its own copy is closed, the socket is not.
	clustertest.GreetingFrom(t, "tcp", addr)
	clustertest.KillAndWait(t, workers...)
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	c.Close()
}

// Listen in a master that has forked holds the address open for its workers:
// theirs is the same socket, and its own Accept waits until it is closed.
func TestListenInMasterAfterFork(t *testing.T) {
	workers := clustertest.SocketWorkers(t, 1, cluster.Options{})
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	accepted := make(chan error, 1)
	go func() {
		_, err := ln.Accept()
		accepted <- err
	}()
	r := clustertest.MustListen(t, workers[0], "tcp", "127.0.0.1:0", cluster.ListenConfig{})
	require.Equal(t, ln.Addr().String(), r.Addr)
	id, _ := clustertest.Greeting(t, c)
	require.Equal(t, workers[0].ID(), id, "the connection waited for a worker")
	require.Empty(t, accepted)
	require.NoError(t, ln.Close())
	require.ErrorIs(t, clustertest.Await(t, accepted, "end of Accept"), net.ErrClosed)

	_, err = cluster.Listen("tcp", freePortTaken(t))
	require.ErrorIs(t, err, syscall.EADDRINUSE)

	pc, err := cluster.ListenPacket("udp", "127.0.0.1:0")
	if !clustertest.System.SharedUDP {
		require.ErrorIs(t, err, errors.ErrUnsupported)
		return
	}
	require.NoError(t, err)
	u := clustertest.MustListen(t, workers[0], "udp", "127.0.0.1:0", cluster.ListenConfig{})
	require.Equal(t, pc.LocalAddr().String(), u.Addr)
	require.Equal(t, workers[0].ID(), answeredBy(t, "udp", u.Addr))
	go func() {
		_, _, err := pc.ReadFrom(make([]byte, 1))
		accepted <- err
	}()
	_, err = pc.WriteTo([]byte("x"), pc.LocalAddr())
	require.NoError(t, err, "the master may write")
	require.NoError(t, pc.Close())
	require.ErrorIs(t, clustertest.Await(t, accepted, "end of ReadFrom"), net.ErrClosed)
}

// freePortTaken is an address on which somebody else listens.
func freePortTaken(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String()
}

// Without a cluster Listen, ListenPacket and Serve are plain ones.
func TestListenAlone(t *testing.T) {
	clustertest.CheckLeaks(t)
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.IsType(t, new(net.TCPListener), ln)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "alone") })}
	served := make(chan error, 1)
	go func() { served <- cluster.Serve(ln, srv) }()
	body, err := clustertest.Get("http://" + ln.Addr().String())
	require.NoError(t, err)
	require.Equal(t, "alone", body)
	require.NoError(t, srv.Shutdown(t.Context()))
	require.ErrorIs(t, clustertest.Await(t, served, "return of Serve"), http.ErrServerClosed)

	taken := freePortTaken(t)
	_, err = cluster.Listen("tcp", taken)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, "cluster: listen tcp4 "+taken+": ")
	require.ErrorIs(t, cluster.ListenAndServe(taken, nil), syscall.EADDRINUSE)
	_, err = cluster.Listen("udp", "127.0.0.1:0")
	require.ErrorContains(t, err, "unknown network")
	_, err = cluster.ListenPacket("tcp", "127.0.0.1:0")
	require.ErrorContains(t, err, "unknown network")

	t.Run("UDP", func(t *testing.T) {
		clustertest.Need(t, "UDP")
		pc, err := cluster.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		require.IsType(t, new(net.UDPConn), pc)
		require.NoError(t, pc.Close())
	})
}

// IPv6Only keeps IPv4 out, and the default takes both.
func TestListenBothFamilies(t *testing.T) {
	w := clustertest.SocketWorkers(t, 1, cluster.Options{})[0]
	both := clustertest.MustListen(t, w, "tcp", ":0", cluster.ListenConfig{})
	only := clustertest.MustListen(t, w, "tcp", ":0", cluster.ListenConfig{IPv6Only: true})
	_, bothPort, _ := net.SplitHostPort(both.Addr)
	_, onlyPort, _ := net.SplitHostPort(only.Addr)
	clustertest.GreetingFrom(t, "tcp", "127.0.0.1:"+bothPort)
	clustertest.GreetingFrom(t, "tcp", "[::1]:"+bothPort)
	clustertest.GreetingFrom(t, "tcp", "[::1]:"+onlyPort)
	_, err := net.Dial("tcp", "127.0.0.1:"+onlyPort)
	require.ErrorIs(t, err, clustertest.ErrRefused)
	// So the same port can be had once for each family.
	clustertest.MustListen(t, w, "tcp4", "0.0.0.0:"+onlyPort, cluster.ListenConfig{})
	clustertest.GreetingFrom(t, "tcp", "127.0.0.1:"+onlyPort)

	if !clustertest.System.SharedUDP {
		return
	}
	gram := clustertest.MustListen(t, w, "udp", ":0", cluster.ListenConfig{IPv6Only: true})
	_, gramPort, _ := net.SplitHostPort(gram.Addr)
	require.Equal(t, w.ID(), answeredBy(t, "udp6", "[::1]:"+gramPort))
	clustertest.MustListen(t, w, "udp4", "0.0.0.0:"+gramPort, cluster.ListenConfig{})
}

// An Exclusive listener is the worker's own: it is reported, makes it ready, is
// closed to others, and dies with it.
func TestListenExclusive(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	workers := clustertest.SocketWorkers(t, 2, cluster.Options{})
	reported := make(chan net.Addr, 10)
	t.Cleanup(workers[0].OnListening(func(_ *cluster.Process, addr net.Addr) { reported <- addr }))
	r := clustertest.MustListen(t, workers[0], "tcp", "127.0.0.1:0", cluster.ListenConfig{Exclusive: true})
	require.Equal(t, r.Addr, clustertest.Await(t, reported, "listening event").String())
	clustertest.Eventually(t, func() bool { return workers[0].State() == cluster.Ready }, "ready")
	for _, exclusive := range []bool{true, false} {
		other := clustertest.TryListen(t, workers[1], "tcp", r.Addr, cluster.ListenConfig{Exclusive: exclusive})
		require.True(t, other.InUse, other.Err)
	}
	require.NotEqual(t, r.Addr, clustertest.MustListen(t, workers[1], "tcp", "127.0.0.1:0", cluster.ListenConfig{Exclusive: true}).Addr)
	id, _ := clustertest.GreetingFrom(t, "tcp", r.Addr)
	require.Equal(t, workers[0].ID(), id)

	t.Run("UDP", func(t *testing.T) {
		clustertest.Need(t, "UDP")
		u := clustertest.MustListen(t, workers[0], "udp", "127.0.0.1:0", cluster.ListenConfig{Exclusive: true})
		require.Equal(t, u.Addr, clustertest.Await(t, reported, "listening event").String())
		require.Equal(t, workers[0].ID(), answeredBy(t, "udp", u.Addr))
	})

	// In flight on it: the drain lets it finish.
	c, err := net.Dial("tcp", r.Addr)
	require.NoError(t, err)
	defer c.Close()
	reader := bufio.NewReader(c)
	_, err = reader.ReadString('\n')
	require.NoError(t, err)
	_, err = c.Write([]byte("held\n"))
	require.NoError(t, err)
	require.NoError(t, workers[0].Disconnect(t.Context()))
	echo, err := reader.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "held\n", echo)
	_, err = net.Dial("tcp", r.Addr)
	require.ErrorIs(t, err, clustertest.ErrRefused)
}

// Every network that the system can share is listened on by several workers,
// which share one socket: what one no longer takes the other does.
func TestListenEveryNetwork(t *testing.T) {
	dir := clustertest.TempDir(t)
	abstract := fmt.Sprintf("@cluster-test-%d", os.Getpid())
	tests := []struct {
		network, address string
		want             string // network of Addr
	}{
		{"tcp", ":0", "tcp"},
		{"tcp", "127.0.0.1:0", "tcp"},
		{"tcp4", ":0", "tcp"},
		{"tcp6", "[::1]:0", "tcp"},
		{"tcp", "localhost:0", "tcp"},
		{"udp", ":0", "udp"},
		{"udp4", "127.0.0.1:0", "udp"},
		{"udp6", "[::1]:0", "udp"},
		{"unix", filepath.Join(dir, "stream"), "unix"},
		{"unixgram", filepath.Join(dir, "datagram"), "unixgram"},
		{"unix", abstract, "unix"},
		{"unixgram", abstract + "-datagram", "unixgram"},
	}
	workers := clustertest.SocketWorkers(t, 2, cluster.Options{})
	for _, test := range tests {
		if packet := test.want != "tcp" && test.want != "unix"; packet && !clustertest.System.SharedUDP || !packet && !clustertest.System.Has(test.want) {
			r := clustertest.TryListen(t, workers[0], test.network, test.address, cluster.ListenConfig{})
			require.True(t, r.Unsupported, r.Err)
			require.Contains(t, r.Err, "on Windows: not supported here")
			continue
		}
		a := clustertest.MustListen(t, workers[0], test.network, test.address, cluster.ListenConfig{})
		b := clustertest.MustListen(t, workers[1], test.network, test.address, cluster.ListenConfig{})
		require.Equal(t, a.Addr, b.Addr, test)
		require.Equal(t, test.want, a.Network, test)
		clustertest.CloseSocket(t, workers[0], a)
		require.Equal(t, workers[1].ID(), answeredBy(t, test.network, a.Addr), test)
		if a.Network == "unix" || a.Network == "unixgram" {
			require.Equal(t, test.address, a.Addr)
		}
		clustertest.CloseSocket(t, workers[1], b)
	}
}
