//go:build unix

package node_test

// Go workers under a node primary: how they end.

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestNodePrimaryKill: what signals and crashes of Go workers look like to node.
// A SIGTERM is an order to drain, and ends with 0.
func TestNodePrimaryKill(t *testing.T) {
	t.Parallel()
	n := clustertest.NewNodePrimary(t)
	for _, c := range []struct{ code, exit string }{
		{`process.kill(w.process.pid, 'SIGKILL')`, "null SIGKILL false true"},
		{`w.kill('SIGKILL')`, "null SIGKILL false true"},
		{`ask(w, {do: 'spin'}); w.process.kill('SIGKILL')`, "null SIGKILL false true"},
		{`process.kill(w.process.pid, 'SIGTERM')`, "0 null false true"},
		{`ask(w, {do: 'panic', text: 'as told'})`, "2 null false true"},
		// A worker with nothing to finish can be quicker than the signal.
		{`w.disconnect(); w.destroy('SIGKILL')`, "(null SIGKILL|0 null) true true"},
	} {
		var w int
		n.Run(`const w = fork(); await until(w, 'online');`+c.code+`; return w.id`).Decode(t, &w)
		require.Regexp(t, "^"+c.exit+"$", n.Exit(w), c.code)
	}
	// Its output comes another way than its exit.
	clustertest.Eventually(t, func() bool { return strings.Contains(n.P.Output(), "panic: as told") }, "the panic in the output")
	n.End()
}

// TestNodePrimaryWorkerDisconnect: Worker.Disconnect and Worker.Kill are voluntary
// ends for a node primary; OnDisconnect runs before the end and may choose the
// exit status.
func TestNodePrimaryWorkerDisconnect(t *testing.T) {
	policies(t, func(t *testing.T, n *clustertest.NodePrimary) {
		w := n.Fork()
		n.Listen(w, "tcp", "127.0.0.1:0")
		n.Tell(w, clustertest.GuestOrder{Do: "disconnect"})
		require.Equal(t, "0 null true true", n.Exit(w))
		require.Equal(t, "true false", n.Disconnect(w))

		w = n.Fork()
		n.Do(w, clustertest.GuestOrder{Do: "disconnected", N: 42})
		n.Tell(w, clustertest.GuestOrder{Do: "disconnect"})
		require.Equal(t, "42 null true true", n.Exit(w))

		w = n.Fork()
		n.Listen(w, "tcp", "127.0.0.1:0")
		n.Tell(w, clustertest.GuestOrder{Do: "kill"})
		require.Equal(t, "0 null true true", n.Exit(w))
	})
}

// TestNodePrimaryDisconnect: disconnect() of a Go worker is voluntary and ends it
// with 0, however often it is called and whatever the worker is about.
func TestNodePrimaryDisconnect(t *testing.T) {
	policies(t, func(t *testing.T, n *clustertest.NodePrimary) {
		for range 4 {
			n.Fork()
		}
		port := strconv.Itoa(clustertest.FreePort(t))
		n.Listen(1, "tcp", "127.0.0.1:"+port)
		n.Listen(2, "tcp", "127.0.0.1:"+port)
		n.Run(`
			const order = {do: 'listen', network: 'tcp', address: '127.0.0.1:0'};
			ask(workers[3], order);
			for (const w of Object.values(workers)) {
				w.disconnect();
				ask(w, {do: 'disconnect'});
				w.once('disconnect', () => w.disconnect());
			}`)
		for w := 1; w <= 4; w++ {
			require.Equal(t, "0 null true true", n.Exit(w))
			require.Equal(t, "true false", n.Disconnect(w))
		}
	})
}

// TestNodePrimaryDisconnectAll: cluster.disconnect() of many Go workers with two
// listeners each, twice over, and of workers that have just been forked.
func TestNodePrimaryDisconnectAll(t *testing.T) {
	policies(t, func(t *testing.T, n *clustertest.NodePrimary) {
		ports := []int{clustertest.FreePort(t), clustertest.FreePort(t)}
		for range 2 {
			var workers []int
			for range 4 {
				w := n.Fork()
				workers = append(workers, w)
				for _, port := range ports {
					n.Listen(w, "tcp", "127.0.0.1:"+strconv.Itoa(port))
				}
			}
			_, err := clustertest.Get("http://127.0.0.1:" + strconv.Itoa(ports[1]))
			require.NoError(t, err)
			require.Equal(t, "0", n.Run(`await new Promise((resolve) => cluster.disconnect(resolve)); return Object.keys(cluster.workers).length`).String())
			for _, w := range workers {
				require.Equal(t, "0 null true true", n.Exit(w))
			}
			_, err = net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(ports[0]))
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
		}
		n.Run(`fork(); fork(); await new Promise((resolve) => cluster.disconnect(resolve))`)
	})
}

// TestNodePrimaryDrain: the slow request under way when a Go worker is told to
// disconnect is answered; new connections reach the other worker.
func TestNodePrimaryDrain(t *testing.T) {
	policies(t, func(t *testing.T, n *clustertest.NodePrimary) {
		w := n.Fork()
		addr := n.Listen(w, "tcp", "127.0.0.1:"+strconv.Itoa(clustertest.FreePort(t)))
		slow := getLater("http://" + addr + "/slow")
		n.Find(t, `message 1 {"event":"slow"}`)
		next := n.Fork()
		n.Listen(next, "tcp", addr)
		n.Run(`workers[1].disconnect()`)
		for range 10 {
			body, err := clustertest.Get("http://" + addr)
			require.NoError(t, err)
			if body != "go 1" { // accepted before it heard
				require.Equal(t, "go 2", body)
			}
		}
		require.Zero(t, n.Count("exit"))
		n.Tell(w, clustertest.GuestOrder{Do: "release"})
		require.Equal(t, "go 1", clustertest.Await(t, slow, "slow answer"))
		require.Equal(t, "0 null true true", n.Exit(w))
	})
}

// TestNodePrimaryKeepAlive: idle keep-alive connections do not keep a Go worker
// from ending.
func TestNodePrimaryKeepAlive(t *testing.T) {
	t.Parallel()
	n := clustertest.NewNodePrimary(t)
	w := n.Fork()
	tr := new(http.Transport)
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("http://" + n.Listen(w, "tcp", "127.0.0.1:0"))
	require.NoError(t, err)
	resp.Body.Close()
	n.End()
	require.Equal(t, "0 null true true", n.Exit(w))
}

// TestNodePrimaryDeath: when the primary is killed, crashes or exits, its Go
// workers end, those with a request after it is answered, and the port is free.
func TestNodePrimaryDeath(t *testing.T) {
	for _, end := range []string{`process.kill(process.pid, 'SIGKILL')`, `setImmediate(() => { throw new Error('as told') })`, `process.exit(0)`} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			n := clustertest.NewNodePrimary(t)
			w := n.Fork()
			n.Fork()
			addr := n.Listen(w, "tcp", "127.0.0.1:"+strconv.Itoa(clustertest.FreePort(t)))
			n.Order(end)
			n.P.Exit()
			n.P.GroupEmpty()
			_, err := net.Dial("tcp", addr)
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
		})
	}
}
