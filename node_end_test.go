//go:build unix

package cluster_test

// Node workers under a Go master: how they end, and what follows.

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// TestNodeExit: exit(n) is what it is, not voluntary: one disconnect, one death.
func TestNodeExit(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{})
	w := c.fork()
	own := make(chan cluster.Exit, 1)
	w.OnExit(func(_ *cluster.Process, e cluster.Exit) { own <- e })
	c.web(w)
	c.order(w, `process.exit(42)`)
	require.Equal(t, "42 <nil> false true", c.death(w))
	require.Equal(t, 42, await(t, own, "its own OnExit").Code)
	require.Equal(t, 1, c.count("disconnect"))
	require.ErrorIs(t, syscall.Kill(w.PID(), 0), syscall.ESRCH)
	require.ErrorIs(t, w.Send(1), cluster.ErrClosed)
	require.True(t, w.IsDead())
	require.False(t, w.IsConnected())
}

// TestNodeUncaught: an exception that nobody catches is exit status 1; with a
// handler the worker and its channel go on.
func TestNodeUncaught(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{Output: silent})
	w := c.fork()
	c.run(w, `
		state.caught = [];
		process.on('uncaughtException', (e) => state.caught.push(e.message));
		process.on('message', (m) => { if (m.throw) throw new Error(m.throw) })`)
	require.NoError(t, w.Send(map[string]string{"throw": "first"}))
	require.NoError(t, w.Send(map[string]string{"throw": "second"}))
	require.JSONEq(t, `["first","second"]`, c.run(w, `return state.caught`).String())
	c.order(w, `process.removeAllListeners('uncaughtException'); process.nextTick(() => { throw new Error('uncaught') })`)
	require.Equal(t, "1 <nil> false true", c.death(w))
}

func silent(*cluster.Process) (stdout, stderr io.Writer) { return io.Discard, io.Discard }

// TestNodeProcessDisconnect: process.disconnect() inside node ends it with 0,
// not voluntary.
func TestNodeProcessDisconnect(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{})
	w := c.fork()
	c.web(w)
	c.order(w, `process.disconnect()`)
	require.Equal(t, "0 <nil> false true", c.death(w))
	require.Equal(t, 1, c.count("disconnect"))
}

// TestNodeWorkerDisconnect: cluster.worker.disconnect() inside node is voluntary;
// its 'disconnect' handler runs, and may choose the exit status; the state is
// Disconnected between.
func TestNodeWorkerDisconnect(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		w := c.fork()
		c.web(w)
		c.order(w, `cluster.worker.once('disconnect', () => process.exit(cluster.worker.exitedAfterDisconnect ? 42 : 1)); cluster.worker.disconnect()`)
		require.Equal(t, "42 <nil> true true", c.death(w))
		require.Contains(t, c.all(), fmt.Sprintf("disconnect %d true false", w.ID()))
	})
}

// TestNodeWorkerKill: kill() and destroy() inside node are voluntary and end
// with 0, also after disconnect().
func TestNodeWorkerKill(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{})
	for _, code := range []string{
		`cluster.worker.kill()`,
		`cluster.worker.destroy()`,
		`cluster.worker.once('disconnect', () => cluster.worker.destroy()); cluster.worker.disconnect()`,
	} {
		w := c.fork()
		c.web(w)
		c.order(w, code)
		require.Equal(t, "0 <nil> true true", c.death(w), code)
		require.Equal(t, 1, c.count(fmt.Sprintf("disconnect %d true", w.ID())), code)
	}
}

// TestNodeMasterDisconnect: Disconnect of a node worker is voluntary, however
// often and from wherever it is called, and whatever the worker is about.
func TestNodeMasterDisconnect(t *testing.T) {
	if apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		workers := c.forkN(4)
		for _, w := range workers[:2] {
			c.web(w)
		}
		c.order(workers[2], `web().listen(0); cluster.worker.disconnect()`)
		c.order(workers[3], `web().listen(0)`)
		errs := make(chan error, 100)
		for _, w := range workers {
			for range 5 {
				go func() { errs <- w.Disconnect(context.Background()) }()
			}
		}
		for range 5 * len(workers) {
			require.NoError(t, await(t, errs, "end of Disconnect"))
		}
		for _, w := range workers {
			require.Equal(t, "0 <nil> true true", c.death(w))
		}
		require.Zero(t, c.count("error"))
		require.NoError(t, workers[0].Disconnect(t.Context()), "once dead it is done")
	})
}

