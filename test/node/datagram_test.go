//go:build unix

package node_test

// Node workers under a Go master: datagrams.

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestNodeDatagrams: node workers share a UDP port; each datagram reaches
// exactly one of them.
func TestNodeDatagrams(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		port := clustertest.FreePort(t)
		for _, w := range c.ForkN(4) {
			c.Run(w, `
				const socket = dgram.createSocket('udp4');
				socket.on('message', (m, from) => { process.send({event: 'datagram'}); socket.send('got', from.port, from.address); });
				await bind(socket, args[0], '127.0.0.1')`, port)
			c.Find(t, fmt.Sprintf("listening %d udp 127.0.0.1:%d", w.ID(), port))
		}
		for range 40 {
			require.Equal(t, "got", askPacket(t, "udp", "127.0.0.1:"+strconv.Itoa(port)))
		}
		count := func() (n int) {
			for _, line := range c.All() {
				if strings.HasSuffix(line, `{"event":"datagram"}`) {
					n++
				}
			}
			return n
		}
		for count() < 40 {
			clustertest.Await(t, c.Lines, "datagram")
		}
		require.Equal(t, 40, count())
	})
}

// TestNodeDatagramsToMaster: workers bind port 0 and send to the master.
func TestNodeDatagramsToMaster(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	here, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer here.Close()
	for _, w := range c.ForkN(2) {
		c.Run(w, `
			const socket = dgram.createSocket('udp4');
			await bind(socket, 0);
			for (let i = 0; i < 10; i++) socket.send('hello', args[0], '127.0.0.1')`, here.LocalAddr().(*net.UDPAddr).Port)
	}
	here.SetReadDeadline(time.Now().Add(clustertest.Patience))
	for range 20 {
		b := make([]byte, 100)
		n, _, err := here.ReadFrom(b)
		require.NoError(t, err)
		require.Equal(t, "hello", string(b[:n]))
	}
}

// TestNodeDatagramBindError: a busy UDP port is an 'error' event as well.
func TestNodeDatagramBindError(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	w := c.Fork()
	busy, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	_, jsErr := c.Try(w, `await bind(dgram.createSocket('udp4'), args[0], '127.0.0.1')`, busy.LocalAddr().(*net.UDPAddr).Port)
	require.NotNil(t, jsErr)
	require.Equal(t, "EADDRINUSE", jsErr.Code)
}

// TestNodeDatagramReuse: with reuseAddr one worker has several sockets on one port,
// the n-th of each worker being the same; without it the second is EADDRINUSE.
func TestNodeDatagramReuse(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	port := clustertest.FreePort(t)
	const twice = `
		const sockets = [1, 2].map(() => dgram.createSocket({type: 'udp4', reuseAddr: args[1]}));
		for (const socket of sockets) await bind(socket, args[0], '127.0.0.1');
		if (args[2]) await Promise.all(sockets.map(close))`
	workers := c.ForkN(2)
	for _, close := range []bool{true, false} {
		for _, w := range workers {
			c.Run(w, twice, port, true, close)
		}
	}
	c.Run(workers[0], `
		const open = () => dgram.createSocket({type: 'udp4', reuseAddr: true});
		const {port} = await bind(open(), 0);
		await bind(open(), port)`)
	_, jsErr := c.Try(workers[0], twice, clustertest.FreePort(t), false, false)
	require.NotNil(t, jsErr)
	require.Equal(t, "EADDRINUSE", jsErr.Code)
}
