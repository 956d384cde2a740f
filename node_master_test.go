//go:build unix

package cluster_test

// Node workers under a Go master: what node's own suite asserts of a node
// primary, and what the workers of a Go master have beyond it.

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestNodeBasic: every event of a node worker comes once and in order; the
// variables that made it a worker are gone from its environment.
func TestNodeBasic(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		w := c.fork()
		require.Equal(t, cluster.Online, w.State())
		require.Equal(t, itoa(w.ID()), c.run(w, `return cluster.isWorker && !cluster.isPrimary && cluster.worker.id`).String())
		require.Equal(t, "[]", c.run(w, `return Object.keys(process.env).filter((k) => /NODE_(UNIQUE_ID|CHANNEL)/.test(k))`).String())
		require.Equal(t, itoa(w.PID()), c.run(w, `return process.pid`).String())

		addr := c.web(w)
		body, err := get("http://" + addr)
		require.NoError(t, err)
		require.Equal(t, "node "+itoa(w.ID()), body)
		c.find(t, "listening")
		require.Equal(t, cluster.Ready, w.State())
		require.Equal(t, []*cluster.Process{w}, cluster.Workers())

		c.order(w, `process.exit(7)`)
		require.Equal(t, "7 <nil> false true", c.death(w))
		id := itoa(w.ID())
		require.Equal(t, []string{
			"fork " + id + " starting", "online " + id, "listening " + id + " tcp " + addr,
			"disconnect " + id + " false false", "death " + id + " 7 <nil> false true",
		}, c.all())
		require.Empty(t, cluster.Workers())
	})
}

// TestNodeMessages: any JSON value goes both ways, in order; a node worker sees
// it on process and on cluster.worker; one sent before the worker is online
// arrives; one that the worker sends at its start waits for a handler.
func TestNodeMessages(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{})
	w, err := cluster.Fork()
	require.NoError(t, err)
	require.NoError(t, w.Send(jsOrder{Code: `
		state.seen = [];
		process.on('message', (m) => { if (!m || !m.code) state.seen.push(['process', m]); });
		cluster.worker.on('message', (m) => { if (!m || !m.code) state.seen.push(['worker', m]); });`}))
	c.find(t, "message "+itoa(w.ID())+` {"id":0`)
	for _, v := range []any{nil, 42, true, "str", "</script>\u2028", []int{1, 2}, map[string]int{"hello": 1}} {
		require.NoError(t, w.SendContext(t.Context(), v))
	}
	require.JSONEq(t, `[["worker",null],["process",null],["worker",42],["process",42],["worker",true],["process",true],
		["worker","str"],["process","str"],["worker","</script>\u2028"],["process","</script>\u2028"],
		["worker",[1,2]],["process",[1,2]],["worker",{"hello":1}],["process",{"hello":1}]]`,
		c.run(w, `return state.seen`).String())

	n := len(c.all())
	c.run(w, `for (const v of [null, 1, 'x', false, [1], {a: {b: 2}}, {cmd: 'NODE_'}, {a: undefined}]) process.send(v)`)
	prefix := "message " + itoa(w.ID()) + " "
	require.Equal(t, []string{
		prefix + `null`, prefix + `1`, prefix + `"x"`, prefix + `false`, prefix + `[1]`,
		prefix + `{"a":{"b":2}}`, prefix + `{"cmd":"NODE_"}`, prefix + `{}`,
	}, c.all()[n:])
}

// TestNodeManyMessages: none of many messages is lost or overtakes another,
// whichever side sends faster than the other reads.
func TestNodeManyMessages(t *testing.T) {
	const many = 20000
	c := newNodeCluster(t, cluster.Options{})
	c.ch = make(chan string, 2*many) // every message is recorded as well
	w := c.fork()
	c.run(w, `state.got = 0; process.on('message', (m) => { if (m.n !== undefined) { if (m.n !== state.got++) process.exit(9); process.send(m); } })`)
	done := make(chan error, 1)
	next := 0
	hook(t, cluster.Handle("n", func(_ *cluster.Process, m struct{ N int }) {
		if m.N != next {
			done <- fmt.Errorf("%d came instead of %d", m.N, next)
		}
		if next++; next == many {
			done <- nil
		}
	}))
	for i := range many {
		require.NoError(t, w.Send(map[string]any{"cmd": "n", "n": i}))
	}
	require.NoError(t, await(t, done, "all messages"))
}

