//go:build unix

package node_test

// Node workers under a Go master: the sockets that it opens for them.

import (
	"errors"
	"fmt"
	"io"
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
	"golang.org/x/sys/unix"
)

// TestNodeListen: net servers of node workers share an address; listen() without
// a port, port 0 and explicit ports tell the real address on both sides.
func TestNodeListen(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		workers := c.ForkN(2)
		const listening = `
			const server = net.createServer((socket) => socket.end(String(cluster.worker.id)));
			(state.all ??= []).push(server);
			return await listen(server, ...args)`
		var first, second struct {
			Address, Family string
			Port            int
		}
		c.Run(workers[0], listening).Decode(t, &first)
		require.NotZero(t, first.Port)
		c.Run(workers[1], listening).Decode(t, &second)
		require.Equal(t, first, second)
		c.Find(t, fmt.Sprintf("listening %d tcp [::]:%d", workers[1].ID(), second.Port))

		c.Run(workers[0], listening, map[string]any{"port": 0, "host": "127.0.0.1"}).Decode(t, &first)
		c.Run(workers[1], listening, map[string]any{"port": 0, "host": "127.0.0.1"}).Decode(t, &second)
		require.Equal(t, first, second)
		require.Equal(t, "127.0.0.1", first.Address)
		require.Equal(t, "IPv4", first.Family)

		// Both serve it.
		c.Run(workers[0], `await Promise.all(state.all.map(close))`)
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", first.Port))
		require.NoError(t, err)
		defer conn.Close()
		b, err := io.ReadAll(conn)
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(workers[1].ID()), string(b))

		port := clustertest.FreePort(t)
		for _, w := range workers {
			c.Run(w, listening, port, "127.0.0.1").Decode(t, &first)
			require.Equal(t, port, first.Port)
			c.Find(t, fmt.Sprintf("listening %d tcp 127.0.0.1:%d", w.ID(), port))
		}
	})
}

// TestNodePortZero: the n-th listen(0) is the same port in every worker, closed
// and opened again or not, for as long as some worker listens there.
func TestNodePortZero(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		const kept = `
			const servers = [net.createServer(), net.createServer()];
			const ports = [];
			for (const server of servers) ports.push((await listen(server, 0)).port);
			return ports`
		const twice = `
			const ports = [];
			for (let i = 0; i < 2; i++) {
				const servers = [net.createServer(), net.createServer()];
				for (const server of servers) ports.push((await listen(server, 0)).port);
				await Promise.all(servers.map(close));
			}
			return ports`
		workers := c.ForkN(2)
		var a, b []int
		c.Run(workers[0], kept).Decode(t, &a)
		c.Run(workers[1], twice).Decode(t, &b)
		require.NotEqual(t, a[0], a[1])
		require.Equal(t, append(a, a...), b)
		const dgramKept = `
			const sockets = [dgram.createSocket('udp4'), dgram.createSocket('udp4')];
			const ports = [];
			for (const socket of sockets) ports.push((await bind(socket, 0)).port);
			return ports`
		const dgramTwice = `
			const ports = [];
			for (let i = 0; i < 2; i++) {
				const sockets = [dgram.createSocket('udp4'), dgram.createSocket('udp4')];
				for (const socket of sockets) ports.push((await bind(socket, 0)).port);
				await Promise.all(sockets.map(close));
			}
			return ports`
		var d, e []int
		c.Run(workers[0], dgramKept).Decode(t, &d)
		c.Run(workers[1], dgramTwice).Decode(t, &e)
		require.Equal(t, append(d, d...), e)
	})
}

// TestNodeListenErrors: EADDRINUSE reaches node's 'error' event as a bind error
// with the address; a worker may disconnect on it; once the port is free a
// retry succeeds.
func TestNodeListenErrors(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		w, other := c.Fork(), c.Fork()
		port := clustertest.FreePort(t)
		busy, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		require.NoError(t, err)
		defer busy.Close()
		for _, w := range []*cluster.Process{w, other} {
			_, jsErr := c.Try(w, `await listen(web(), args[0], '127.0.0.1')`, port)
			require.NotNil(t, jsErr)
			require.Equal(t, "EADDRINUSE", jsErr.Code)
			require.Equal(t, "bind", jsErr.Syscall)
			require.Equal(t, "127.0.0.1", jsErr.Address)
			require.Equal(t, port, jsErr.Port)
		}
		c.Order(other, `web().on('error', () => cluster.worker.disconnect()).listen(args[0], '127.0.0.1')`, port)
		require.Equal(t, "0 <nil> true true", c.Death(other))

		busy.Close()
		require.Equal(t, "127.0.0.1:"+strconv.Itoa(port), c.Web(w, port))
		requireServedBy(t, "127.0.0.1:"+strconv.Itoa(port), w)
	})
}

