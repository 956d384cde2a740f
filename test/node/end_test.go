//go:build unix

package node_test

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
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestNodeExit: exit(n) is what it is, not voluntary: one disconnect, one death.
func TestNodeExit(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	w := c.Fork()
	own := make(chan cluster.Exit, 1)
	w.OnExit(func(_ *cluster.Process, e cluster.Exit) { own <- e })
	c.Web(w)
	c.Order(w, `process.exit(42)`)
	require.Equal(t, "42 <nil> false true", c.Death(w))
	require.Equal(t, 42, clustertest.Await(t, own, "its own OnExit").Code)
	require.Equal(t, 1, c.Count("disconnect"))
	require.ErrorIs(t, syscall.Kill(w.PID(), 0), syscall.ESRCH)
	require.ErrorIs(t, w.Send(1), cluster.ErrClosed)
	require.True(t, w.IsDead())
	require.False(t, w.IsConnected())
}

// TestNodeUncaught: an exception that nobody catches is exit status 1; with a
// handler the worker and its channel go on.
func TestNodeUncaught(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{Output: silent})
	w := c.Fork()
	c.Run(w, `
		state.caught = [];
		process.on('uncaughtException', (e) => state.caught.push(e.message));
		process.on('message', (m) => { if (m.throw) throw new Error(m.throw) })`)
	require.NoError(t, w.Send(map[string]string{"throw": "first"}))
	require.NoError(t, w.Send(map[string]string{"throw": "second"}))
	require.JSONEq(t, `["first","second"]`, c.Run(w, `return state.caught`).String())
	c.Order(w, `process.removeAllListeners('uncaughtException'); process.nextTick(() => { throw new Error('uncaught') })`)
	require.Equal(t, "1 <nil> false true", c.Death(w))
}

func silent(*cluster.Process) (stdout, stderr io.Writer) { return io.Discard, io.Discard }

// TestNodeProcessDisconnect: process.disconnect() inside node ends it with 0,
// not voluntary.
func TestNodeProcessDisconnect(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	w := c.Fork()
	c.Web(w)
	c.Order(w, `process.disconnect()`)
	require.Equal(t, "0 <nil> false true", c.Death(w))
	require.Equal(t, 1, c.Count("disconnect"))
}

// TestNodeWorkerDisconnect: cluster.worker.disconnect() inside node is voluntary;
// its 'disconnect' handler runs, and may choose the exit status; the state is
// Disconnected between.
func TestNodeWorkerDisconnect(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		w := c.Fork()
		c.Web(w)
		c.Order(w, `cluster.worker.once('disconnect', () => process.exit(cluster.worker.exitedAfterDisconnect ? 42 : 1)); cluster.worker.disconnect()`)
		require.Equal(t, "42 <nil> true true", c.Death(w))
		require.Contains(t, c.All(), fmt.Sprintf("disconnect %d true false", w.ID()))
	})
}

// TestNodeWorkerKill: kill() and destroy() inside node are voluntary and end
// with 0, also after disconnect().
func TestNodeWorkerKill(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	for _, code := range []string{
		`cluster.worker.kill()`,
		`cluster.worker.destroy()`,
		`cluster.worker.once('disconnect', () => cluster.worker.destroy()); cluster.worker.disconnect()`,
	} {
		w := c.Fork()
		c.Web(w)
		c.Order(w, code)
		require.Equal(t, "0 <nil> true true", c.Death(w), code)
		require.Equal(t, 1, c.Count(fmt.Sprintf("disconnect %d true", w.ID())), code)
	}
}