// TestNodeLargeMessage: a message of many reads arrives whole, both ways.
func TestNodeLargeMessage(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{})
	w := c.fork()
	text := strings.Repeat("0123456789abcdef", 64<<10)
	require.Equal(t, text, c.run(w, `return args[0]`, text).String())
}

// TestNodeInvalidMessage: internal messages that mean nothing are ignored, and
// what is no message of the protocol does not reach the application.
func TestNodeInvalidMessage(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{})
	w := c.fork()
	n := len(c.all())
	c.run(w, `
		process.send({cmd: 'NODE_CLUSTER', ack: -1});
		process.send({cmd: 'NODE_CLUSTER', act: 'nonsense'});
		process.send({cmd: 'NODE_CLUSTER', act: 'close', key: 'nonsense'});
		process.send({cmd: 'NODE_CLUSTER'});
		process.send({cmd: 'NODE_NONSENSE'});
		process.send({cmd: 'NODE_HANDLE_ACK'});`)
	require.Equal(t, "1", c.run(w, `return 1`).String())
	require.Empty(t, c.all()[n:])
}

// TestNodeGarbage: a node worker that writes rubbish into its channel is
// reported and harms nobody, not even itself. A node primary would crash.
func TestNodeGarbage(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{MaxMessage: 1 << 20})
	w := c.fork()
	c.run(w, `fs.writeSync(3, 'rubbish\n\n{"cmd":"NODE_CLUSTER","act":5}\n')`)
	c.run(w, `process.send('x'.repeat(2 << 20))`)
	require.Equal(t, "1", c.run(w, `return 1`).String())
	for _, what := range []string{"not JSON: \"rubbish\"", "not JSON: \"\"", "bad internal message", "message longer than MaxMessage"} {
		require.Contains(t, strings.Join(c.all(), "\n"), what)
	}
}

// TestNodeUserHandles: a socket that a node worker sends is refused cleanly: the
// message arrives, the socket is closed, OnError tells; also twice the same, with
// a large payload, and while the master hands connections the other way.
func TestNodeUserHandles(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{Scheduling: cluster.RoundRobin})
	w := c.fork()
	addr := "127.0.0.1:" + c.run(w, `
		state.server = net.createServer({pauseOnConnect: true}, (socket) => {
			process.send({sent: args[0].repeat(800)}, socket);
			process.send({twice: true}, socket);
		});
		return (await listen(state.server, 0, '127.0.0.1')).port`, strings.Repeat("x", 1000)).String()
	const many = 20
	var conns []net.Conn
	for range many {
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer conn.Close()
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		require.True(t, closed(t, conn))
	}
	prefix := "message " + itoa(w.ID()) + " "
	for c.count(prefix+`{"twice"`) < many || c.count(prefix+`{"sent"`) < many || c.count("error") < many {
		await(t, c.ch, "messages and errors of the refused sockets")
	}
	require.Contains(t, c.find(t, "error"), `a handle of type "net.Socket" was closed: not supported here`)
	// A server and a datagram socket are refused as well.
	c.run(w, `
		const server = net.createServer();
		await listen(server, {port: 0, exclusive: true});
		process.send('server', server);
		server.close();
		const socket = dgram.createSocket('udp4');
		await bind(socket, {port: 0, exclusive: true});
		process.send('socket', socket);
		socket.close();`)
	c.find(t, prefix+`"server"`)
	c.find(t, prefix+`"socket"`)
	require.Equal(t, "1", c.run(w, `return 1`).String())
}

