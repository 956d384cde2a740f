//go:build unix

package node_test

// Handles in messages between Go and node, both ways: a net.Socket half read, a
// listening net.Server, a dgram.Socket.

import (
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// serveHandles is JavaScript that answers on the handles of messages as
// clustertest.ServeHandle does.
const serveHandles = `
	const answer = (text) => (socket) => {
		const parts = [];
		socket.on('data', (part) => parts.push(part));
		socket.on('end', () => socket.end('node ' + text + ' ' + Buffer.concat(parts)));
	};
	const serve = {
		socket: (m, socket) => { socket.allowHalfOpen = true; answer(m.text)(socket); },
		server: (m, server) => server.on('connection', (socket) => { socket.allowHalfOpen = true; answer(m.text)(socket); }),
		dgram: (m, socket) => socket.on('message', (b, from) => socket.send('node ' + b, from.port, from.address)),
	};
	const take = (m, handle) => {
		if (!m || !m.what) return false;
		if (!handle) throw new Error('no handle came');
		serve[m.what](m, handle);
		return true;
	};`

// both is both ends of a TCP connection.
func both(t *testing.T) (server, client *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	s, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { c.Close(); s.Close() })
	c.SetDeadline(time.Now().Add(clustertest.Patience))
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

// requireAnswer shuts c down and checks what it is answered.
func requireAnswer(t *testing.T, c net.Conn, want string) {
	t.Helper()
	c.SetDeadline(time.Now().Add(clustertest.Patience))
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	b, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, want, string(b))
}

// requireDatagram checks that a datagram to addr is answered.
func requireDatagram(t *testing.T, addr, who string) {
	t.Helper()
	c, err := net.Dial("udp4", addr)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("datagram"))
	require.NoError(t, err)
	c.SetReadDeadline(time.Now().Add(clustertest.Patience))
	b := make([]byte, 100)
	n, err := c.Read(b)
	require.NoError(t, err)
	require.Equal(t, who+" datagram", string(b[:n]))
}

// TestNodeHandlesToWorkers: a node worker gets what the Go master sends, in its
// place among plain messages, and while the master hands it connections. The
// master's own stays open.
func TestNodeHandlesToWorkers(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: cluster.RoundRobin})
	w := c.Fork()
	addr := c.Web(w)
	c.Run(w, serveHandles+`
		process.on('message', (m, handle) => { if (take(m, handle) || m && m.plain !== undefined) process.send({got: m.what ?? m.plain}); });`)
	const many = 20
	var clients []net.Conn
	for i := range many {
		require.NoError(t, w.Send(map[string]any{"plain": 2 * i}))
		server, client := both(t)
		_, err := client.Write([]byte("read unread"))
		require.NoError(t, err)
		_, err = io.ReadFull(server, make([]byte, len("read ")))
		require.NoError(t, err)
		received := make(chan error, 1)
		require.NoError(t, w.SendHandle(map[string]any{"what": "socket", "text": strconv.Itoa(i)}, server, func(err error) { received <- err }))
		require.NoError(t, w.Send(map[string]any{"plain": 2*i + 1}))
		require.NoError(t, clustertest.Await(t, received, "receipt"))
		require.NoError(t, server.Close())
		clients = append(clients, client)
		requireServedBy(t, addr, w)
	}
	for i, client := range clients {
		requireAnswer(t, client, "node "+strconv.Itoa(i)+" unread")
	}
	prefix := "message " + strconv.Itoa(w.ID()) + " "
	for c.Count(prefix+`{"got"`) < 3*many {
		clustertest.Await(t, c.Lines, "messages")
	}
	var got []string
	for _, line := range c.All() {
		if m, ok := strings.CutPrefix(line, prefix+`{"got":`); ok {
			got = append(got, m)
		}
	}
	for i := range many {
		require.Equal(t, []string{strconv.Itoa(2*i) + "}", `"socket"}`, strconv.Itoa(2*i+1) + "}"}, got[3*i:3*i+3])
	}

	if clustertest.NodeMajor(t) > 18 { // which asks the master for it, as for an address of its own
		sendServer(t, c, w)
	}

	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer packets.Close()
	require.NoError(t, w.SendHandle(map[string]any{"what": "dgram"}, packets))
	requireDatagram(t, packets.LocalAddr().String(), "node")

	require.ErrorIs(t, w.SendHandle(1, os.Stdin), cluster.ErrNotSupported)
	require.Zero(t, c.Count("error"), "%v", c.All())
	require.NoError(t, w.Kill()) // as long as it has those sockets it does not end by itself
}

