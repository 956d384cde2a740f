package clustertest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// SocketWorker is a worker that listens where the test tells it, by requests. It answers every
// connection with "worker ID SETTINGS\n" and then echoes, and every datagram with "worker ID".
var SocketWorker = Program("socket worker", func() {
	var p workerSockets
	cluster.Respond("listen", p.listen)
	cluster.Respond("close", p.close)
	cluster.Respond("inspect", p.inspect)
	cluster.Respond("accept", p.accept)
	cluster.Respond("who", func(w *cluster.Process, _ Order) (int, error) { return w.ID(), nil })
	<-cluster.Context().Done()
	select {}
})

// ListenOrder is what a socket worker is to listen on.
type ListenOrder struct {
	Cmd     string `json:"cmd"`
	Network string
	Address string
	Config  cluster.ListenConfig
	Hold    bool // accept nothing before the order "accept"
}

// ListenResult is a listener of a socket worker, or why there is none.
type ListenResult struct {
	N                        int // its number in the worker
	Network, Addr            string
	Err                      string
	InUse, Denied, NotExists bool // what errors.Is finds in Err
	Unsupported              bool
}

// SocketInfo is what the kernel says of a socket of a socket worker.
type SocketInfo struct {
	NonBlock bool
	Protocol int
	Backlog  int
}

type workerSockets struct {
	mu  sync.Mutex
	all []io.Closer
}

func (p *workerSockets) listen(_ *cluster.Process, q ListenOrder) (r ListenResult, err error) {
	var s io.Closer
	var addr net.Addr
	if strings.HasPrefix(q.Network, "udp") || q.Network == "unixgram" {
		var c net.PacketConn
		if c, err = q.Config.ListenPacket(context.Background(), q.Network, q.Address); err == nil {
			s, addr = c, c.LocalAddr()
			go answerDatagrams(c)
		}
	} else {
		var ln net.Listener
		if ln, err = q.Config.Listen(context.Background(), q.Network, q.Address); err == nil {
			s, addr = ln, ln.Addr()
			if !q.Hold {
				go AnswerConns(ln)
			}
		}
	}
	if err != nil {
		return ListenResult{
			Err:   err.Error(),
			InUse: errors.Is(err, syscall.EADDRINUSE), Denied: errors.Is(err, syscall.EACCES), NotExists: errors.Is(err, fs.ErrNotExist),
			Unsupported: errors.Is(err, errors.ErrUnsupported),
		}, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, s)
	return ListenResult{N: len(p.all) - 1, Network: addr.Network(), Addr: addr.String()}, nil
}

func (p *workerSockets) get(n int) io.Closer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all[n]
}

// SocketOrder is what a socket worker is to do with one of its sockets.
type SocketOrder struct {
	Cmd string `json:"cmd"`
	N   int
}

func (p *workerSockets) close(_ *cluster.Process, q SocketOrder) (bool, error) {
	return true, p.get(q.N).Close()
}

func (p *workerSockets) accept(_ *cluster.Process, q SocketOrder) (bool, error) {
	go AnswerConns(p.get(q.N).(net.Listener))
	return true, nil
}

func (p *workerSockets) inspect(_ *cluster.Process, q SocketOrder) (info SocketInfo, err error) {
	rc, err := p.get(q.N).(syscall.Conn).SyscallConn()
	if err != nil {
		return info, err
	}
	err = rc.Control(func(fd uintptr) { info = inspectSocket(fd) })
	return info, err
}

// AnswerConns answers each connection as a socket worker does.
func AnswerConns(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			fmt.Fprintf(c, "worker %d %s\n", cluster.Worker.ID(), connSettings(c))
			io.Copy(c, c)
		}()
	}
}

func answerDatagrams(c net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		_, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if from != nil {
			c.WriteTo(fmt.Appendf(nil, "worker %d", cluster.Worker.ID()), from)
		}
	}
}

// TryListen makes w listen.
func TryListen(t *testing.T, w *cluster.Process, network, address string, lc cluster.ListenConfig) (r ListenResult) {
	t.Helper()
	Request(t, w, ListenOrder{Cmd: "listen", Network: network, Address: address, Config: lc}, &r)
	return r
}

// MustListen is TryListen for a Listen that must succeed.
func MustListen(t *testing.T, w *cluster.Process, network, address string, lc cluster.ListenConfig) ListenResult {
	t.Helper()
	r := TryListen(t, w, network, address, lc)
	require.Empty(t, r.Err)
	return r
}

// CloseSocket makes w close a socket.
func CloseSocket(t *testing.T, w *cluster.Process, r ListenResult) {
	t.Helper()
	Request(t, w, SocketOrder{"close", r.N}, nil)
}

// Inspect asks the kernel about a socket of w.
func Inspect(t *testing.T, w *cluster.Process, r ListenResult) (info SocketInfo) {
	t.Helper()
	Request(t, w, SocketOrder{"inspect", r.N}, &info)
	return info
}

// Request asks w, and fails the test if there is no answer.
func Request(t *testing.T, w *cluster.Process, q, reply any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	require.NoError(t, w.Request(ctx, q, reply))
}

// SocketWorkers makes the test process a master of n socket workers.
func SocketWorkers(t *testing.T, n int, o cluster.Options) (all []*cluster.Process) {
	t.Helper()
	WithMaster(t, SocketWorker, o)
	for range n {
		all = append(all, Fork(t))
	}
	return all
}

// KillAndWait ends w with SIGKILL and waits for its death.
func KillAndWait(t *testing.T, workers ...*cluster.Process) {
	t.Helper()
	dead := make(chan bool, len(workers))
	for _, w := range workers {
		t.Cleanup(w.OnExit(func(*cluster.Process, cluster.Exit) { dead <- true }))
		require.NoError(t, w.Kill())
	}
	for range workers {
		Await(t, dead, "death")
	}
}

// PauseWorker stops w with SIGSTOP.
func PauseWorker(t *testing.T, w *cluster.Process) {
	t.Helper()
	Pause(t, w.PID())
}

// GreetingFrom connects and returns the id and the settings in the answer of a socket worker.
func GreetingFrom(t *testing.T, network, address string) (id int, settings string) {
	t.Helper()
	c, err := net.DialTimeout(network, address, Patience)
	require.NoError(t, err)
	defer c.Close()
	id, settings = Greeting(t, c)
	return id, settings
}

// Greeting reads the id and the settings that a socket worker sends first.
func Greeting(t *testing.T, c net.Conn) (id int, settings string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(Patience))
	line, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	fields := strings.Fields(line)
	require.Len(t, fields, 3)
	return Atoi(fields[1]), fields[2]
}

// SchedulingEnv is the Scheduling of a Greeter.
const SchedulingEnv = "CLUSTER_TEST_SCHEDULING"

// Greeter is a master with two workers, or a worker of another master. The workers answer on one
// free port as socket workers do.
var Greeter = Program("greeter", func() {
	if cluster.IsMaster() {
		Must(cluster.SetupMaster(cluster.Options{Workers: 2, Scheduling: cluster.Scheduling(Atoi(os.Getenv(SchedulingEnv)))}))
		var listening atomic.Int32
		cluster.OnListening(func(_ *cluster.Process, addr net.Addr) {
			fmt.Println("listening", addr)
			if listening.Add(1) == 2 {
				fmt.Println("ready")
			}
		})
		Must(cluster.Run(context.Background()))
		return
	}
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	Must(err)
	go AnswerConns(ln)
	<-cluster.Context().Done()
	select {}
})