// TestNodeForkSettings: Args, Env, Fork's env and Dir reach a node worker, and
// settings of later forks are their own.
func TestNodeForkSettings(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	c := newNodeCluster(t, cluster.Options{Args: []string{"custom", "argument"}, Env: []string{"A=options", "B=options"}, Dir: dir})
	w := c.fork("B=fork", "C=fork")
	require.JSONEq(t, `{"argv":["custom","argument"],"env":["options","fork","fork"],"cwd":"`+dir+`"}`,
		c.run(w, `return {argv: process.argv.slice(2), env: ['A', 'B', 'C'].map((k) => process.env[k]), cwd: process.cwd()}`).String())

	o := cluster.Settings()
	o.Args, o.Dir = o.Args[:1], ""
	require.NoError(t, cluster.SetupMaster(o))
	later := c.fork()
	here, err := os.Getwd()
	require.NoError(t, err)
	require.JSONEq(t, `[[],"`+here+`"]`, c.run(later, `return [process.argv.slice(2), process.cwd()]`).String())
	require.Equal(t, dir, c.run(w, `return process.cwd()`).String())
}

// TestNodeOutput: what a node worker prints goes where Output says, to the end.
func TestNodeOutput(t *testing.T) {
	var out, errs strings.Builder
	c := newNodeCluster(t, cluster.Options{Output: func(*cluster.Process) (io.Writer, io.Writer) { return &out, &errs }})
	w := c.fork()
	c.order(w, `process.stdout.write('to stdout\n'); process.stderr.write('to stderr\n'); process.exit(0)`)
	c.death(w)
	require.Equal(t, "to stdout\n", out.String())
	require.Equal(t, "to stderr\n", errs.String())
}

// ---- listening

// TestNodeListen: net servers of node workers share an address; listen() without
// a port, port 0 and explicit ports tell the real address on both sides.
func TestNodeListen(t *testing.T) {
	if apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		workers := c.forkN(2)
		const listening = `
			const server = net.createServer((socket) => socket.end(String(cluster.worker.id)));
			(state.all ??= []).push(server);
			return await listen(server, ...args)`
		var first, second struct {
			Address, Family string
			Port            int
		}
		c.run(workers[0], listening).decode(t, &first)
		require.NotZero(t, first.Port)
		c.run(workers[1], listening).decode(t, &second)
		require.Equal(t, first, second)
		c.find(t, fmt.Sprintf("listening %d tcp [::]:%d", workers[1].ID(), second.Port))

		c.run(workers[0], listening, map[string]any{"port": 0, "host": "127.0.0.1"}).decode(t, &first)
		c.run(workers[1], listening, map[string]any{"port": 0, "host": "127.0.0.1"}).decode(t, &second)
		require.Equal(t, first, second)
		require.Equal(t, "127.0.0.1", first.Address)
		require.Equal(t, "IPv4", first.Family)

		// Both serve it.
		c.run(workers[0], `await Promise.all(state.all.map(close))`)
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", first.Port))
		require.NoError(t, err)
		defer conn.Close()
		b, err := io.ReadAll(conn)
		require.NoError(t, err)
		require.Equal(t, itoa(workers[1].ID()), string(b))

		port := freePort(t)
		for _, w := range workers {
			c.run(w, listening, port, "127.0.0.1").decode(t, &first)
			require.Equal(t, port, first.Port)
			c.find(t, fmt.Sprintf("listening %d tcp 127.0.0.1:%d", w.ID(), port))
		}
	})
}

// TestNodePortZero: the n-th listen(0) is the same port in every worker, closed
// and opened again or not.
func TestNodePortZero(t *testing.T) {
	if apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		const twice = `
			const ports = [];
			for (let i = 0; i < 2; i++) {
				const servers = [net.createServer(), net.createServer()];
				for (const server of servers) ports.push((await listen(server, 0)).port);
				await Promise.all(servers.map(close));
			}
			return ports`
		workers := c.forkN(2)
		var a, b []int
		c.run(workers[0], twice).decode(t, &a)
		c.run(workers[1], twice).decode(t, &b)
		require.Equal(t, a, b)
		require.Equal(t, a[:2], a[2:])
		require.NotEqual(t, a[0], a[1])
		const dgramTwice = `
			const ports = [];
			for (let i = 0; i < 2; i++) {
				const sockets = [dgram.createSocket('udp4'), dgram.createSocket('udp4')];
				for (const socket of sockets) ports.push((await bind(socket, 0)).port);
				await Promise.all(sockets.map(close));
			}
			return ports`
		c.run(workers[0], dgramTwice).decode(t, &a)
		c.run(workers[1], dgramTwice).decode(t, &b)
		require.Equal(t, a, b)
	})
}