// sendServer sends a listener to a node worker, which serves it.
func sendServer(t *testing.T, c *clustertest.NodeCluster, w *cluster.Process) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	require.NoError(t, w.SendHandle(map[string]any{"what": "server", "text": "x"}, ln))
	require.NoError(t, ln.Close())
	c.Find(t, "message "+strconv.Itoa(w.ID())+` {"got":"server"}`)
	client, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	_, err = client.Write([]byte("hello"))
	require.NoError(t, err)
	requireAnswer(t, client, "node x hello")
}

// TestNodeHandlesBeforeOnline wait until it is known what the worker is, and what
// was sent behind waits too; what was sent before the order to disconnect comes
// before it.
func TestNodeHandlesBeforeOnline(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	w, err := cluster.Fork()
	require.NoError(t, err)
	require.NoError(t, w.Send(clustertest.JSOrder{Code: serveHandles + `
		process.on('message', (m, handle) => { if (take(m, handle) || m && m.plain) process.send({got: m.what ?? m.plain}); });`}))
	var clients []net.Conn
	for range 3 {
		server, client := both(t)
		require.NoError(t, w.SendHandle(map[string]any{"what": "socket", "text": "early"}, server))
		require.NoError(t, server.Close())
		require.NoError(t, w.Send(map[string]any{"plain": "behind"}))
		clients = append(clients, client)
	}
	disconnected := make(chan error, 1)
	go func() { disconnected <- w.Disconnect(t.Context()) }()
	for _, client := range clients {
		requireAnswer(t, client, "node early ")
	}
	require.NoError(t, clustertest.Await(t, disconnected, "end"))
	c.Death(w) // behind all messages: the Disconnect waits for no callback
	require.Zero(t, c.Count("error"), "%v", c.All())
	prefix := "message " + strconv.Itoa(w.ID()) + " "
	require.Equal(t, 3, c.Count(prefix+`{"got":"behind"}`))
}

// TestNodeHandlesFromWorkers: the Go master gets what a node worker sends.
func TestNodeHandlesFromWorkers(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	w := c.Fork()
	took := make(chan string, 100)
	t.Cleanup(cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) {
		var what struct{ What string }
		m.Decode(&what)
		if what.What != "" {
			s, err := clustertest.ServeHandle(m, what.What)
			clustertest.Must(err)
			t.Cleanup(func() { s.Close() })
			took <- what.What
		}
	}))
	addr := "127.0.0.1:" + c.Run(w, `
		state.server = net.createServer({allowHalfOpen: true}, (socket) => socket.once('readable', () => {
			const text = String(socket.read(5));
			process.send({what: 'socket', text}, socket);
		}));
		return (await listen(state.server, {port: 0, host: '127.0.0.1', exclusive: true})).port`).String()
	client, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer client.Close()
	_, err = client.Write([]byte("first"))
	require.NoError(t, err)
	require.Equal(t, "socket", clustertest.Await(t, took, "socket"))
	// Until node has heard of it, it goes on reading, and drops what comes.
	require.Equal(t, "heard", c.Run(w, `return 'heard'`).String())
	_, err = client.Write([]byte("second"))
	require.NoError(t, err)
	requireAnswer(t, client, "go first second")

	addr = "127.0.0.1:" + c.Run(w, `
		const server = net.createServer();
		const {port} = await listen(server, {port: 0, host: '127.0.0.1', exclusive: true});
		await new Promise((resolve) => process.send({what: 'server', text: 'of node'}, server, resolve));
		server.close();
		return port`).String()
	require.Equal(t, "server", clustertest.Await(t, took, "server"))
	client, err = net.Dial("tcp", addr)
	require.NoError(t, err)
	defer client.Close()
	requireAnswer(t, client, "go of node ")

	addr = "127.0.0.1:" + c.Run(w, `
		const socket = dgram.createSocket('udp4');
		const {port} = await bind(socket, {port: 0, address: '127.0.0.1', exclusive: true});
		await new Promise((resolve) => process.send({what: 'dgram'}, socket, resolve));
		socket.close();
		return port`).String()
	require.Equal(t, "dgram", clustertest.Await(t, took, "dgram"))
	requireDatagram(t, addr, "go")
	require.Zero(t, c.Count("error"), "%v", c.All())
	c.Run(w, `state.server.close()`)
}

