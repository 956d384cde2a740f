package cluster_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A shared socket is plain TCP unless MPTCP is asked for.
func TestListenProtocol(t *testing.T) {
	w := clustertest.SocketWorkers(t, 1, cluster.Options{})[0]
	for _, exclusive := range []bool{false, true} {
		plain := clustertest.MustListen(t, w, "tcp", "127.0.0.1:0", cluster.ListenConfig{Exclusive: exclusive})
		require.Equal(t, unix.IPPROTO_TCP, clustertest.Inspect(t, w, plain).Protocol)
	}
	if mptcpEnabled() {
		multi := clustertest.MustListen(t, w, "tcp", clustertest.UnusedAddress(t, "tcp", ""), cluster.ListenConfig{MultipathTCP: true})
		require.Equal(t, unix.IPPROTO_MPTCP, clustertest.Inspect(t, w, multi).Protocol)
	}
}

// mptcpEnabled reports whether this kernel opens MPTCP sockets at all.
func mptcpEnabled() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// The backlog is the one asked for, by the first worker; by default the
// system's limit.
func TestListenBacklog(t *testing.T) {
	workers := clustertest.SocketWorkers(t, 2, cluster.Options{})
	somaxconn, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	require.NoError(t, err)
	addr := clustertest.UnusedAddress(t, "tcp", "")
	first := clustertest.MustListen(t, workers[0], "tcp", addr, cluster.ListenConfig{Backlog: 77})
	second := clustertest.MustListen(t, workers[1], "tcp", addr, cluster.ListenConfig{Backlog: 5})
	require.Equal(t, 77, clustertest.Inspect(t, workers[0], first).Backlog)
	require.Equal(t, 77, clustertest.Inspect(t, workers[1], second).Backlog)
	own := clustertest.MustListen(t, workers[0], "tcp", "127.0.0.1:0", cluster.ListenConfig{Backlog: 33, Exclusive: true})
	require.Equal(t, 33, clustertest.Inspect(t, workers[0], own).Backlog)
	usual := clustertest.MustListen(t, workers[0], "tcp", "127.0.0.1:0", cluster.ListenConfig{})
	require.Equal(t, clustertest.Atoi(strings.TrimSpace(string(somaxconn))), clustertest.Inspect(t, workers[0], usual).Backlog)
}

// Accepted connections have the keep-alive settings of the ListenConfig, however
// they come to the worker; by default those of package net.
func TestListenKeepAlive(t *testing.T) {
	w := clustertest.SocketWorkers(t, 1, cluster.Options{})[0]
	ours := net.KeepAliveConfig{Enable: true, Idle: 30e9, Interval: 7e9, Count: 3}
	for name, lc := range map[string]cluster.ListenConfig{
		"shared":     {Scheduling: cluster.Shared},
		"roundrobin": {Scheduling: cluster.RoundRobin},
		"exclusive":  {Exclusive: true},
	} {
		_, settings := clustertest.GreetingFrom(t, "tcp", clustertest.MustListen(t, w, "tcp", clustertest.UnusedAddress(t, "tcp", ""), lc).Addr)
		require.Equal(t, "15/15/9", settings, name)
		lc.KeepAlive = ours
		_, settings = clustertest.GreetingFrom(t, "tcp", clustertest.MustListen(t, w, "tcp", clustertest.UnusedAddress(t, "tcp", ""), lc).Addr)
		require.Equal(t, "30/7/3", settings, name)
	}
}

// A master that may not open an address says so to the worker: EACCES, with the
// user it runs as.
func TestListenDenied(t *testing.T) {
	const nobody = 65534
	limit, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	require.NoError(t, err)
	port := clustertest.Atoi(strings.TrimSpace(string(limit))) - 1
	require.Positive(t, port, "no port is privileged here")
	// The kernel's link to the binary: its path may be closed to other users.
	cmd := exec.Command("/proc/self/exe")
	uid := os.Getuid()
	if uid == 0 {
		uid = nobody
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	p := clustertest.StartCmd(t, cmd, listenAt, fmt.Sprintf("%s=127.0.0.1:%d", listenAtEnv, port))
	require.Equal(t, fmt.Sprintf("false true cluster: listen tcp4 127.0.0.1:%d: permission denied (the master opens it, as uid %d)", port, uid), p.Expect("failed"))
	p.Signal(syscall.SIGTERM)
	require.Equal(t, 0, p.Exit())
}

// blockingSockets are the sockets of a process, above its stdio, that have lost
// O_NONBLOCK.
func blockingSockets(t *testing.T, pid int) (blocking []string) {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	require.NoError(t, err)
	require.NotEmpty(t, fds)
	for _, fd := range fds {
		what, err := os.Readlink(fd)
		n := filepath.Base(fd)
		if err != nil || clustertest.Atoi(n) <= 2 || !strings.HasPrefix(what, "socket:") {
			continue
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, n))
		if err != nil {
			continue // closed meanwhile
		}
		_, rest, _ := strings.Cut(string(info), "flags:")
		flags, err := strconv.ParseInt(strings.Fields(rest)[0], 8, 64)
		require.NoError(t, err)
		if flags&unix.O_NONBLOCK == 0 {
			blocking = append(blocking, n+" "+what)
		}
	}
	return blocking
}