// TestNodeListenErrors: EADDRINUSE reaches node's 'error' event as a bind error
// with the address; a worker may disconnect on it; once the port is free a
// retry succeeds.
func TestNodeListenErrors(t *testing.T) {
	if apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		w, other := c.fork(), c.fork()
		port := freePort(t)
		busy, err := net.Listen("tcp", "127.0.0.1:"+itoa(port))
		require.NoError(t, err)
		defer busy.Close()
		for _, w := range []*cluster.Process{w, other} {
			_, jsErr := c.try(w, `await listen(web(), args[0], '127.0.0.1')`, port)
			require.NotNil(t, jsErr)
			require.Equal(t, "EADDRINUSE", jsErr.Code)
			require.Equal(t, "bind", jsErr.Syscall)
			require.Equal(t, "127.0.0.1", jsErr.Address)
			require.Equal(t, port, jsErr.Port)
		}
		c.order(other, `web().on('error', () => cluster.worker.disconnect()).listen(args[0], '127.0.0.1')`, port)
		require.Equal(t, "0 <nil> true true", c.death(other))

		busy.Close()
		require.Equal(t, "127.0.0.1:"+itoa(port), c.web(w, port))
		body, err := get("http://127.0.0.1:" + itoa(port))
		require.NoError(t, err)
		require.Equal(t, "node "+itoa(w.ID()), body)
	})
}

// TestNodeDatagramBindError: a busy UDP port is an 'error' event as well.
func TestNodeDatagramBindError(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{})
	w := c.fork()
	busy, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	_, jsErr := c.try(w, `await bind(dgram.createSocket('udp4'), args[0], '127.0.0.1')`, busy.LocalAddr().(*net.UDPAddr).Port)
	require.NotNil(t, jsErr)
	require.Equal(t, "EADDRINUSE", jsErr.Code)
}

// TestNodeListenTwice: the second listen of one worker on one port is
// EADDRINUSE, and spoils nothing for the other workers.
func TestNodeListenTwice(t *testing.T) {
	if apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		workers := c.forkN(2)
		port := freePort(t)
		c.web(workers[0], port)
		for range 2 {
			_, jsErr := c.try(workers[0], `await listen(web(), args[0], '127.0.0.1')`, port)
			require.NotNil(t, jsErr)
			require.Equal(t, "EADDRINUSE", jsErr.Code)
		}
		c.web(workers[1], port)
		c.run(workers[0], `await close(state.servers[0])`)
		body, err := get("http://127.0.0.1:" + itoa(port))
		require.NoError(t, err)
		require.Equal(t, "node "+itoa(workers[1].ID()), body)
		c.web(workers[0], port)
	})
}

// TestNodeListenDenied: EACCES reaches node's 'error' event, from AllowListen.
func TestNodeListenDenied(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s, AllowListen: func(_ *cluster.Process, network, address string) error {
			return fmt.Errorf("%s %s is not for you", network, address)
		}})
		w := c.fork()
		_, jsErr := c.try(w, `await listen(web(), 8080, '127.0.0.1')`)
		require.NotNil(t, jsErr)
		require.Equal(t, "EACCES", jsErr.Code)
		require.Contains(t, c.find(t, "error"), "tcp4 127.0.0.1:8080 is not for you")
	})
}