// TestNodePrimaryHandles: a Go worker gets what a node primary sends, and the
// primary what the worker sends, in its place.
func TestNodePrimaryHandles(t *testing.T) {
	t.Parallel()
	n := clustertest.NewNodePrimary(t)
	w := n.Fork()
	n.Do(w, clustertest.GuestOrder{Do: "take"})

	addr := "127.0.0.1:" + n.Run(`
		state.server = net.createServer({allowHalfOpen: true}, (socket) => socket.once('readable', () => {
			const text = String(socket.read(5));
			workers[1].send({what: 'socket', text}, socket);
		}));
		return (await listen(state.server, 0, '127.0.0.1')).port`).String()
	client, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer client.Close()
	_, err = client.Write([]byte("first"))
	require.NoError(t, err)
	n.Find(t, `message 1 {"took":"socket"}`)
	_, err = client.Write([]byte("second"))
	require.NoError(t, err)
	requireAnswer(t, client, "go first second")

	addr = "127.0.0.1:" + n.Run(`
		const server = net.createServer();
		const {port} = await listen(server, 0, '127.0.0.1');
		workers[1].send({what: 'server', text: 'of node'}, server);
		return port`).String()
	n.Find(t, `message 1 {"took":"server"}`)
	client, err = net.Dial("tcp", addr)
	require.NoError(t, err)
	defer client.Close()
	n.Run(`return 1`)

	n.Run(`
		const socket = dgram.createSocket('udp4');
		state.dgram = (await bind(socket, 0, '127.0.0.1')).port;
		await new Promise((resolve) => workers[1].send({what: 'dgram'}, socket, resolve));
		socket.close()`)
	n.Find(t, `message 1 {"took":"dgram"}`)
	requireDatagram(t, "127.0.0.1:"+n.Run(`return state.dgram`).String(), "go")

	// The other way.
	n.Run(serveHandles + `
		state.got = [];
		cluster.on('message', (w, m, handle) => { if (take(m, handle) || m.plain) state.got.push(m.what ?? m.plain); });`)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	const many = 5
	var accepted []net.Conn
	for range many {
		n.Tell(w, clustertest.GuestOrder{Do: "send handle", Text: "socket", Address: ln.Addr().String(), N: len("read ")})
		c, err := ln.Accept()
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Write([]byte("read unread"))
		require.NoError(t, err)
		accepted = append(accepted, c)
	}
	for _, c := range accepted {
		requireAnswer(t, c, "node undefined unread")
	}
	port := strconv.Itoa(clustertest.FreePort(t))
	require.Empty(t, n.Do(w, clustertest.GuestOrder{Do: "send handle", Text: "server", Address: "127.0.0.1:" + port}).Err)
	client, err = net.Dial("tcp", "127.0.0.1:"+port)
	require.NoError(t, err)
	defer client.Close()
	requireAnswer(t, client, "node undefined ")
	require.Empty(t, n.Do(w, clustertest.GuestOrder{Do: "send handle", Text: "dgram", Address: "127.0.0.1:" + port}).Err)
	requireDatagram(t, "127.0.0.1:"+port, "node")
	r := n.Do(w, clustertest.GuestOrder{Do: "send handle", Text: "file"})
	require.Contains(t, r.Err, "node takes connections, listeners and UDP sockets only")
	for n.Count("message 1") < 3+2*(many+3) {
		clustertest.Await(t, n.Lines, "messages")
	}
	n.Run(`for (const w of Object.values(workers)) w.process.kill('SIGKILL'); state.server.close()`)
	n.Exit(w)
}
