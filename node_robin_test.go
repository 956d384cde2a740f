//go:build unix

package cluster_test

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
	"github.com/stretchr/testify/require"
)

// TestNodeRoundRobin: connections one after another reach the workers in turn.
func TestNodeRoundRobin(t *testing.T) {
	if apart(t) {
		return
	}
	c := newNodeCluster(t, cluster.Options{Scheduling: cluster.RoundRobin})
	port := freePort(t)
	for _, w := range c.forkN(4) {
		c.web(w, port)
	}
	served := make(map[string]int)
	for range 40 {
		body, err := get("http://127.0.0.1:" + strconv.Itoa(port))
		require.NoError(t, err)
		served[body]++
	}
	require.Len(t, served, 4)
	for who, n := range served {
		require.InDelta(t, 10, n, 3, who) // an answer may overtake another
	}
}

// TestNodeDropConnections: a connection that a worker at its maxConnections
// refuses goes to another one; all are served, each worker at its limit.
func TestNodeDropConnections(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{Scheduling: cluster.RoundRobin})
	port := freePort(t)
	limits := []int{1, 2, 7}
	workers := c.forkN(len(limits))
	for i, w := range workers {
		c.run(w, `
			state.server = net.createServer((socket) => { socket.on('error', () => {}); socket.write('x'); });
			state.server.maxConnections = args[1];
			await listen(state.server, args[0], '127.0.0.1')`, port, limits[i])
	}
	for range 10 {
		conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
		require.NoError(t, err)
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(patience))
		_, err = conn.Read(make([]byte, 1))
		require.NoError(t, err)
	}
	for i, w := range workers {
		require.Equal(t, strconv.Itoa(limits[i]), c.run(w, `return await new Promise((resolve) => state.server.getConnections((e, n) => resolve(n)))`).String())
	}
}

// TestNodeLateConnection: a connection that reaches a worker after it closed its
// server is served by another.
func TestNodeLateConnection(t *testing.T) {
	if apart(t) {
		return
	}
	c := newNodeCluster(t, cluster.Options{Scheduling: cluster.RoundRobin})
	port := freePort(t)
	workers := c.forkN(2)
	for _, w := range workers {
		c.web(w, port)
	}
	// The worker is busy when the connection is handed to it, and closes before
	// it looks at its channel again.
	held := c.order(workers[0], `
		process.send('busy');
		const end = Date.now() + 300;
		while (Date.now() < end);
		state.servers[0].close()`)
	c.find(t, fmt.Sprintf(`message %d "busy"`, workers[0].ID()))
	for range 4 {
		body, err := get("http://127.0.0.1:" + strconv.Itoa(port))
		require.NoError(t, err)
		require.Contains(t, body, "node ")
	}
	require.Nil(t, await(t, held, "answer").Error)
}

// TestNodeKilledWithConnection: the connection that a worker had been handed and
// never took is served by another, when it is killed. Under a node primary the
// client hangs.
func TestNodeKilledWithConnection(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{Scheduling: cluster.RoundRobin})
	port := freePort(t)
	workers := c.forkN(2)
	for _, w := range workers {
		c.web(w, port)
	}
	require.NoError(t, workers[0].OSProcess().Signal(syscall.SIGSTOP))
	const many = 6
	bodies := make(chan string, many)
	for range many {
		go func() { bodies <- <-getting("http://127.0.0.1:" + strconv.Itoa(port)) }()
	}
	for range many - 1 { // all but the one in the stopped worker's hands
		require.Equal(t, "node "+strconv.Itoa(workers[1].ID()), await(t, bodies, "answer"))
	}
	require.Empty(t, bodies)
	require.NoError(t, workers[0].OSProcess().Kill())
	require.Equal(t, "node "+strconv.Itoa(workers[1].ID()), await(t, bodies, "answer to the one that the stopped worker had"))
}

// starveOnSignal takes every descriptor that is free from this process on
// SIGUSR1, and gives them back on SIGUSR2.
func starveOnSignal() {
	c := make(chan os.Signal, 2)
	signal.Notify(c, syscall.SIGUSR1, syscall.SIGUSR2)
	var limit, none syscall.Rlimit
	die(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	none.Max = limit.Max
	for sig := range c {
		if sig == syscall.SIGUSR1 {
			die(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none))
		} else {
			die(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
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
	for !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "(*roundRobin).sleep(") {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("accept failed")
}

// TestNodeAcceptFails: a master that has no descriptor for a connection tries
// again until it has one; the connection waits.
func TestNodeAcceptFails(t *testing.T) {
	p := start(t, nodeHolder, "NODE_BINARY="+nodeBinary(t), "SCRIPT="+nodeScript(t, "worker.js"),
		"SCHEDULING="+strconv.Itoa(int(cluster.RoundRobin)), `CODE=await listen(web(), 0, '127.0.0.1')`)
	addr := p.expect("listening")
	p.signal(syscall.SIGUSR1)
	p.expect("signal")
	body := getting("http://" + addr)
	p.expect("accept failed")
	p.signal(syscall.SIGUSR2)
	p.expect("signal")
	require.Equal(t, "node 1", await(t, body, "answer"))
	p.signal(syscall.SIGTERM)
	require.Equal(t, 0, p.exit())
}