// TestNodeIPv6Only: without ipv6Only :: takes IPv4 as well; with it the port of
// 0.0.0.0 is still free. The same for datagrams.
func TestNodeIPv6Only(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		w := c.fork()
		port := c.run(w, `return (await listen(web(), {host: '::', port: 0})).port`).String()
		body, err := get("http://127.0.0.1:" + port)
		require.NoError(t, err)
		require.Equal(t, "node "+itoa(w.ID()), body)

		only := freePort(t) // with port 0 somebody else might have it for IPv4
		c.run(w, `await listen(web(), {host: '::', port: args[0], ipv6Only: true})`, only)
		_, err = get("http://127.0.0.1:" + itoa(only))
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		c.run(w, `await listen(web(), {host: '0.0.0.0', port: args[0]})`, only)
		_, err = get("http://127.0.0.1:" + itoa(only))
		require.NoError(t, err)

		c.run(w, `
			await bind(dgram.createSocket({type: 'udp6', ipv6Only: true}), args[0]);
			await bind(dgram.createSocket('udp4'), args[0])`, freePort(t))
	})
}

// TestNodeRestartServer: a worker closes and opens its server while another
// serves; no connection is refused.
func TestNodeRestartServer(t *testing.T) {
	if apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		workers := c.forkN(2)
		port := freePort(t)
		addr := c.web(workers[0], port)
		for range 3 {
			c.web(workers[1], port)
			for range 5 {
				_, err := get("http://" + addr)
				require.NoError(t, err)
			}
			c.run(workers[1], `await close(state.servers.pop())`)
			body, err := get("http://" + addr)
			require.NoError(t, err)
			require.Equal(t, "node "+itoa(workers[0].ID()), body)
		}
	})
}

// TestNodeUnixSocket: HTTP over a unix socket whose file is gone at the end; a
// path served by somebody else is EADDRINUSE; readableAll and writableAll open
// it to all.
func TestNodeUnixSocket(t *testing.T) {
	if apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		dir := t.TempDir()
		path := filepath.Join(dir, "s.sock")
		t.Cleanup(func() {
			_, err := os.Lstat(path)
			require.ErrorIs(t, err, os.ErrNotExist)
		})
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		for _, w := range c.forkN(2) {
			require.Equal(t, path, c.run(w, `
				return await listen(http.createServer((q, r) => r.end(String(q.socket.remoteAddress))), args[0])`, path).String())
			c.find(t, fmt.Sprintf("listening %d unix %s", w.ID(), path))
			body, err := getUnix(path, "http://unix/")
			require.NoError(t, err)
			require.Equal(t, "undefined", body)
		}
		w := c.fork()
		wide := filepath.Join(dir, "wide.sock")
		c.run(w, `await listen(net.createServer(), {path: args[0], readableAll: true, writableAll: true})`, wide)
		info, err := os.Stat(wide)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o777), info.Mode().Perm())

		busy, err := net.Listen("unix", filepath.Join(dir, "busy.sock"))
		require.NoError(t, err)
		defer busy.Close()
		_, jsErr := c.try(w, `await listen(net.createServer(), args[0])`, busy.Addr().String())
		require.NotNil(t, jsErr)
		require.Equal(t, "EADDRINUSE", jsErr.Code)
	})
}

// TestNodeLongUnixPath: a path longer than the system takes works when it is
// near the working directory.
func TestNodeLongUnixPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	require.NoError(t, os.Mkdir(dir, 0o755))
	script := nodeScript(t, "worker.js")
	t.Chdir(dir)
	c := newNodeCluster(t, cluster.Options{})
	o := cluster.Settings()
	o.Args, o.Dir = []string{script}, dir
	require.NoError(t, cluster.SetupMaster(o))
	w := c.fork()
	c.run(w, `await listen(net.createServer((socket) => socket.end('near')), './near.sock')`)
	conn, err := net.Dial("unix", "near.sock")
	require.NoError(t, err)
	b, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, "near", string(b))
	require.NoError(t, conn.Close())
	require.NoError(t, cluster.Disconnect(t.Context()))
	_, err = os.Lstat("near.sock")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestNodeDatagrams: node workers share a UDP port; each datagram reaches
