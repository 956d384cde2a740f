package cluster_test

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

// puppet is a worker that listens on what the test tells it by requests. Every
// connection is answered with "worker ID SETTINGS\n" and then echoed, every
// datagram with "worker ID".
var puppet = program("puppet", func() {
	var p puppetSockets
	cluster.Respond("listen", p.listen)
	cluster.Respond("close", p.close)
	cluster.Respond("inspect", p.inspect)
	cluster.Respond("accept", p.accept)
	cluster.Respond("who", func(w *cluster.Process, _ whoOrder) (int, error) { return w.ID(), nil })
	<-cluster.Context().Done()
	select {}
})

type whoOrder struct {
	Cmd string `json:"cmd"`
}

// listenOrder is what a puppet is to listen on.
type listenOrder struct {
	Cmd     string `json:"cmd"`
	Network string
	Address string
	Config  cluster.ListenConfig
	Hold    bool // accept nothing before the order "accept"
}

// listenResult is a listener of a puppet, or why there is none.
type listenResult struct {
	N                        int // its number in the worker
	Network, Addr            string
	Err                      string
	InUse, Denied, NotExists bool // what errors.Is finds in Err
	Unsupported              bool
}

// socketInfo is what the kernel says of a puppet's socket.
type socketInfo struct {
	NonBlock bool
	Protocol int
	Backlog  int
}

type puppetSockets struct {
	mu  sync.Mutex
	all []io.Closer
}

func (p *puppetSockets) listen(_ *cluster.Process, q listenOrder) (r listenResult, err error) {
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
				go answerConns(ln)
			}
		}
	}
	if err != nil {
		return listenResult{
			Err:   err.Error(),
			InUse: errors.Is(err, syscall.EADDRINUSE), Denied: errors.Is(err, syscall.EACCES), NotExists: errors.Is(err, fs.ErrNotExist),
			Unsupported: errors.Is(err, errors.ErrUnsupported),
		}, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, s)
	return listenResult{N: len(p.all) - 1, Network: addr.Network(), Addr: addr.String()}, nil
}

func (p *puppetSockets) get(n int) io.Closer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all[n]
}

type socketOrder struct {
	Cmd string `json:"cmd"`
	N   int
}

func (p *puppetSockets) close(_ *cluster.Process, q socketOrder) (bool, error) {
	return true, p.get(q.N).Close()
}

func (p *puppetSockets) accept(_ *cluster.Process, q socketOrder) (bool, error) {
	go answerConns(p.get(q.N).(net.Listener))
	return true, nil
}

func (p *puppetSockets) inspect(_ *cluster.Process, q socketOrder) (info socketInfo, err error) {
	rc, err := p.get(q.N).(syscall.Conn).SyscallConn()
	if err != nil {
		return info, err
	}
	err = rc.Control(func(fd uintptr) { info = inspectSocket(fd) })
	return info, err
}

func answerConns(ln net.Listener) {
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

// tryListen lets w listen.
func tryListen(t *testing.T, w *cluster.Process, network, address string, lc cluster.ListenConfig) (r listenResult) {
	t.Helper()
	request(t, w, listenOrder{Cmd: "listen", Network: network, Address: address, Config: lc}, &r)
	return r
}

// mustListen is tryListen for what has to work.
func mustListen(t *testing.T, w *cluster.Process, network, address string, lc cluster.ListenConfig) listenResult {
	t.Helper()
	r := tryListen(t, w, network, address, lc)
	require.Empty(t, r.Err)
	return r
}

func closeSocket(t *testing.T, w *cluster.Process, r listenResult) {
	t.Helper()
	request(t, w, socketOrder{"close", r.N}, nil)
}

func inspect(t *testing.T, w *cluster.Process, r listenResult) (info socketInfo) {
	t.Helper()
	request(t, w, socketOrder{"inspect", r.N}, &info)
	return info
}

func request(t *testing.T, w *cluster.Process, q, reply any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, w.Request(ctx, q, reply))
}

// puppets makes the test process a master of n of them.
func puppets(t *testing.T, n int, o cluster.Options) (all []*cluster.Process) {
	t.Helper()
	withMaster(t, puppet, o)
	for range n {
		all = append(all, forkOne(t))
	}
	return all
}

// killed ends w with SIGKILL and waits for its death.
func killed(t *testing.T, workers ...*cluster.Process) {
	t.Helper()
	dead := make(chan bool, len(workers))
	for _, w := range workers {
		t.Cleanup(w.OnExit(func(*cluster.Process, cluster.Exit) { dead <- true }))
		require.NoError(t, w.Kill())
	}
	for range workers {
		await(t, dead, "death")
	}
}

// stop stops w with SIGSTOP: it does nothing any more.
func stop(t *testing.T, w *cluster.Process) {
	t.Helper()
	pause(t, w.PID())
}

// asked connects and returns the id and the settings in the puppet's answer.
func asked(t *testing.T, network, address string) (id int, settings string) {
	t.Helper()
	c, err := net.DialTimeout(network, address, patience)
	require.NoError(t, err)
	defer c.Close()
	id, settings = greeting(t, c)
	return id, settings
}

func greeting(t *testing.T, c net.Conn) (id int, settings string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	fields := strings.Fields(line)
	require.Len(t, fields, 3)
	return atoi(fields[1]), fields[2]
}

const schedulingEnv = "CLUSTER_TEST_SCHEDULING"

// greeter is a master with two workers, or a worker of another master, that
// answer as puppets do on one free port.
var greeter = program("greeter", func() {
	if cluster.IsMaster() {
		die(cluster.SetupMaster(cluster.Options{Workers: 2, Scheduling: cluster.Scheduling(atoi(os.Getenv(schedulingEnv)))}))
		var listening atomic.Int32
		cluster.OnListening(func(_ *cluster.Process, addr net.Addr) {
			fmt.Println("listening", addr)
			if listening.Add(1) == 2 {
				fmt.Println("ready")
			}
		})
		die(cluster.Run(context.Background()))
		return
	}
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	die(err)
	go answerConns(ln)
	<-cluster.Context().Done()
	select {}
})
