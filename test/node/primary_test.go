//go:build unix

package node_test

// Go workers under a node primary: what node's own suite asserts of node
// workers, as far as it is a worker's to do.

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestNodePrimaryBasic: a node primary sees every event of a Go worker, once and
// in order, with what node's own workers tell; the variables that made it a
// worker are gone from its environment.
func TestNodePrimaryBasic(t *testing.T) {
	policies(t, func(t *testing.T, n *clustertest.NodePrimary) {
		w := n.Fork()
		require.Equal(t, 1, w)
		require.Equal(t, "online", n.Run(`return workers[1].state`).String())
		for _, k := range []string{"NODE_UNIQUE_ID", "NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE"} {
			require.Empty(t, n.Do(w, clustertest.GuestOrder{Do: "env", Text: k}).Text)
		}
		require.Equal(t, "unused", n.Do(w, clustertest.GuestOrder{Do: "args"}).Text)

		addr := n.Listen(w, "tcp", "127.0.0.1:0")
		_, port, err := net.SplitHostPort(addr)
		require.NoError(t, err)
		require.JSONEq(t, `{"addressType":4,"address":"127.0.0.1","port":`+port+`}`, strings.TrimPrefix(n.Find(t, "listening 1 "), "listening 1 "))
		require.Equal(t, "listening", n.Run(`return workers[1].state`).String())
		require.Equal(t, "true false", n.Run("return `${workers[1].isConnected()} ${workers[1].isDead()}`").String())
		body, err := clustertest.Get("http://" + addr)
		require.NoError(t, err)
		require.Equal(t, "go 1", body)

		n.Tell(w, clustertest.GuestOrder{Do: "exit", N: 42})
		require.Equal(t, "42 null false true", n.Exit(w))
		require.Equal(t, "false false", n.Disconnect(w))
		require.Equal(t, "0", n.Run(`await new Promise(setImmediate); return Object.keys(cluster.workers).length`).String())
		require.Regexp(t, `^up\nfork 1\nonline 1 online\nlistening 1 .*\n(disconnect 1 false false\nexit 1|exit 1 .*\ndisconnect 1 false false)`,
			strings.Join(n.All(), "\n"))
	})
}

// TestNodePrimaryMessages: any JSON value goes both ways, in order, and reaches
// both the cluster's and the worker's handlers; one sent at the fork arrives.
func TestNodePrimaryMessages(t *testing.T) {
	t.Parallel()
	n := clustertest.NewNodePrimary(t)
	n.Run(`
		const w = fork();
		for (const v of [null, 42, true, 'str', [1, 2], {hello: 1}, '</script>']) w.send(v);
		await ask(w, {do: 'echo'});
		w.send('last')`)
	n.Find(t, `message 1 {"cluster":"last"}`)
	n.Find(t, `message 1 {"worker":"last"}`)
	var got []string
	for _, line := range n.All() {
		if m, ok := strings.CutPrefix(line, "message 1 "); ok {
			got = append(got, m)
		}
	}
	for _, how := range []string{"cluster", "worker"} {
		var seen []string
		for _, m := range got {
			if v, ok := strings.CutPrefix(m, `{"`+how+`":`); ok {
				seen = append(seen, strings.TrimSuffix(v, "}"))
			}
		}
		all := []string{"null", "42", "true", `"str"`, "[1,2]", `{"hello":1}`, `"</script>"`, `"last"`}
		if how == "worker" { // the early ones may have been taken when it was registered
			all = all[len(all)-len(seen):]
		}
		require.Equal(t, all, seen, how)
		require.NotEmpty(t, seen)
	}
	n.End()
}

// TestNodePrimaryInvalidMessage: internal messages that mean nothing are ignored.
func TestNodePrimaryInvalidMessage(t *testing.T) {
	t.Parallel()
	n := clustertest.NewNodePrimary(t)
	w := n.Fork()
	n.Run(`
		for (const m of [{cmd: 'NODE_CLUSTER', ack: -1}, {cmd: 'NODE_CLUSTER', act: 'nonsense'}, {cmd: 'NODE_CLUSTER'}, {cmd: 'NODE_NONSENSE'}])
			workers[1].send(m)`)
	require.Equal(t, "unused", n.Do(w, clustertest.GuestOrder{Do: "args"}).Text)
	require.Zero(t, n.Count("message"))
	n.End()
}