// exactly one of them.
func TestNodeDatagrams(t *testing.T) {
	if apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		port := freePort(t)
		for _, w := range c.forkN(4) {
			c.run(w, `
				const socket = dgram.createSocket('udp4');
				socket.on('message', (m, from) => { process.send({event: 'datagram'}); socket.send('got', from.port, from.address); });
				await bind(socket, args[0], '127.0.0.1')`, port)
			c.find(t, fmt.Sprintf("listening %d udp 127.0.0.1:%d", w.ID(), port))
		}
		for range 40 {
			require.Equal(t, "got", askPacket(t, "udp", "127.0.0.1:"+itoa(port)))
		}
		count := func() (n int) {
			for _, line := range c.all() {
				if strings.HasSuffix(line, `{"event":"datagram"}`) {
					n++
				}
			}
			return n
		}
		for count() < 40 {
			await(t, c.ch, "datagram")
		}
		require.Equal(t, 40, count())
	})
}

// TestNodeDatagramsToMaster: workers bind port 0 and send to the master.
func TestNodeDatagramsToMaster(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{})
	here, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer here.Close()
	for _, w := range c.forkN(2) {
		c.run(w, `
			const socket = dgram.createSocket('udp4');
			await bind(socket, 0);
			for (let i = 0; i < 10; i++) socket.send('hello', args[0], '127.0.0.1')`, here.LocalAddr().(*net.UDPAddr).Port)
	}
	here.SetReadDeadline(time.Now().Add(patience))
	for range 20 {
		b := make([]byte, 100)
		n, _, err := here.ReadFrom(b)
		require.NoError(t, err)
		require.Equal(t, "hello", string(b[:n]))
	}
}

// TestNodeDatagramReuse: two sockets with reuseAddr have one port.
func TestNodeDatagramReuse(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{})
	w := c.fork()
	c.run(w, `
		const open = () => dgram.createSocket({type: 'udp4', reuseAddr: true});
		const {port} = await bind(open(), 0);
		await bind(open(), port)`)
}

// TestNodeDescriptors: listen({fd}) and bind({fd}) use a descriptor of the
// master's; one that is no such socket is an error.
func TestNodeDescriptors(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		workers := c.forkN(2)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer ln.Close()
		for _, w := range workers {
			c.run(w, `await listen(web(), {fd: args[0]})`, descriptor(t, ln.(syscall.Conn)))
			body, err := get("http://" + ln.Addr().String())
			require.NoError(t, err)
			require.Contains(t, body, "node ")
		}
		packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
		require.NoError(t, err)
		defer packets.Close()
		c.run(workers[0], `
			const socket = dgram.createSocket('udp4');
			socket.on('message', (m, from) => socket.send('got', from.port, from.address));
			await bind(socket, {fd: args[0]})`, descriptor(t, packets.(syscall.Conn)))
		require.Equal(t, "got", askPacket(t, "udp", packets.LocalAddr().String()))

		conn, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		_, jsErr := c.try(workers[0], `await listen(web(), {fd: args[0]})`, descriptor(t, conn.(syscall.Conn)))
		require.NotNil(t, jsErr)
		require.Equal(t, "EINVAL", jsErr.Code)
		_, jsErr = c.try(workers[0], `await listen(web(), {fd: 2})`)
		require.NotNil(t, jsErr)
	})
}

func descriptor(t testing.TB, s syscall.Conn) (fd int) {
	rc, err := s.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(n uintptr) { fd = int(n) }))
	return fd
}

// TestNodeCloseDuringBind: a socket that is closed before the master has
// answered harms nothing, and its port can be had again.
func TestNodeCloseDuringBind(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		w := c.fork()
		c.run(w, `
			for (const type of ['udp4', 'udp6']) {
				const socket = dgram.createSocket(type);
				socket.bind(0);
				socket.close();
			}
			const closing = dgram.createSocket('udp4');
			closing.bind(0, () => setImmediate(() => closing.close()));
			dgram.createSocket('udp4').bind(0).unref();
			const server = net.createServer();
			server.listen(0);
			server.close();
			await until(closing, 'close')`)
		c.web(w)
		require.NoError(t, w.Disconnect(t.Context()))
		require.Equal(t, "0 <nil> true true", c.death(w))
		require.Zero(t, c.count("error"))
	})
}