// TestNodeListenTwice: the second listen of one worker on one port is
// EADDRINUSE, and spoils nothing for the other workers.
func TestNodeListenTwice(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		workers := c.ForkN(2)
		port := clustertest.FreePort(t)
		c.Web(workers[0], port)
		for range 2 {
			_, jsErr := c.Try(workers[0], `await listen(web(), args[0], '127.0.0.1')`, port)
			require.NotNil(t, jsErr)
			require.Equal(t, "EADDRINUSE", jsErr.Code)
		}
		c.Web(workers[1], port)
		c.Run(workers[0], `await close(state.servers[0])`)
		requireServedBy(t, "127.0.0.1:"+strconv.Itoa(port), workers[1])
		c.Web(workers[0], port)
	})
}

// TestNodeListenDenied: EACCES reaches node's 'error' event, from AllowListen.
func TestNodeListenDenied(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s, AllowListen: func(_ *cluster.Process, network, address string) error {
			return fmt.Errorf("%s %s is not for you", network, address)
		}})
		w := c.Fork()
		_, jsErr := c.Try(w, `await listen(web(), 8080, '127.0.0.1')`)
		require.NotNil(t, jsErr)
		require.Equal(t, "EACCES", jsErr.Code)
		require.Contains(t, c.Find(t, "error"), "tcp4 127.0.0.1:8080 is not for you")
	})
}

// TestNodeIPv6Only: without ipv6Only :: takes IPv4 as well; with it the port of
// 0.0.0.0 is still free. The same for datagrams.
func TestNodeIPv6Only(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		w := c.Fork()
		port := c.Run(w, `return (await listen(web(), {host: '::', port: 0})).port`).String()
		requireServedBy(t, "127.0.0.1:"+port, w)

		only := clustertest.FreePort(t) // with port 0 somebody else might have it for IPv4
		c.Run(w, `await listen(web(), {host: '::', port: args[0], ipv6Only: true})`, only)
		_, err := clustertest.Get("http://127.0.0.1:" + strconv.Itoa(only))
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		c.Run(w, `await listen(web(), {host: '0.0.0.0', port: args[0]})`, only)
		_, err = clustertest.Get("http://127.0.0.1:" + strconv.Itoa(only))
		require.NoError(t, err)

		c.Run(w, `
			await bind(dgram.createSocket({type: 'udp6', ipv6Only: true}), args[0]);
			await bind(dgram.createSocket('udp4'), args[0])`, clustertest.FreePort(t))
	})
}

// TestNodeRestartServer: a worker closes and opens its server while another
// serves; no connection is refused.
func TestNodeRestartServer(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		workers := c.ForkN(2)
		port := clustertest.FreePort(t)
		addr := c.Web(workers[0], port)
		for range 3 {
			c.Web(workers[1], port)
			for range 5 {
				_, err := clustertest.Get("http://" + addr)
				require.NoError(t, err)
			}
			c.Run(workers[1], `await close(state.servers.pop())`)
			requireServedBy(t, addr, workers[0])
		}
	})
}

// TestNodeUnixSocket: HTTP over a unix socket whose file is gone at the end; a
// path served by somebody else is EADDRINUSE; readableAll and writableAll open
// it to all.
func TestNodeUnixSocket(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		dir := t.TempDir()
		path := filepath.Join(dir, "s.sock")
		t.Cleanup(func() {
			_, err := os.Lstat(path)
			require.ErrorIs(t, err, os.ErrNotExist)
		})
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		for _, w := range c.ForkN(2) {
			require.Equal(t, path, c.Run(w, `
				return await listen(http.createServer((q, r) => r.end(String(q.socket.remoteAddress))), args[0])`, path).String())
			c.Find(t, fmt.Sprintf("listening %d unix %s", w.ID(), path))
			body, err := getUnix(path, "http://unix/")
			require.NoError(t, err)
			require.Equal(t, "undefined", body)
		}
		w := c.Fork()
		wide := filepath.Join(dir, "wide.sock")
		c.Run(w, `await listen(net.createServer(), {path: args[0], readableAll: true, writableAll: true})`, wide)
		info, err := os.Stat(wide)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o777), info.Mode().Perm())

		busy, err := net.Listen("unix", filepath.Join(dir, "busy.sock"))
		require.NoError(t, err)
		defer busy.Close()
		_, jsErr := c.Try(w, `await listen(net.createServer(), args[0])`, busy.Addr().String())
		require.NotNil(t, jsErr)
		require.Equal(t, "EADDRINUSE", jsErr.Code)
	})
}