// TestNodePrimaryUserHandles: a socket that the primary sends and nobody takes is
// closed, also twice and with a large message, and the primary's server can close.
func TestNodePrimaryUserHandles(t *testing.T) {
	t.Parallel()
	n := clustertest.NewNodePrimary(t)
	w := n.Fork()
	n.Do(w, clustertest.GuestOrder{Do: "echo"})
	require.Equal(t, "closed", n.Run(`
		const accepted = [];
		const server = net.createServer({pauseOnConnect: true}, (socket) => {
			workers[1].send({n: 1, text: 'x'.repeat(800000)}, socket);
			workers[1].send({n: 2}, socket);
		});
		const {port} = await listen(server, 0, '127.0.0.1');
		for (let i = 0; i < 5; i++) {
			const client = net.connect(port, '127.0.0.1');
			client.on('error', () => {});
			await until(client.resume(), 'close');
		}
		workers[1].send('server', server);
		await close(server);
		return 'closed'`).String())
	n.Find(t, `message 1 {"cluster":"server"}`)
	require.Equal(t, 5, n.Count(`message 1 {"cluster":{"n":1,"text":"xxx`))
	require.Equal(t, 5, n.Count(`message 1 {"cluster":{"n":2}}`))
	require.Zero(t, n.Count(`message 1 {"error"`))
	n.End()
}

// TestNodePrimarySettings: cwd, args, env, silent and stdio of node's settings
// mean for a Go worker what they mean for a node worker; the channel may be at
// any descriptor.
func TestNodePrimarySettings(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	n := clustertest.NewNodePrimary(t, "A=primary", `SETTINGS={"cwd":"`+dir+`","args":["custom","argument"],"silent":true}`)
	var w int
	n.Run(`const w = fork({B: 'fork'}); await until(w, 'online'); return w.id`).Decode(t, &w)
	require.Equal(t, dir, n.Do(w, clustertest.GuestOrder{Do: "dir"}).Text)
	require.Equal(t, "unused custom argument", n.Do(w, clustertest.GuestOrder{Do: "args"}).Text)
	require.Equal(t, "primary", n.Do(w, clustertest.GuestOrder{Do: "env", Text: "A"}).Text)
	require.Equal(t, "fork", n.Do(w, clustertest.GuestOrder{Do: "env", Text: "B"}).Text)
	require.Equal(t, "said", n.Run(`
		const said = until(workers[args[0]].process.stdout, 'data');
		ask(workers[args[0]], {do: 'write', n: 1, text: 'said'});
		return String((await said)[0])`, w).String())

	require.Equal(t, "at the pipe", n.Run(`
		cluster.setupPrimary({stdio: ['ignore', 'inherit', 'inherit', 'pipe', 'pipe', 'ipc'], cwd: process.cwd()});
		const w = fork();
		await until(w, 'online');
		const data = until(w.process.stdio[4], 'data');
		ask(w, {do: 'write', n: 4, text: 'at the pipe'});
		return String((await data)[0])`).String())
	require.NotEqual(t, dir, n.Do(w+1, clustertest.GuestOrder{Do: "dir"}).Text)
	n.End()
}

// TestNodePrimaryAdvanced: under serialization 'advanced' a Go worker exits at
// once and says what to do.
func TestNodePrimaryAdvanced(t *testing.T) {
	t.Parallel()
	n := clustertest.NewNodePrimary(t, `SETTINGS={"serialization":"advanced"}`)
	n.Run(`fork()`)
	require.Equal(t, "1 null false true", n.Exit(1))
	require.Contains(t, n.P.Output(), `the primary uses serialization "advanced"`)
	require.Contains(t, n.P.Output(), `cluster.setupPrimary({serialization: 'json'})`)
	n.End()
}

// TestNodePrimaryRequest: a Request to a node primary says that it cannot be answered.
func TestNodePrimaryRequest(t *testing.T) {
	t.Parallel()
	n := clustertest.NewNodePrimary(t)
	require.Contains(t, n.Do(n.Fork(), clustertest.GuestOrder{Do: "request"}).Err, "not supported here")
	n.End()
}

// ---- listening