// TestNodeTLSTickets: the ticket keys of the first node worker are all workers',
// so that a session goes on in whichever worker the next connection reaches.
func TestNodeTLSTickets(t *testing.T) {
	if apart(t) {
		return
	}
	cert, key := certificate(t)
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		port := freePort(t)
		connect := newTLSClient(t, "127.0.0.1:"+itoa(port))
		var last *cluster.Process
		for i, w := range c.forkN(4) {
			c.run(w, `
				state.server = tls.createServer({cert: args[0], key: args[1]}, (socket) => {
					socket.on('error', () => {});
					socket.end(cluster.worker.id + ' ' + socket.isSessionReused());
				});
				await listen(state.server, args[2], '127.0.0.1')`, cert, key, port)
			if last != nil { // from here on only w accepts
				c.run(last, `await close(state.server)`)
			}
			require.Equal(t, fmt.Sprintf("%d %v", w.ID(), i > 0), connect())
			last = w
		}
	})
}

// ---- round robin

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
		body, err := get("http://127.0.0.1:" + itoa(port))
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
		conn, err := net.Dial("tcp", "127.0.0.1:"+itoa(port))
		require.NoError(t, err)
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(patience))
		_, err = conn.Read(make([]byte, 1))
		require.NoError(t, err)
	}
	for i, w := range workers {
		require.Equal(t, itoa(limits[i]), c.run(w, `return await new Promise((resolve) => state.server.getConnections((e, n) => resolve(n)))`).String())
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
		body, err := get("http://127.0.0.1:" + itoa(port))
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
		go func() { bodies <- <-getting("http://127.0.0.1:" + itoa(port)) }()
	}
	for range many - 1 { // all but the one in the stopped worker's hands
		require.Equal(t, "node "+itoa(workers[1].ID()), await(t, bodies, "answer"))
	}
	require.Empty(t, bodies)
	require.NoError(t, workers[0].OSProcess().Kill())
	require.Equal(t, "node "+itoa(workers[1].ID()), await(t, bodies, "answer to the one that the stopped worker had"))
}

// ---- ends

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
				body, err := get("http://127.0.0.1:" + itoa(port))
				require.NoError(t, err)
				require.Contains(t, body, "node ")
			}
			require.NoError(t, cluster.Disconnect(t.Context()))
			require.Empty(t, cluster.Workers())
			for _, w := range workers {
				require.Equal(t, "0 <nil> true true", c.death(w))
			}
			_, err := net.Dial("tcp", "127.0.0.1:"+itoa(ports[0]))
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
		c.find(t, "message "+itoa(w.ID())+` {"event":"slow"}`)
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
			require.Equal(t, "node "+itoa(next.ID()), body)
		}
		require.False(t, w.IsDead())
		c.order(w, `release()`)
		require.Equal(t, "node "+itoa(w.ID()), await(t, slow, "slow answer"))
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
	c.find(t, "message "+itoa(w.ID())+` {"event":"slow"}`)
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
	require.Equal(t, "127.0.0.1:"+itoa(port), c.web(heir, port))

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

// TestNodeRequest: a Request to a node worker says that it cannot be answered.
func TestNodeRequest(t *testing.T) {
	c := newNodeCluster(t, cluster.Options{})
	w, err := cluster.Fork()
	require.NoError(t, err)
	require.ErrorIs(t, w.Request(t.Context(), 1, nil), cluster.ErrNotSupported)
	c.find(t, "online")
	require.ErrorIs(t, w.Request(t.Context(), 1, nil), cluster.ErrNotSupported)
}

// TestNodeNonBlocking: no socket that node gets or gives back is made blocking
// for those that share it.
func TestNodeNonBlocking(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := newNodeCluster(t, cluster.Options{Scheduling: s})
		w := c.fork()
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer ln.Close()
		fd := descriptor(t, ln.(syscall.Conn))
		c.run(w, `await listen(web(), {fd: args[0]})`, fd)
		_, err = get("http://" + ln.Addr().String())
		require.NoError(t, err)
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		require.NoError(t, err)
		require.NotZero(t, flags&unix.O_NONBLOCK)
	})
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
		"SCHEDULING="+itoa(int(cluster.RoundRobin)), `CODE=await listen(web(), 0, '127.0.0.1')`)
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
