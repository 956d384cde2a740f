//go:build unix

package node_test

// Node workers under a Go master: the connections that it hands to them.

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestNodeRoundRobin: connections one after another reach the workers in turn.
func TestNodeRoundRobin(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: cluster.RoundRobin})
	port := clustertest.FreePort(t)
	workers := make(map[string]*cluster.Process) // by what they answer
	for _, w := range c.ForkN(4) {
		c.Web(w, port)
		workers["node "+strconv.Itoa(w.ID())] = w
	}
	served := make(map[string]int)
	for range 40 {
		body, err := clustertest.Get("http://127.0.0.1:" + strconv.Itoa(port))
		require.NoError(t, err)
		served[body]++
		c.Run(workers[body], `return 1`) // behind its word that it has taken the connection
	}
	require.Len(t, served, 4)
	for who, n := range served {
		require.Equal(t, 10, n, who)
	}
}

// TestNodeDropConnections: a connection that a worker at its maxConnections
// refuses goes to another one; all are served, each worker at its limit.
func TestNodeDropConnections(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: cluster.RoundRobin})
	port := clustertest.FreePort(t)
	limits := []int{1, 2, 7}
	workers := c.ForkN(len(limits))
	for i, w := range workers {
		c.Run(w, `
			state.server = net.createServer((socket) => { socket.on('error', () => {}); socket.write('x'); });
			state.server.maxConnections = args[1];
			await listen(state.server, args[0], '127.0.0.1')`, port, limits[i])
	}
	for range 10 {
		conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
		require.NoError(t, err)
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(clustertest.Patience))
		_, err = conn.Read(make([]byte, 1))
		require.NoError(t, err)
	}
	for i, w := range workers {
		require.Equal(t, strconv.Itoa(limits[i]), c.Run(w, `return await new Promise((resolve) => state.server.getConnections((e, n) => resolve(n)))`).String())
	}
}

// TestNodeLateConnection: a connection that reaches a worker after it closed its
// server is served by another.
func TestNodeLateConnection(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: cluster.RoundRobin})
	port := clustertest.FreePort(t)
	workers := c.ForkN(2)
	for _, w := range workers {
		c.Web(w, port)
	}
	// The worker is busy when the connection is handed to it, and closes before
	// it looks at its channel again.
	held := c.Order(workers[0], `
		process.send('busy');
		const end = Date.now() + 300;
		while (Date.now() < end);
		state.servers[0].close()`)
	c.Find(t, fmt.Sprintf(`message %d "busy"`, workers[0].ID()))
	for range 4 {
		body, err := clustertest.Get("http://127.0.0.1:" + strconv.Itoa(port))
		require.NoError(t, err)
		require.Contains(t, body, "node ")
	}
	require.Nil(t, clustertest.Await(t, held, "answer").Error)
}

// TestNodeKilledWithConnection: the connection that a worker had been handed and
// never took is served by another, when it is killed. Under a node primary the
// client hangs.
func TestNodeKilledWithConnection(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: cluster.RoundRobin})
	port := clustertest.FreePort(t)
	workers := c.ForkN(2)
	for _, w := range workers {
		c.Web(w, port)
	}
	clustertest.PauseWorker(t, workers[0])
	const many = 6
	bodies := make(chan string, many)
	for range many {
		go func() { bodies <- <-getLater("http://127.0.0.1:" + strconv.Itoa(port)) }()
	}
	for range many - 1 { // all but the one in the stopped worker's hands
		require.Equal(t, "node "+strconv.Itoa(workers[1].ID()), clustertest.Await(t, bodies, "answer"))
	}
	require.Empty(t, bodies)
	require.NoError(t, workers[0].OSProcess().Kill())
	require.Equal(t, "node "+strconv.Itoa(workers[1].ID()), clustertest.Await(t, bodies, "answer to the one that the stopped worker had"))
}

// starveOnSignal takes every descriptor that is free from this process on
// SIGUSR1, and gives them back on SIGWINCH: SIGUSR2 is an upgrade.
func starveOnSignal() {
	c := make(chan os.Signal, 2)
	signal.Notify(c, syscall.SIGUSR1, syscall.SIGWINCH)
	var limit, none syscall.Rlimit
	clustertest.Must(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	none.Max = limit.Max
	for sig := range c {
		if sig == syscall.SIGUSR1 {
			clustertest.Must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none))
		} else {
			clustertest.Must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
		}
		fmt.Println("signal", sig)
		if sig == syscall.SIGUSR1 {
			awaitAcceptDelay()
		}
	}
}

// awaitAcceptDelay waits until accept has failed, which only the wait before the
// next try tells.
func awaitAcceptDelay() {
	stacks := make([]byte, 1<<20)
	for !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "(*dispatcher).sleep(") {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("accept failed")
}

// TestNodeAcceptFails: a master that has no descriptor for a connection tries
// again until it has one; the connection waits.
func TestNodeAcceptFails(t *testing.T) {
	p := clustertest.Start(t, nodeHolder, "NODE_BINARY="+clustertest.NodeBinary(t), "SCRIPT="+clustertest.NodeScript(t, "worker.js"),
		"SCHEDULING="+strconv.Itoa(int(cluster.RoundRobin)), `CODE=await listen(web(), 0, '127.0.0.1')`)
	addr := p.Expect("listening")
	p.Signal(syscall.SIGUSR1)
	p.Expect("signal")
	body := getLater("http://" + addr)
	p.Expect("accept failed")
	p.Signal(syscall.SIGWINCH)
	p.Expect("signal")
	require.Equal(t, "node 1", clustertest.Await(t, body, "answer"))
	p.Signal(syscall.SIGTERM)
	require.Equal(t, 0, p.Exit())
}