// TestNodeClusterDisconnect: many workers with two servers each, then Disconnect
// of all, twice over: nothing is left in between.
func TestNodeClusterDisconnect(t *testing.T) {
	if apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		ports := []int{freePort(t), freePort(t)}
		for range 2 {
			for range 4 {
				_, err := cluster.Fork()
				require.NoError(t, err)
			}
			workers := cluster.Workers()
			require.Len(t, workers, 4)
			for _, port := range ports {
				for _, w := range workers {
					c.web(w, port)
				}
				body, err := get("http://127.0.0.1:" + strconv.Itoa(port))
				require.NoError(t, err)
				require.Contains(t, body, "node ")
			}
			require.NoError(t, cluster.Disconnect(t.Context()))
			require.Empty(t, cluster.Workers())
			for _, w := range workers {
				require.Equal(t, "0 <nil> true true", c.death(w))
			}
			_, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(ports[0]))
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
		}
	})
}

// TestNodeDisconnectIdle: Disconnect right after the fork, with workers that
// never served beside one that does, and with no workers at all.
func TestNodeDisconnectIdle(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{})
	require.NoError(t, cluster.Disconnect(t.Context()))
	early, err := cluster.Fork()
	require.NoError(t, err)
	require.NoError(t, cluster.Disconnect(t.Context()))
	require.Equal(t, "0 <nil> true true", c.death(early))

	idle, tcp, udp := c.fork(), c.fork(), c.fork()
	c.web(tcp)
	c.run(udp, `await bind(dgram.createSocket('udp4'), 0)`)
	require.NoError(t, cluster.Disconnect(t.Context()))
	for _, w := range []*cluster.Process{idle, tcp, udp} {
		require.Equal(t, "0 <nil> true true", c.death(w))
	}
}

// TestNodeDisconnectedBeforeExit: Disconnect, called when a worker's channel has
// closed and its process has not ended, waits for the process.
func TestNodeDisconnectedBeforeExit(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{})
	w := c.fork()
	ended := make(chan error, 1)
	w.OnDisconnect(func(w *cluster.Process) { ended <- cluster.Disconnect(context.Background()) })
	c.order(w, `process.once('disconnect', () => setTimeout(() => process.exit(3), 100)); cluster.worker.disconnect()`)
	require.NoError(t, await(t, ended, "end of Disconnect"))
	require.True(t, w.IsDead())
	require.Contains(t, c.death(w), "3 <nil>")
}

// TestNodeKill: what Kill and plain signals look like from the master.
func TestNodeKill(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{})
	w := c.fork()
	require.NoError(t, w.OSProcess().Signal(syscall.SIGKILL))
	require.Equal(t, "-1 killed false true", c.death(w))

	w = c.fork()
	require.NoError(t, w.Kill())
	require.Equal(t, "-1 killed true true", c.death(w))
	require.ErrorIs(t, w.Kill(), cluster.ErrClosed)
	require.Empty(t, cluster.Workers())

	w = c.fork()
	c.order(w, `process.send('spinning'); setImmediate(() => { for (;;); })`)
	c.find(t, fmt.Sprintf(`message %d "spinning"`, w.ID()))
	require.NoError(t, w.OSProcess().Signal(syscall.SIGTERM))
	require.Equal(t, "-1 terminated false true", c.death(w))
}

// TestNodeDrain: a slow request under way when the worker is told to disconnect
// is answered, by its own server; only then it goes. New connections are others'.
func TestNodeDrain(t *testing.T) {
	if apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		w := c.fork()
		port := freePort(t)
		addr := c.web(w, port)
		slow := getting("http://" + addr + "/slow")
		c.find(t, "message "+strconv.Itoa(w.ID())+` {"event":"slow"}`)
		next := c.fork()
		c.web(next, port)

		ended := make(chan error, 1)
		go func() { ended <- w.Disconnect(context.Background()) }()
		eventually(t, func() bool { return w.State() == cluster.Draining }, "draining")
		require.Equal(t, "true", c.run(w, `
			while (state.servers[0].listening) await new Promise(setImmediate);
			return process.connected`).String())
		for range 5 {
			body, err := get("http://" + addr)
			require.NoError(t, err)
			require.Equal(t, "node "+strconv.Itoa(next.ID()), body)
		}
		require.False(t, w.IsDead())
		c.order(w, `release()`)
		require.Equal(t, "node "+strconv.Itoa(w.ID()), await(t, slow, "slow answer"))
		require.NoError(t, await(t, ended, "end of Disconnect"))
		require.Equal(t, "0 <nil> true true", c.death(w))
	})
}