// TestNodePrimaryListen: Go workers share their addresses; the n-th listen on
// port 0 is the same in all, opened for the second time or not; connections are
// spread, under SCHED_RR evenly; no descriptor is left in a worker.
func TestNodePrimaryListen(t *testing.T) {
	policies(t, func(t *testing.T, n *clustertest.NodePrimary) {
		workers := []int{n.Fork(), n.Fork()}
		before := n.Do(workers[0], clustertest.GuestOrder{Do: "descriptors"}).N
		listen := clustertest.GuestOrder{Do: "listen", Network: "tcp", Address: "127.0.0.1:0"}
		var addrs [2][2]clustertest.GuestAnswer
		for range 2 {
			for i, w := range workers {
				addrs[i] = [2]clustertest.GuestAnswer{n.Do(w, listen), n.Do(w, listen)}
				require.Empty(t, addrs[i][0].Err)
			}
			require.Equal(t, addrs[0][0].Addr, addrs[1][0].Addr)
			require.Equal(t, addrs[0][1].Addr, addrs[1][1].Addr)
			require.NotEqual(t, addrs[0][0].Addr, addrs[0][1].Addr)
			served := make(map[string]int)
			for range 20 {
				body, err := clustertest.Get("http://" + addrs[0][0].Addr)
				require.NoError(t, err)
				served[body]++
				w := clustertest.Atoi(strings.TrimPrefix(body, "go "))
				require.Contains(t, workers, w)
				n.Do(w, clustertest.GuestOrder{Do: "args"}) // its answer is behind its word that it has the connection
			}
			if strings.Contains(t.Name(), "RoundRobin") {
				require.Equal(t, 10, served["go 1"])
			}
			for i, w := range workers {
				for _, ln := range addrs[i] {
					require.Empty(t, n.Do(w, clustertest.GuestOrder{Do: "close", N: ln.N}).Err)
				}
			}
			_, err := net.Dial("tcp", addrs[0][0].Addr)
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
		}
		clustertest.Eventually(t, func() bool { return n.Do(workers[0], clustertest.GuestOrder{Do: "descriptors"}).N <= before+1 }, "no descriptor more than before")
	})
}

// TestNodePrimaryListenErrors: a busy port is EADDRINUSE in Go, also where node
// 20 sends a socket that is bound to nothing; once it is free a retry succeeds.
func TestNodePrimaryListenErrors(t *testing.T) {
	policies(t, func(t *testing.T, n *clustertest.NodePrimary) {
		workers := []int{n.Fork(), n.Fork()}
		busy, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(clustertest.FreePort(t)))
		require.NoError(t, err)
		defer busy.Close()
		order := clustertest.GuestOrder{Do: "listen", Network: "tcp", Address: busy.Addr().String()}
		for _, w := range workers {
			r := n.Do(w, order)
			require.True(t, r.InUse, "%+v", r)
			require.Contains(t, r.Err, busy.Addr().String()+": address already in use")
		}
		busy.Close()
		clustertest.AwaitUnused(t, busy.Addr().String())
		for _, w := range workers {
			require.Empty(t, n.Do(w, order).Err)
		}
		_, err = clustertest.Get("http://" + busy.Addr().String())
		require.NoError(t, err)

		packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
		require.NoError(t, err)
		defer packets.Close()
		r := n.Do(workers[0], clustertest.GuestOrder{Do: "packet", Network: "udp4", Address: packets.LocalAddr().String()})
		require.True(t, r.InUse, "%+v", r)
	})
}

// TestNodePrimaryListenTwice: the second listen of one worker on one port is
// EADDRINUSE, and spoils nothing for others or for later.
func TestNodePrimaryListenTwice(t *testing.T) {
	policies(t, func(t *testing.T, n *clustertest.NodePrimary) {
		workers := []int{n.Fork(), n.Fork()}
		order := clustertest.GuestOrder{Do: "listen", Network: "tcp", Address: "127.0.0.1:" + strconv.Itoa(clustertest.FreePort(t))}
		first := n.Do(workers[0], order)
		require.Empty(t, first.Err)
		for range 2 {
			r := n.Do(workers[0], order)
			require.True(t, r.InUse, "%+v", r)
			require.Contains(t, r.Err, "this worker listens there already")
		}
		require.Empty(t, n.Do(workers[1], order).Err)
		require.Empty(t, n.Do(workers[0], clustertest.GuestOrder{Do: "close", N: first.N}).Err)
		for range 3 {
			body, err := clustertest.Get("http://" + order.Address)
			require.NoError(t, err)
			require.Equal(t, "go 2", body)
		}
		require.Empty(t, n.Do(workers[0], order).Err)
	})
}

// TestNodePrimaryIPv6Only: :: takes IPv4 too unless IPv6Only is asked for; then
// the port of 0.0.0.0 is still free.
func TestNodePrimaryIPv6Only(t *testing.T) {
	policies(t, func(t *testing.T, n *clustertest.NodePrimary) {
		w := n.Fork()
		port := func(o clustertest.GuestOrder) string {
			o.Do = "listen"
			r := n.Do(w, o)
			require.Empty(t, r.Err)
			_, port, err := net.SplitHostPort(r.Addr)
			require.NoError(t, err)
			return port
		}
		for _, address := range []string{":0", "[::]:0"} {
			_, err := clustertest.Get("http://127.0.0.1:" + port(clustertest.GuestOrder{Network: "tcp", Address: address}))
			require.NoError(t, err)
		}
		// With port 0 somebody else might have it for IPv4.
		only := port(clustertest.GuestOrder{Network: "tcp6", Address: "[::]:" + strconv.Itoa(clustertest.FreePort(t)), Config: cluster.ListenConfig{IPv6Only: true}})
		_, err := clustertest.Get("http://127.0.0.1:" + only)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		port(clustertest.GuestOrder{Network: "tcp4", Address: "0.0.0.0:" + only})
		_, err = clustertest.Get("http://127.0.0.1:" + only)
		require.NoError(t, err)
	})
}

