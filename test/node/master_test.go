//go:build unix

package node_test

// Node workers under a Go master: what node's own suite asserts of a node
// primary, and what the workers of a Go master have beyond it. Their events,
// messages and settings are here; node_listen_test.go, node_robin_test.go and
// node_end_test.go have the rest.

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestNodeBasic: every event of a node worker comes once and in order; the
// variables that made it a worker are gone from its environment.
func TestNodeBasic(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		w := c.Fork()
		require.Equal(t, cluster.Online, w.State())
		require.Equal(t, strconv.Itoa(w.ID()), c.Run(w, `return cluster.isWorker && !cluster.isPrimary && cluster.worker.id`).String())
		require.Equal(t, "[]", c.Run(w, `return Object.keys(process.env).filter((k) => /NODE_(UNIQUE_ID|CHANNEL)/.test(k))`).String())
		require.Equal(t, strconv.Itoa(w.PID()), c.Run(w, `return process.pid`).String())

		addr := c.Web(w)
		requireServedBy(t, addr, w)
		c.Find(t, "listening")
		require.Equal(t, cluster.Ready, w.State())
		require.Equal(t, []*cluster.Process{w}, cluster.Workers())

		c.Order(w, `process.exit(7)`)
		require.Equal(t, "7 <nil> false true", c.Death(w))
		id := strconv.Itoa(w.ID())
		require.Equal(t, []string{
			"fork " + id + " starting", "online " + id, "listening " + id + " tcp " + addr,
			"disconnect " + id + " false false", "death " + id + " 7 <nil> false true",
		}, c.All())
		require.Empty(t, cluster.Workers())
	})
}

// TestNodeMessages: any JSON value goes both ways, in order; a node worker sees
// it on process and on cluster.worker; one sent before the worker is online
// arrives; one that the worker sends at its start waits for a handler.
func TestNodeMessages(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	w, err := cluster.Fork()
	require.NoError(t, err)
	require.NoError(t, w.Send(clustertest.JSOrder{Code: `
		state.seen = [];
		process.on('message', (m) => { if (!m || !m.code) state.seen.push(['process', m]); });
		cluster.worker.on('message', (m) => { if (!m || !m.code) state.seen.push(['worker', m]); });`}))
	c.Find(t, "message "+strconv.Itoa(w.ID())+` {"id":0`)
	for _, v := range []any{nil, 42, true, "str", "</script>\u2028", []int{1, 2}, map[string]int{"hello": 1}} {
		require.NoError(t, w.SendContext(t.Context(), v))
	}
	require.JSONEq(t, `[["worker",null],["process",null],["worker",42],["process",42],["worker",true],["process",true],
		["worker","str"],["process","str"],["worker","</script>\u2028"],["process","</script>\u2028"],
		["worker",[1,2]],["process",[1,2]],["worker",{"hello":1}],["process",{"hello":1}]]`,
		c.Run(w, `return state.seen`).String())

	n := len(c.All())
	c.Run(w, `for (const v of [null, 1, 'x', false, [1], {a: {b: 2}}, {cmd: 'NODE_'}, {a: undefined}]) process.send(v)`)
	prefix := "message " + strconv.Itoa(w.ID()) + " "
	require.Equal(t, []string{
		prefix + `null`, prefix + `1`, prefix + `"x"`, prefix + `false`, prefix + `[1]`,
		prefix + `{"a":{"b":2}}`, prefix + `{"cmd":"NODE_"}`, prefix + `{}`,
	}, c.All()[n:])
}