// TestNodeDrainEnds: a worker that its clients or its own timers keep alive is
// killed when its time is over. Under a node primary it stays for ever.
func TestNodeDrainEnds(t *testing.T) {
	if apart(t) {
		return
	}
	c := newNodeCluster(t, cluster.Options{ShutdownTimeout: 500 * time.Millisecond})
	w, lingering := c.fork(), c.fork()
	slow := getting("http://" + c.web(w) + "/slow")
	c.find(t, "message "+strconv.Itoa(w.ID())+` {"event":"slow"}`)
	c.run(lingering, `setInterval(() => {}, 1000)`)
	require.ErrorIs(t, cluster.Disconnect(t.Context()), context.DeadlineExceeded)
	require.Contains(t, await(t, slow, "end of the request"), "error")
	require.Equal(t, "-1 killed true true", c.death(w))
	require.Equal(t, "-1 killed true true", c.death(lingering))
}

// TestNodeStaysForClients: a worker that has disconnected lives until the
// connections that it opened as a client have ended.
func TestNodeStaysForClients(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{})
	w := c.fork()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	c.run(w, `(await connect(args[0], '127.0.0.1')).resume()`, ln.Addr().(*net.TCPAddr).Port)
	conn, err := ln.Accept()
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- w.Disconnect(context.Background()) }()
	c.find(t, fmt.Sprintf("disconnect %d true", w.ID()))
	require.False(t, w.IsDead())
	require.Equal(t, cluster.Disconnected, w.State())
	require.NoError(t, conn.Close())
	require.NoError(t, await(t, ended, "end of Disconnect"))
}

// TestNodeAutoFork: node workers are respawned like Go workers, into their slots,
// unless their end was asked for.
func TestNodeAutoFork(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{Workers: 2})
	require.NoError(t, cluster.AutoFork())
	port := freePort(t)
	for _, w := range cluster.Workers() {
		c.web(w, port)
	}
	victim := cluster.Workers()[0]
	c.order(victim, `process.exit(5)`)
	require.Equal(t, "5 <nil> false true", c.death(victim))
	eventually(t, func() bool { return len(cluster.Workers()) == 2 }, "a second worker")
	heir := cluster.Workers()[1]
	require.Equal(t, victim.Slot(), heir.Slot())
	require.Equal(t, "127.0.0.1:"+strconv.Itoa(port), c.web(heir, port))

	c.order(heir, `cluster.worker.disconnect()`)
	require.Equal(t, "0 <nil> true true", c.death(heir))
	require.Len(t, cluster.Workers(), 1)
}

// TestNodeBootLoop: a node script that cannot start ends Run with ErrBootLoop.
func TestNodeBootLoop(t *testing.T) {
	if apart(t) {
		return
	}
	checkLeaks(t)
	o := cluster.Options{Exec: nodeBinary(t), Args: []string{filepath.Join(t.TempDir(), "missing.js")}, Workers: 1, Output: silent}
	require.NoError(t, cluster.SetupMaster(o))
	t.Cleanup(func() { require.NoError(t, cluster.SetupMaster(cluster.Options{})) })
	require.ErrorIs(t, cluster.Run(t.Context()), cluster.ErrBootLoop)
}

// nodeHolder is a master of one node worker, in a process of its own.
var nodeHolder = program("node-holder", func() {
	die(cluster.SetupMaster(cluster.Options{
		Exec: os.Getenv("NODE_BINARY"), Args: []string{os.Getenv("SCRIPT")},
		Scheduling: cluster.Scheduling(atoi(os.Getenv("SCHEDULING"))),
	}))
	cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) { fmt.Println("message", m) })
	cluster.OnListening(func(_ *cluster.Process, a net.Addr) { fmt.Println("listening", a) })
	go starveOnSignal()
	w, err := cluster.Fork()
	die(err)
	die(w.Send(jsOrder{ID: 1, Code: os.Getenv("CODE")}))
	fmt.Println("worker", w.PID())
	fmt.Println("run", cluster.Run(context.Background()))
})

// TestNodeMasterKilled: when the master is killed its node workers exit and the
// port is free.
func TestNodeMasterKilled(t *testing.T) {
	p := start(t, nodeHolder, "NODE_BINARY="+nodeBinary(t), "SCRIPT="+nodeScript(t, "worker.js"), `CODE=await listen(web(), 0, '127.0.0.1')`)
	addr := p.expect("listening")
	p.signal(syscall.SIGKILL)
	require.Equal(t, -1, p.exit())
	p.groupEmpty()
	_, err := net.Dial("tcp", addr)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// TestNodeMasterStopped: SIGTERM to the master drains its node workers and ends
// with 0.
func TestNodeMasterStopped(t *testing.T) {
	p := start(t, nodeHolder, "NODE_BINARY="+nodeBinary(t), "SCRIPT="+nodeScript(t, "worker.js"), `CODE=await listen(web(), 0, '127.0.0.1')`)
	p.expect("listening")
	p.signal(syscall.SIGTERM)
	require.Equal(t, "<nil>", p.expect("run"))
	require.Equal(t, 0, p.exit())
	p.groupEmpty()
}