// TestNodeMasterDisconnect: Disconnect of a node worker is voluntary, however
// often and from wherever it is called, and whatever the worker is about.
func TestNodeMasterDisconnect(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		workers := c.ForkN(4)
		for _, w := range workers[:2] {
			c.Web(w)
		}
		c.Order(workers[2], `web().listen(0); cluster.worker.disconnect()`)
		c.Order(workers[3], `web().listen(0)`)
		errs := make(chan error, 100)
		for _, w := range workers {
			for range 5 {
				go func() { errs <- w.Disconnect(context.Background()) }()
			}
		}
		for range 5 * len(workers) {
			require.NoError(t, clustertest.Await(t, errs, "end of Disconnect"))
		}
		for _, w := range workers {
			require.Equal(t, "0 <nil> true true", c.Death(w))
		}
		require.Zero(t, c.Count("error"))
		require.NoError(t, workers[0].Disconnect(t.Context()), "once dead it is done")
	})
}

// TestNodeClusterDisconnect: many workers with two servers each, then Disconnect
// of all, twice over: nothing is left in between.
func TestNodeClusterDisconnect(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		ports := []int{clustertest.FreePort(t), clustertest.FreePort(t)}
		for range 2 {
			for range 4 {
				_, err := cluster.Fork()
				require.NoError(t, err)
			}
			workers := cluster.Workers()
			require.Len(t, workers, 4)
			for _, port := range ports {
				for _, w := range workers {
					c.Web(w, port)
				}
				body, err := clustertest.Get("http://127.0.0.1:" + strconv.Itoa(port))
				require.NoError(t, err)
				require.Contains(t, body, "node ")
			}
			require.NoError(t, cluster.Disconnect(t.Context()))
			require.Empty(t, cluster.Workers())
			for _, w := range workers {
				require.Equal(t, "0 <nil> true true", c.Death(w))
			}
			_, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(ports[0]))
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
		}
	})
}

// TestNodeDisconnectIdle: Disconnect right after the fork, with workers that
// never served beside one that does, and with no workers at all.
func TestNodeDisconnectIdle(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	require.NoError(t, cluster.Disconnect(t.Context()))
	early, err := cluster.Fork()
	require.NoError(t, err)
	require.NoError(t, cluster.Disconnect(t.Context()))
	require.Equal(t, "0 <nil> true true", c.Death(early))

	idle, tcp, udp := c.Fork(), c.Fork(), c.Fork()
	c.Web(tcp)
	c.Run(udp, `await bind(dgram.createSocket('udp4'), 0)`)
	require.NoError(t, cluster.Disconnect(t.Context()))
	for _, w := range []*cluster.Process{idle, tcp, udp} {
		require.Equal(t, "0 <nil> true true", c.Death(w))
	}
}

// TestNodeDisconnectedBeforeExit: Disconnect, called when a worker's channel has
// closed and its process has not ended, waits for the process.
func TestNodeDisconnectedBeforeExit(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	w := c.Fork()
	ended := make(chan error, 1)
	w.OnDisconnect(func(w *cluster.Process) { ended <- cluster.Disconnect(context.Background()) })
	c.Order(w, `process.once('disconnect', () => setTimeout(() => process.exit(3), 100)); cluster.worker.disconnect()`)
	require.NoError(t, clustertest.Await(t, ended, "end of Disconnect"))
	require.True(t, w.IsDead())
	require.Contains(t, c.Death(w), "3 <nil>")
}

// TestNodeKill: what Kill and plain signals look like from the master.
func TestNodeKill(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	w := c.Fork()
	require.NoError(t, w.OSProcess().Signal(syscall.SIGKILL))
	require.Equal(t, "-1 killed false true", c.Death(w))

	w = c.Fork()
	require.NoError(t, w.Kill())
	require.Equal(t, "-1 killed true true", c.Death(w))
	require.ErrorIs(t, w.Kill(), cluster.ErrClosed)
	require.Empty(t, cluster.Workers())

	w = c.Fork()
	c.Order(w, `process.send('spinning'); setImmediate(() => { for (;;); })`)
	c.Find(t, fmt.Sprintf(`message %d "spinning"`, w.ID()))
	require.NoError(t, w.OSProcess().Signal(syscall.SIGTERM))
	require.Equal(t, "-1 terminated false true", c.Death(w))
}

