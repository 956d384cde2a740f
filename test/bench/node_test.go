//go:build unix

package bench_test

// A Go master with node workers against a node primary with the same workers.

import (
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// nodeMessages is fewer than messagesPerRound: node is slower.
const nodeMessages = 20_000

// sendFromNode is the code with which a node worker sends the messages, and takeInNode the code
// with which it says that it has got them.
const (
	sendFromNode = `for (let i = 0; i < args[0]; i++) process.send({cmd: 'count', n: 1000000000 + i})`
	takeInNode   = `
		let n = 0;
		process.on('message', (m) => { if (m.cmd === 'count' && ++n === args[0]) { n = 0; process.send({cmd: 'done', n: 0}); } })`
)

// BenchmarkNodeMessages is messages per second between a Go master and a node
// worker. The baseline is a node primary with the same worker.
func BenchmarkNodeMessages(b *testing.B) {
	b.Run("ToMaster", func(b *testing.B) {
		w := forkNodeBench(b, 1, cluster.Options{})[0]
		n, got := 0, make(chan struct{}, 1)
		b.Cleanup(cluster.Handle("count", func(*cluster.Process, count) {
			if n++; n == nodeMessages {
				n = 0
				got <- struct{}{}
			}
		}))
		p := newNodeBench(b, 1, "rr")
		p.Run(`
			let n = 0;
			cluster.on('message', (w, m) => { if (m.cmd === 'count' && ++n === args[0]) { n = 0; state.got(); } })`, nodeMessages)
		compare(b, "msg/s", func() float64 {
			return perSecond(nodeMessages, func() {
				require.NoError(b, w.Send(clustertest.JSOrder{Code: sendFromNode, Args: []int{nodeMessages}}))
				clustertest.Await(b, got, "last message")
			})
		}, func() float64 {
			return perSecond(nodeMessages, func() {
				p.Run(`
					const done = new Promise((resolve) => { state.got = resolve });
					workers[1].send({code: args[1], args: [args[0]]});
					await done`, nodeMessages, sendFromNode)
			})
		})
	})
	b.Run("ToWorker", func(b *testing.B) {
		w := forkNodeBench(b, 1, cluster.Options{})[0]
		got := make(chan struct{}, 1)
		b.Cleanup(cluster.Handle("done", func(*cluster.Process, count) { got <- struct{}{} }))
		require.NoError(b, w.Send(clustertest.JSOrder{Code: takeInNode, Args: []int{nodeMessages}}))
		p := newNodeBench(b, 1, "rr")
		p.Run(`
			cluster.on('message', (w, m) => { if (m.cmd === 'done') state.got(); });
			workers[1].send({code: args[1], args: [args[0]]})`, nodeMessages, takeInNode)
		compare(b, "msg/s", func() float64 {
			return perSecond(nodeMessages, func() {
				for i := range nodeMessages {
					require.NoError(b, w.Send(benchCount(i)))
				}
				clustertest.Await(b, got, "done")
			})
		}, func() float64 {
			return perSecond(nodeMessages, func() {
				p.Run(`
					const done = new Promise((resolve) => { state.got = resolve });
					for (let i = 0; i < args[0]; i++) workers[1].send({cmd: 'count', n: 1000000000 + i});
					await done`, nodeMessages)
			})
		})
	})
}

// BenchmarkNodeConnections is connections per second, one request each, to two
// node workers. The baseline is a node primary with the same workers and its
// default, SCHED_RR.
func BenchmarkNodeConnections(b *testing.B) {
	for _, s := range []cluster.Scheduling{cluster.Shared, cluster.RoundRobin} {
		b.Run(s.String(), func(b *testing.B) {
			const code = `await listen(web(), args[0], '127.0.0.1'); process.send({cmd: 'up'})`
			port, basePort := clustertest.FreePort(b), clustertest.FreePort(b)
			up := make(chan struct{}, 2)
			b.Cleanup(cluster.Handle("up", func(*cluster.Process, count) { up <- struct{}{} }))
			for _, w := range forkNodeBench(b, 2, cluster.Options{Scheduling: s}) {
				require.NoError(b, w.Send(clustertest.JSOrder{Code: code, Args: []int{port}}))
				clustertest.Await(b, up, "server")
			}
			p := newNodeBench(b, 2, "rr")
			for id := 1; id <= 2; id++ {
				p.Run(`
					workers[args[0]].send({code: args[1], args: [args[2]]});
					await until(workers[args[0]], 'listening')`, id, code, basePort)
			}
			compare(b, "conn/s", connecting(b, port), connecting(b, basePort))
		})
	}
}

// connecting returns a measurement of connections to port, from eight clients.
func connecting(b *testing.B, port int) func() float64 {
	const clients, each = 8, 50
	url := "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	return func() float64 {
		return perSecond(clients*each, func() {
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					for range each {
						if _, err := clustertest.Get(url); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
		})
	}
}

// forkNodeBench makes the test process a master of n node workers.
func forkNodeBench(b *testing.B, n int, o cluster.Options) (workers []*cluster.Process) {
	b.Helper()
	o.Exec, o.Args = clustertest.NodeBinary(b), []string{clustertest.NodeScript(b, "worker.js")}
	clustertest.WithMaster(b, "", o)
	b.Cleanup(cluster.Handle("", func(*cluster.Process, any) {})) // the answers to orders
	online := make(chan struct{}, n)
	b.Cleanup(cluster.OnOnline(func(*cluster.Process) { online <- struct{}{} }))
	for range n {
		w, err := cluster.Fork()
		require.NoError(b, err)
		clustertest.Await(b, online, "online")
		workers = append(workers, w)
	}
	return workers
}

// newNodeBench starts a node primary of n workers that run the same script.
func newNodeBench(b *testing.B, n int, policy string) *clustertest.NodePrimary {
	b.Helper()
	p := clustertest.NewNodePrimary(b, "NODE_CLUSTER_SCHED_POLICY="+policy)
	p.Run(`
		cluster.removeAllListeners('message');
		cluster.setupPrimary({exec: args[0]});
		for (let i = 0; i < args[1]; i++) {
			const w = cluster.fork();
			workers[w.id] = w;
			await until(w, 'online');
		}`, clustertest.NodeScript(b, "worker.js"), n)
	b.Cleanup(p.End)
	return p
}