// Every socket stays non-blocking in master and workers, through spawn, respawn,
// hand-off and the sharing of what was open before the fork: the flag is shared
// by all who hold a socket, and one that blocks makes Close and Shutdown hang.
func TestSocketsStayNonBlocking(t *testing.T) {
	clustertest.CheckLeaks(t)
	early, err := cluster.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer early.Close()
	workers := clustertest.SocketWorkers(t, 2, cluster.Options{})
	shared, robin := clustertest.UnusedAddress(t, "tcp", ""), clustertest.UnusedAddress(t, "tcp", "")
	path := filepath.Join(t.TempDir(), "s")
	check := func(workers []*cluster.Process) {
		t.Helper()
		require.Empty(t, blockingSockets(t, os.Getpid()))
		for _, w := range workers {
			// Its channel arrives blocking, until its runtime is up.
			clustertest.Eventually(t, func() bool { return w.State() >= cluster.Online }, "online")
			require.Empty(t, blockingSockets(t, w.PID()))
		}
	}
	open := func(w *cluster.Process) (all []clustertest.ListenResult) {
		t.Helper()
		return append(all, clustertest.MustListen(t, w, "tcp", early.Addr().String(), cluster.ListenConfig{}),
			clustertest.MustListen(t, w, "tcp", shared, cluster.ListenConfig{}),
			clustertest.MustListen(t, w, "tcp", robin, cluster.ListenConfig{Scheduling: cluster.RoundRobin}),
			clustertest.MustListen(t, w, "unix", path, cluster.ListenConfig{}),
			clustertest.MustListen(t, w, "udp", "127.0.0.1:0", cluster.ListenConfig{}))
	}
	dial := func() (conns []net.Conn) {
		t.Helper()
		for range 3 { // held, so that each worker has one
			for _, addr := range []string{early.Addr().String(), shared, robin} {
				c, err := net.Dial("tcp", addr)
				require.NoError(t, err)
				t.Cleanup(func() { c.Close() })
				clustertest.Greeting(t, c)
				conns = append(conns, c)
			}
		}
		return conns
	}
	for _, w := range workers {
		for i, r := range open(w) {
			if i != 2 { // the listener of a RoundRobin address is in the master
				require.True(t, clustertest.Inspect(t, w, r).NonBlock)
			}
		}
		check(workers)
	}
	dial()
	check(workers)
	clustertest.KillAndWait(t, workers[0])
	workers[0] = clustertest.Fork(t)
	open(workers[0])
	check(workers)
	dial()
	check(workers)
	for _, c := range dial() {
		c.Close()
	}
}

// switches is how often the threads of a process were woken.
func switches(t *testing.T, pid int) (n int) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	require.NoError(t, err)
	require.NotEmpty(t, threads)
	for _, f := range threads {
		status, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		_, rest, found := strings.Cut(string(status), "\nvoluntary_ctxt_switches:")
		require.True(t, found)
		n += clustertest.Atoi(strings.Fields(rest)[0])
	}
	return n
}

// In Shared mode the master is not in the path of a connection, nor woken by one.
// Something else wakes it now and then (a heartbeat, the runtime's own threads), and
// more often where the connections take longer, so the bound is a share of them.
func TestSharedLeavesMasterAsleep(t *testing.T) {
	const connections = 500
	wakeUps := func(scheduling cluster.Scheduling) int {
		p := clustertest.Start(t, clustertest.Greeter, fmt.Sprintf("%s=%d", clustertest.SchedulingEnv, scheduling))
		addr := p.Expect("listening")
		p.Expect("listening")
		p.Expect("ready")
		before := switches(t, p.Cmd.Process.Pid)
		for range connections {
			clustertest.GreetingFrom(t, "tcp", addr)
		}
		after := switches(t, p.Cmd.Process.Pid)
		p.Signal(syscall.SIGTERM)
		require.Equal(t, 0, p.Exit())
		return after - before
	}
	require.Less(t, wakeUps(cluster.Shared), connections/3)
	require.GreaterOrEqual(t, wakeUps(cluster.RoundRobin), connections, "the counter does not count")
}