// TestNodeDrain: a slow request under way when the worker is told to disconnect
// is answered, by its own server; only then it goes. New connections are others'.
func TestNodeDrain(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		w := c.Fork()
		port := clustertest.FreePort(t)
		addr := c.Web(w, port)
		slow := getLater("http://" + addr + "/slow")
		c.Find(t, "message "+strconv.Itoa(w.ID())+` {"event":"slow"}`)
		next := c.Fork()
		c.Web(next, port)

		ended := make(chan error, 1)
		go func() { ended <- w.Disconnect(context.Background()) }()
		clustertest.Eventually(t, func() bool { return w.State() == cluster.Draining }, "draining")
		require.Equal(t, "true", c.Run(w, `
			while (state.servers[0].listening) await new Promise(setImmediate);
			return process.connected`).String())
		for range 5 {
			requireServedBy(t, addr, next)
		}
		require.False(t, w.IsDead())
		c.Order(w, `release()`)
		require.Equal(t, "node "+strconv.Itoa(w.ID()), clustertest.Await(t, slow, "slow answer"))
		require.NoError(t, clustertest.Await(t, ended, "end of Disconnect"))
		require.Equal(t, "0 <nil> true true", c.Death(w))
	})
}

// TestNodeDrainEnds: a worker that its clients or its own timers keep alive is
// killed when its time is over. Under a node primary it stays for ever.
func TestNodeDrainEnds(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	c := clustertest.NewNodeCluster(t, cluster.Options{ShutdownTimeout: 500 * time.Millisecond})
	w, lingering := c.Fork(), c.Fork()
	slow := getLater("http://" + c.Web(w) + "/slow")
	c.Find(t, "message "+strconv.Itoa(w.ID())+` {"event":"slow"}`)
	c.Run(lingering, `setInterval(() => {}, 1000)`)
	require.ErrorIs(t, cluster.Disconnect(t.Context()), context.DeadlineExceeded)
	require.Contains(t, clustertest.Await(t, slow, "end of the request"), "error")
	require.Equal(t, "-1 killed true true", c.Death(w))
	require.Equal(t, "-1 killed true true", c.Death(lingering))
}

// TestNodeStaysForClients: a worker that has disconnected lives until the
// connections that it opened as a client have ended.
func TestNodeStaysForClients(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	w := c.Fork()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	c.Run(w, `(await connect(args[0], '127.0.0.1')).resume()`, ln.Addr().(*net.TCPAddr).Port)
	conn, err := ln.Accept()
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- w.Disconnect(context.Background()) }()
	c.Find(t, fmt.Sprintf("disconnect %d true", w.ID()))
	require.False(t, w.IsDead())
	require.Equal(t, cluster.Disconnected, w.State())
	require.NoError(t, conn.Close())
	require.NoError(t, clustertest.Await(t, ended, "end of Disconnect"))
}

// TestNodeAutoFork: node workers are respawned like Go workers, into their slots,
// unless their end was asked for.
func TestNodeAutoFork(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{Workers: 2})
	require.NoError(t, cluster.AutoFork())
	port := clustertest.FreePort(t)
	for _, w := range cluster.Workers() {
		c.Web(w, port)
	}
	victim := cluster.Workers()[0]
	c.Order(victim, `process.exit(5)`)
	require.Equal(t, "5 <nil> false true", c.Death(victim))
	clustertest.Eventually(t, func() bool { return len(cluster.Workers()) == 2 }, "a second worker")
	heir := cluster.Workers()[1]
	require.Equal(t, victim.Slot(), heir.Slot())
	require.Equal(t, "127.0.0.1:"+strconv.Itoa(port), c.Web(heir, port))

	c.Order(heir, `cluster.worker.disconnect()`)
	require.Equal(t, "0 <nil> true true", c.Death(heir))
	require.Len(t, cluster.Workers(), 1)
}