// TestNodePrimaryUnixSocket: HTTP over a unix socket, whose file has the mode
// that was asked for; one served by somebody else is EADDRINUSE.
func TestNodePrimaryUnixSocket(t *testing.T) {
	policies(t, func(t *testing.T, n *clustertest.NodePrimary) {
		dir := t.TempDir()
		path := filepath.Join(dir, "s.sock")
		for range 2 {
			w := n.Fork()
			r := n.Do(w, clustertest.GuestOrder{Do: "listen", Network: "unix", Address: path, Config: cluster.ListenConfig{Mode: 0o640}})
			require.Empty(t, r.Err)
			require.Equal(t, path, r.Addr)
			require.JSONEq(t, `{"addressType":-1,"address":"`+path+`","port":-1}`,
				strings.TrimPrefix(n.Find(t, fmt.Sprintf("listening %d ", w)), fmt.Sprintf("listening %d ", w)))
			body, err := getUnix(path, "http://unix/")
			require.NoError(t, err)
			require.Contains(t, body, "go ")
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o640), info.Mode().Perm())
		}
		busy, err := net.Listen("unix", filepath.Join(dir, "busy.sock"))
		require.NoError(t, err)
		defer busy.Close()
		r := n.Do(1, clustertest.GuestOrder{Do: "listen", Network: "unix", Address: busy.Addr().String()})
		require.True(t, r.InUse, "%+v", r)
		r = n.Do(1, clustertest.GuestOrder{Do: "packet", Network: "unixgram", Address: filepath.Join(dir, "gram.sock")})
		require.Contains(t, r.Err, "not supported here")
	})
}

// TestNodePrimaryDatagrams: Go workers share a UDP port.
func TestNodePrimaryDatagrams(t *testing.T) {
	policies(t, func(t *testing.T, n *clustertest.NodePrimary) {
		workers := []int{n.Fork(), n.Fork()}
		order := clustertest.GuestOrder{Do: "packet", Network: "udp4", Address: "127.0.0.1:" + strconv.Itoa(clustertest.FreePort(t))}
		var sockets []clustertest.GuestAnswer
		for _, w := range workers {
			r := n.Do(w, order)
			require.Empty(t, r.Err)
			require.Equal(t, order.Address, r.Addr)
			sockets = append(sockets, r)
			require.Contains(t, n.Find(t, fmt.Sprintf("listening %d ", w)), `"addressType":"udp4"`)
		}
		for range 20 {
			require.Contains(t, askPacket(t, "udp", order.Address), "go ")
		}
		require.Empty(t, n.Do(workers[0], clustertest.GuestOrder{Do: "close", N: sockets[0].N}).Err)
		require.Equal(t, "go 2", askPacket(t, "udp", order.Address))
		for _, w := range workers {
			order.Address = "127.0.0.1:0"
			sockets[w-1] = n.Do(w, order)
		}
		require.Equal(t, sockets[0].Addr, sockets[1].Addr)
	})
}

// TestNodePrimaryRestartServer: a worker closes and opens its listener while
// another serves; no connection is refused.
func TestNodePrimaryRestartServer(t *testing.T) {
	policies(t, func(t *testing.T, n *clustertest.NodePrimary) {
		workers := []int{n.Fork(), n.Fork()}
		order := clustertest.GuestOrder{Do: "listen", Network: "tcp", Address: "127.0.0.1:" + strconv.Itoa(clustertest.FreePort(t))}
		require.Empty(t, n.Do(workers[0], order).Err)
		for range 3 {
			r := n.Do(workers[1], order)
			require.Empty(t, r.Err)
			for range 5 {
				_, err := clustertest.Get("http://" + order.Address)
				require.NoError(t, err)
			}
			require.Empty(t, n.Do(workers[1], clustertest.GuestOrder{Do: "close", N: r.N}).Err)
			body, err := clustertest.Get("http://" + order.Address)
			require.NoError(t, err)
			require.Equal(t, "go 1", body)
		}
	})
}