// Guarantee 6: whatever happens to the workers, all of them at once included,
// no connection is refused, and what no worker had taken the next ones answer.
func TestConnectionsOutliveAllWorkers(t *testing.T) {
	for _, scheduling := range []cluster.Scheduling{cluster.Shared, cluster.RoundRobin} {
		t.Run(scheduling.String(), func(t *testing.T) {
			const n = 3
			clustertest.WithMaster(t, clustertest.Greeter, cluster.Options{Workers: n, Scheduling: scheduling})
			listening := make(chan string, 100)
			t.Cleanup(cluster.OnListening(func(_ *cluster.Process, addr net.Addr) { listening <- addr.String() }))
			require.NoError(t, cluster.AutoFork())
			var addr string
			for range n {
				addr = clustertest.Await(t, listening, "listening event")
			}
			for range 2 {
				// Stopped, they take nothing: what they lose by the kill is theirs.
				old := make(map[int]bool)
				for _, w := range cluster.Workers() {
					old[w.ID()] = true
					clustertest.PauseWorker(t, w)
				}
				const clients = 40
				answers := make(chan int, clients)
				var dialed sync.WaitGroup
				dialed.Add(clients / 2)
				for i := range clients {
					if i == clients/2 {
						dialed.Wait() // half before the kill, half around it
						for _, w := range cluster.Workers() {
							require.NoError(t, w.OSProcess().Signal(syscall.SIGKILL))
						}
					}
					go func() {
						c, err := net.Dial("tcp", addr)
						if i < clients/2 {
							dialed.Done()
						}
						if err != nil {
							t.Errorf("client %d: %v", i, err)
							answers <- -1
							return
						}
						defer c.Close()
						buf := make([]byte, 100)
						m, err := c.Read(buf)
						if err != nil {
							t.Errorf("client %d: %v", i, err)
							answers <- -1
							return
						}
						answers <- clustertest.Atoi(strings.Fields(string(buf[:m]))[1])
					}()
				}
				for range clients {
					require.False(t, old[clustertest.Await(t, answers, "answer")])
				}
				for range n {
					clustertest.Await(t, listening, "listening event")
				}
			}
		})
	}
}

const (
	cloggedEnv = "CLUSTER_TEST_CLOGGED" // what the clogged worker does with its connection
	tellEnv    = "CLUSTER_TEST_TELL"    // where it connects to when it has
)

// clogged is a worker that says more than its master takes, and what it says
// about the connection that it has then accepted stays behind that. Without its
// variables it is a worker that answers as socket workers do.
var clogged = clustertest.Program("clogged", func() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	serve := cloggedConns[os.Getenv(cloggedEnv)]
	if serve == nil {
		clustertest.AnswerConns(ln)
		select {}
	}
	begin := make(chan bool)
	cluster.Handle("begin", func(*cluster.Process, clustertest.Order) { close(begin) })
	<-begin
	text := map[string]string{"cmd": "clog", "text": strings.Repeat("x", 64<<10)}
	for n := 0; n < clogSize; {
		if cluster.Worker.Send(text) == nil {
			n += len(text["text"])
			continue
		}
		time.Sleep(time.Millisecond)
	}
	c, err := ln.Accept()
	clustertest.Must(err)
	clustertest.Must(serve(c))
	tell, err := net.Dial("tcp", os.Getenv(tellEnv))
	clustertest.Must(err)
	tell.Close()
	select {}
})

const (
	clogQueue = 1 << 20
	// clogSize is more than the master takes while it delivers nothing, and less
	// than that and the queue of the worker hold.
	clogSize = clogQueue + clogQueue/2
)

var cloggedConns = map[string]func(c net.Conn) error{
	"reads": func(c net.Conn) error {
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	},
	"writes": func(c net.Conn) error {
		_, err := c.Write([]byte("x"))
		return err
	},
	"does not": func(net.Conn) error { return nil },
}

// A connection that a worker had begun to serve ends with the worker, even if
// the master never heard that it was accepted: to another worker it would be
// one whose request does not come.
func TestRoundRobinUsedConnection(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	for does := range cloggedConns {
		for _, end := range []string{"", " and the client has shut down"} {
			t.Run(does+end, func(t *testing.T) { testUsedConnection(t, does, end != "") })
		}
	}
}