// TestNodeManyMessages: none of many messages is lost or overtakes another,
// whichever side sends faster than the other reads.
func TestNodeManyMessages(t *testing.T) {
	const many = 20000
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	c.Lines = make(chan string, 2*many) // every message is recorded as well
	w := c.Fork()
	c.Run(w, `state.got = 0; process.on('message', (m) => { if (m.n !== undefined) { if (m.n !== state.got++) process.exit(9); process.send(m); } })`)
	done := make(chan error, 1)
	next := 0
	t.Cleanup(cluster.Handle("n", func(_ *cluster.Process, m struct{ N int }) {
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
	require.NoError(t, clustertest.Await(t, done, "all messages"))
}

// TestNodeLargeMessage: a message of many reads arrives whole, both ways.
func TestNodeLargeMessage(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	w := c.Fork()
	text := strings.Repeat("0123456789abcdef", 64<<10)
	require.Equal(t, text, c.Run(w, `return args[0]`, text).String())
}

// TestNodeInvalidMessage: internal messages that mean nothing are ignored, and
// what is no message of the protocol does not reach the application.
func TestNodeInvalidMessage(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	w := c.Fork()
	n := len(c.All())
	c.Run(w, `
		process.send({cmd: 'NODE_CLUSTER', ack: -1});
		process.send({cmd: 'NODE_CLUSTER', act: 'nonsense'});
		process.send({cmd: 'NODE_CLUSTER', act: 'close', key: 'nonsense'});
		process.send({cmd: 'NODE_CLUSTER'});
		process.send({cmd: 'NODE_NONSENSE'});
		process.send({cmd: 'NODE_HANDLE_ACK'});`)
	require.Equal(t, "1", c.Run(w, `return 1`).String())
	require.Empty(t, c.All()[n:])
}

// TestNodeGarbage: a node worker that writes rubbish into its channel is
// reported and harms nobody, not even itself. A node primary would crash.
func TestNodeGarbage(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{MaxMessage: 1 << 20})
	w := c.Fork()
	c.Run(w, `fs.writeSync(3, 'rubbish\n\n{"cmd":"NODE_CLUSTER","act":5}\n')`)
	c.Run(w, `process.send('x'.repeat(2 << 20))`)
	require.Equal(t, "1", c.Run(w, `return 1`).String())
	for _, what := range []string{"not JSON: \"rubbish\"", "not JSON: \"\"", "bad internal message", "message longer than MaxMessage"} {
		require.Contains(t, strings.Join(c.All(), "\n"), what)
	}
}

// TestNodeUserHandles: a socket that a node worker sends and nobody takes is closed;
// also twice the same, with a large payload, and while the master hands connections
// the other way.
func TestNodeUserHandles(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: cluster.RoundRobin})
	w := c.Fork()
	addr := "127.0.0.1:" + c.Run(w, `
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
	prefix := "message " + strconv.Itoa(w.ID()) + " "
	for c.Count(prefix+`{"twice"`) < many || c.Count(prefix+`{"sent"`) < many {
		clustertest.Await(t, c.Lines, "messages with sockets")
	}
	// A server and a datagram socket as well.
	c.Run(w, `
		const server = net.createServer();
		await listen(server, {port: 0, exclusive: true});
		process.send('server', server);
		server.close();
		const socket = dgram.createSocket('udp4');
		await bind(socket, {port: 0, exclusive: true});
		process.send('socket', socket);
		socket.close();`)
	c.Find(t, prefix+`"server"`)
	c.Find(t, prefix+`"socket"`)
	require.Equal(t, "1", c.Run(w, `return 1`).String())
	require.Zero(t, c.Count("error"))
}

// TestNodeForkSettings: Args, Env, Fork's env and Dir reach a node worker, and
// settings of later forks are their own.
func TestNodeForkSettings(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	c := clustertest.NewNodeCluster(t, cluster.Options{Args: []string{"custom", "argument"}, Env: []string{"A=options", "B=options"}, Dir: dir})
	w := c.Fork("B=fork", "C=fork")
	require.JSONEq(t, `{"argv":["custom","argument"],"env":["options","fork","fork"],"cwd":"`+dir+`"}`,
		c.Run(w, `return {argv: process.argv.slice(2), env: ['A', 'B', 'C'].map((k) => process.env[k]), cwd: process.cwd()}`).String())

	o := cluster.Settings()
	o.Args, o.Dir = o.Args[:1], ""
	require.NoError(t, cluster.SetupMaster(o))
	later := c.Fork()
	here, err := os.Getwd()
	require.NoError(t, err)
	require.JSONEq(t, `[[],"`+here+`"]`, c.Run(later, `return [process.argv.slice(2), process.cwd()]`).String())
	require.Equal(t, dir, c.Run(w, `return process.cwd()`).String())
}

// TestNodeOutput: what a node worker prints goes where Output says, to the end.
func TestNodeOutput(t *testing.T) {
	var out, errs strings.Builder
	c := clustertest.NewNodeCluster(t, cluster.Options{Output: func(*cluster.Process) (io.Writer, io.Writer) { return &out, &errs }})
	w := c.Fork()
	c.Order(w, `process.stdout.write('to stdout\n'); process.stderr.write('to stderr\n'); process.exit(0)`)
	c.Death(w)
	require.Equal(t, "to stdout\n", out.String())
	require.Equal(t, "to stderr\n", errs.String())
}

// TestNodeRequest: a Request to a node worker says that it cannot be answered.
func TestNodeRequest(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	w, err := cluster.Fork()
	require.NoError(t, err)
	require.ErrorIs(t, w.Request(t.Context(), 1, nil), cluster.ErrNotSupported)
	c.Find(t, "online")
	require.ErrorIs(t, w.Request(t.Context(), 1, nil), cluster.ErrNotSupported)
}