// TestNodeLongUnixPath: a path longer than the system takes works when it is
// near the working directory.
func TestNodeLongUnixPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	require.NoError(t, os.Mkdir(dir, 0o755))
	script := clustertest.NodeScript(t, "worker.js")
	t.Chdir(dir)
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	o := cluster.Settings()
	o.Args, o.Dir = []string{script}, dir
	require.NoError(t, cluster.SetupMaster(o))
	w := c.Fork()
	c.Run(w, `await listen(net.createServer((socket) => socket.end('near')), './near.sock')`)
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

// TestNodeDescriptors: listen({fd}) and bind({fd}) get no descriptor of the master's
// that it has for itself, whatever it is.
func TestNodeDescriptors(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		w := c.Fork()
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer ln.Close()
		packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
		require.NoError(t, err)
		defer packets.Close()
		_, jsErr := c.Try(w, `await listen(web(), {fd: args[0]})`, descriptor(t, ln.(syscall.Conn)))
		require.NotNil(t, jsErr)
		require.Equal(t, "EACCES", jsErr.Code)
		_, jsErr = c.Try(w, `await bind(dgram.createSocket('udp4'), {fd: args[0]})`, descriptor(t, packets.(syscall.Conn)))
		require.NotNil(t, jsErr)
		_, jsErr = c.Try(w, `await listen(web(), {fd: 2})`)
		require.NotNil(t, jsErr)
	})
}

// TestNodeOfferedDescriptors: those of Options.ListenFDs are had by their number, and
// judged by their real address.
func TestNodeOfferedDescriptors(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		offered := func() (ln net.Listener, fd int) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			t.Cleanup(func() { ln.Close() })
			return ln, descriptor(t, ln.(syscall.Conn))
		}
		open, openFD := offered()
		private, privateFD := offered()
		dir := t.TempDir()
		local, err := net.Listen("unix", filepath.Join(dir, "s"))
		require.NoError(t, err)
		defer local.Close()
		packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
		require.NoError(t, err)
		defer packets.Close()
		localFD, packetsFD := descriptor(t, local.(syscall.Conn)), descriptor(t, packets.(syscall.Conn))
		c := clustertest.NewNodeCluster(t, cluster.Options{
			Scheduling: s, ListenFDs: []int{openFD, privateFD, localFD, packetsFD},
			AllowListen: func(_ *cluster.Process, network, address string) error {
				if address == private.Addr().String() {
					return errors.New("private")
				}
				return nil
			},
		})
		for _, w := range c.ForkN(2) {
			c.Run(w, `await listen(web(), {fd: args[0]}); await listen(web(), {fd: args[1]})`, openFD, localFD)
			c.Run(w, `await bind(dgram.createSocket('udp4'), {fd: args[0]})`, packetsFD)
			_, jsErr := c.Try(w, `await listen(web(), {fd: args[0]})`, privateFD)
			require.NotNil(t, jsErr)
			require.Equal(t, "EACCES", jsErr.Code)
		}
		_, err = clustertest.Get("http://" + open.Addr().String())
		require.NoError(t, err)
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
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		w := c.Fork()
		c.Run(w, `
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
		c.Web(w)
		require.NoError(t, w.Disconnect(t.Context()))
		require.Equal(t, "0 <nil> true true", c.Death(w))
		require.Zero(t, c.Count("error"))
	})
}

// TestNodeTLSTickets: the ticket keys of the first node worker are all workers',
// so that a session goes on in whichever worker the next connection reaches.
func TestNodeTLSTickets(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	cert, key := clustertest.Certificate(t)
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		port := clustertest.FreePort(t)
		connect := newTLSClient(t, "127.0.0.1:"+strconv.Itoa(port))
		var last *cluster.Process
		for i, w := range c.ForkN(4) {
			c.Run(w, `
				state.server = tls.createServer({cert: args[0], key: args[1]}, (socket) => {
					socket.on('error', () => {});
					socket.end(cluster.worker.id + ' ' + socket.isSessionReused());
				});
				await listen(state.server, args[2], '127.0.0.1')`, string(cert), string(key), port)
			if last != nil { // from here on only w accepts
				c.Run(last, `await close(state.server)`)
			}
			require.Equal(t, fmt.Sprintf("%d %v", w.ID(), i > 0), connect())
			last = w
		}
	})
}

// TestNodeNonBlocking: no socket that node gets or gives back is made blocking
// for those that share it.
func TestNodeNonBlocking(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		ln, err := cluster.Listen("tcp", "127.0.0.1:0") // before the fork: its workers share it
		require.NoError(t, err)
		defer ln.Close()
		fd := descriptor(t, ln.(syscall.Conn))
		w := c.Fork()
		c.Run(w, `await listen(web(), args[0], '127.0.0.1')`, ln.Addr().(*net.TCPAddr).Port)
		_, err = clustertest.Get("http://" + ln.Addr().String())
		require.NoError(t, err)
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		require.NoError(t, err)
		require.NotZero(t, flags&unix.O_NONBLOCK)
	})
}