func testUsedConnection(t *testing.T, does string, shutDown bool) {
	clustertest.WithMaster(t, clogged, cluster.Options{Scheduling: cluster.RoundRobin, MaxQueue: clogQueue})
	listening := make(chan string, 1)
	t.Cleanup(cluster.OnListening(func(_ *cluster.Process, a net.Addr) { listening <- a.String() }))
	told, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer told.Close()
	told.(*net.TCPListener).SetDeadline(time.Now().Add(clustertest.Patience))
	w, err := cluster.Fork(cloggedEnv+"="+does, tellEnv+"="+told.Addr().String())
	require.NoError(t, err)
	addr := clustertest.Await(t, listening, "address")
	delivers := make(chan bool)
	t.Cleanup(func() { close(delivers) })
	t.Cleanup(w.OnMessage(func(*cluster.Process, cluster.Message) { <-delivers }))

	client, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer client.Close()
	_, err = client.Write([]byte("12345\n"))
	require.NoError(t, err)
	if shutDown {
		require.NoError(t, client.(*net.TCPConn).CloseWrite())
	}
	other := clustertest.Fork(t)
	clustertest.Await(t, listening, "other worker")
	require.NoError(t, w.Send(clustertest.Order{Cmd: "begin"}))
	c, err := told.Accept()
	require.NoError(t, err)
	c.Close()
	require.NoError(t, w.Kill())

	client.SetReadDeadline(time.Now().Add(clustertest.Patience))
	if does == "does not" {
		id, _ := clustertest.Greeting(t, client)
		require.Equal(t, other.ID(), id)
		return
	}
	answer, err := io.ReadAll(client)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Equal(t, map[string]string{"writes": "x"}[does], string(answer))
}

// scarceSockets is a socket worker that has no descriptor free between "exhaust" and "free".
var scarceSockets = clustertest.Program("scarce sockets", func() {
	var taken []int
	cluster.Respond("exhaust", func(*cluster.Process, clustertest.Order) (any, error) {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 128, Max: 128}); err != nil {
			return nil, err
		}
		for {
			fd, err := unix.Dup(0)
			if err == unix.EMFILE {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			taken = append(taken, fd)
		}
	})
	cluster.Respond("free", func(*cluster.Process, clustertest.Order) (any, error) {
		for _, fd := range taken {
			unix.Close(fd)
		}
		return nil, nil
	})
	clustertest.RunProgram(clustertest.SocketWorker)
})

// A worker that has no descriptor free is told so by Listen, which works when it has, and the
// address is not kept open for it alone.
func TestListenWithoutDescriptors(t *testing.T) {
	clustertest.WithMaster(t, scarceSockets, cluster.Options{})
	w, other := clustertest.Fork(t), clustertest.Fork(t)
	type attempt struct {
		network, address string
		config           cluster.ListenConfig
	}
	attempts := []attempt{
		{"tcp", clustertest.UnusedAddress(t, "tcp", ""), cluster.ListenConfig{}},
		{"tcp6", "[::1]:0", cluster.ListenConfig{}},
		{"unix", filepath.Join(t.TempDir(), "a.sock"), cluster.ListenConfig{}},
		{"udp", "127.0.0.1:0", cluster.ListenConfig{}},
		{"unixgram", filepath.Join(t.TempDir(), "b.sock"), cluster.ListenConfig{}},
		{"tcp", "127.0.0.1:0", cluster.ListenConfig{Scheduling: cluster.Sharded}},
		{"udp", "127.0.0.1:0", cluster.ListenConfig{Scheduling: cluster.Sharded}},
	}
	common := attempt{"tcp", clustertest.UnusedAddress(t, "tcp", ""), cluster.ListenConfig{}}
	clustertest.MustListen(t, other, common.network, common.address, common.config)
	attempts = append(attempts, common)
	clustertest.Ask[any](t, w, clustertest.Order{Cmd: "exhaust"})
	for _, a := range attempts {
		r := clustertest.TryListen(t, w, a.network, a.address, a.config)
		require.Contains(t, r.Err, "too many open files", "%s %s", a.network, a.address)
		require.Contains(t, r.Err, "RLIMIT_NOFILE")
	}
	require.Len(t, cluster.Stats().Listeners, 1)
	clustertest.Ask[any](t, w, clustertest.Order{Cmd: "free"})
	for _, a := range attempts {
		clustertest.MustListen(t, w, a.network, a.address, a.config)
	}
}