// TestNodeClosesAtItsEnd: a worker that closes its server because it ends does not take the
// address with it, although nobody else listens there: who connects waits for the next
// worker in its slot. One that stays gives the address up.
func TestNodeClosesAtItsEnd(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Workers: 1, Scheduling: s})
		require.NoError(t, cluster.AutoFork())
		w := cluster.Workers()[0]
		port := clustertest.FreePort(t)
		addr := c.Web(w, port)
		c.Run(w, `process.once('SIGTERM', () => { state.servers[0].close(); process.exit(0) })`)
		require.NoError(t, w.OSProcess().Signal(syscall.SIGTERM))
		require.Equal(t, "0 <nil> false true", c.Death(w))
		answer := getLater("http://" + addr)
		client, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		client.Close()
		clustertest.Eventually(t, func() bool { return len(cluster.Workers()) == 1 }, "another worker")
		heir := cluster.Workers()[0]
		c.Web(heir, port)
		require.Equal(t, "node "+strconv.Itoa(heir.ID()), clustertest.Await(t, answer, "answer"))
		c.Run(heir, `state.servers[0].close()`)
		clustertest.Eventually(t, func() bool { return len(cluster.Stats().Listeners) == 0 }, "the end of the address")
	})
}

// TestNodeBootLoop: a node script that cannot start ends Run with ErrBootLoop.
func TestNodeBootLoop(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	clustertest.CheckLeaks(t)
	o := cluster.Options{Exec: clustertest.NodeBinary(t), Args: []string{filepath.Join(t.TempDir(), "missing.js")}, Workers: 1, Output: silent}
	require.NoError(t, cluster.SetupMaster(o))
	t.Cleanup(func() { require.NoError(t, cluster.SetupMaster(cluster.Options{})) })
	require.ErrorIs(t, cluster.Run(t.Context()), cluster.ErrBootLoop)
}

// nodeHolder is a master of one node worker, in a process of its own.
var nodeHolder = clustertest.Program("node-holder", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{
		Exec: os.Getenv("NODE_BINARY"), Args: []string{os.Getenv("SCRIPT")},
		Scheduling: cluster.Scheduling(clustertest.Atoi(os.Getenv("SCHEDULING"))),
	}))
	cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) { fmt.Println("message", m) })
	cluster.OnListening(func(_ *cluster.Process, a net.Addr) { fmt.Println("listening", a) })
	go starveOnSignal()
	w, err := cluster.Fork()
	clustertest.Must(err)
	clustertest.Must(w.Send(clustertest.JSOrder{ID: 1, Code: os.Getenv("CODE")}))
	fmt.Println("worker", w.PID())
	fmt.Println("run", cluster.Run(context.Background()))
})

// TestNodeMasterKilled: when the master is killed its node workers exit and the
// port is free.
func TestNodeMasterKilled(t *testing.T) {
	addr := clustertest.UnusedAddress(t, "tcp", "") // nobody else gets it at the end
	p := clustertest.Start(t, nodeHolder, "NODE_BINARY="+clustertest.NodeBinary(t), "SCRIPT="+clustertest.NodeScript(t, "worker.js"), `CODE=await listen(web(), `+addr[len("127.0.0.1:"):]+`, '127.0.0.1')`)
	require.Equal(t, addr, p.Expect("listening"))
	p.Signal(syscall.SIGKILL)
	require.Equal(t, -1, p.Exit())
	p.GroupEmpty()
	_, err := net.Dial("tcp", addr)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// TestNodeMasterStopped: SIGTERM to the master drains its node workers and ends
// with 0.
func TestNodeMasterStopped(t *testing.T) {
	manager := clustertest.NewManager(t)
	p := clustertest.Start(t, nodeHolder, manager.Env, "NODE_BINARY="+clustertest.NodeBinary(t), "SCRIPT="+clustertest.NodeScript(t, "worker.js"), `CODE=await listen(web(), 0, '127.0.0.1')`)
	manager.InRun()
	p.Signal(syscall.SIGTERM)
	require.Equal(t, "<nil>", p.Expect("run"))
	require.Equal(t, 0, p.Exit())
	p.GroupEmpty()
}
