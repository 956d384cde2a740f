package cluster_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// robins are socket workers that listen on one address, which the master accepts on.
func robins(t *testing.T, n int, network, address string) (all []*cluster.Process, addr string) {
	t.Helper()
	all = clustertest.SocketWorkers(t, n, cluster.Options{Scheduling: cluster.RoundRobin})
	for _, w := range all {
		addr = clustertest.MustListen(t, w, network, address, cluster.ListenConfig{}).Addr
	}
	return all, addr
}

// hold lets w listen without ever accepting.
func hold(t *testing.T, w *cluster.Process, network, address string) (r clustertest.ListenResult) {
	t.Helper()
	clustertest.Request(t, w, clustertest.ListenOrder{Cmd: "listen", Network: network, Address: address, Hold: true}, &r)
	require.Empty(t, r.Err)
	return r
}

// dialMany connects n times at once and returns what the connections are told,
// by worker id, as it comes.
func dialMany(t *testing.T, n int, network, address string) <-chan int {
	t.Helper()
	answers := make(chan int, n)
	for range n {
		c, err := net.Dial(network, address)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		go func() {
			var id int
			buf := make([]byte, 100)
			if m, err := c.Read(buf); err == nil {
				for _, b := range buf[len("worker "):m] {
					if b < '0' || b > '9' {
						break
					}
					id = id*10 + int(b-'0')
				}
			}
			answers <- id
		}()
	}
	return answers
}

// RoundRobin gives each worker as many connections as the next, if a worker's word that
// it took one is not overtaken by those of others; a shared socket leaves a quarter and
// more between them.
func TestRoundRobinEvenSpread(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	for _, network := range clustertest.System.Networks {
		t.Run(network, func(t *testing.T) {
			address := "127.0.0.1:0"
			if network == "unix" {
				address = filepath.Join(clustertest.TempDir(t), "s")
			}
			workers, addr := robins(t, 4, network, address)
			byID, spread := make(map[int]*cluster.Process), make(map[int]int)
			for _, w := range workers {
				byID[w.ID()] = w
			}
			for range 400 {
				id, _ := clustertest.GreetingFrom(t, network, addr)
				spread[id]++
				clustertest.Request(t, byID[id], clustertest.Order{Cmd: "who"}, nil) // the answer is behind its word
			}
			for _, w := range workers {
				require.Equal(t, 100, spread[w.ID()], "%v", spread)
			}
		})
	}
}

// A connection that was handed to a worker which dies before it takes it goes to
// another; a stopped worker holds up no more than one.
func TestRoundRobinStoppedWorker(t *testing.T) {
	workers, addr := robins(t, 2, "tcp", "127.0.0.1:0")
	clustertest.PauseWorker(t, workers[0])
	const n = 20
	answers := dialMany(t, n, "tcp", addr)
	for range n - 1 {
		require.Equal(t, workers[1].ID(), clustertest.Await(t, answers, "answer of the worker that runs"))
	}
	require.Empty(t, answers)
	clustertest.KillAndWait(t, workers[0])
	require.Equal(t, workers[1].ID(), clustertest.Await(t, answers, "answer to the connection handed on"))
}

// A stopped worker that goes on serves what it was handed.
func TestRoundRobinContinuedWorker(t *testing.T) {
	workers, addr := robins(t, 2, "tcp", "127.0.0.1:0")
	clustertest.PauseWorker(t, workers[0])
	answers := dialMany(t, 4, "tcp", addr)
	for range 3 {
		require.Equal(t, workers[1].ID(), clustertest.Await(t, answers, "answer of the worker that runs"))
	}
	clustertest.Kill(t, workers[0].PID(), clustertest.SigCont)
	require.Equal(t, workers[0].ID(), clustertest.Await(t, answers, "answer of the worker that goes on"))
	id, _ := clustertest.GreetingFrom(t, "tcp", addr)
	require.NotZero(t, id)
}

// A connection is the worker's only once its application has accepted it: until
// then it is given to another when the worker dies, drains or closes.
func TestRoundRobinAcceptedByApplication(t *testing.T) {
	end := map[string]func(w *cluster.Process, r clustertest.ListenResult){
		"dies":   func(w *cluster.Process, _ clustertest.ListenResult) { clustertest.KillAndWait(t, w) },
		"drains": func(w *cluster.Process, _ clustertest.ListenResult) { require.NoError(t, w.Disconnect(t.Context())) },
		"closes": func(w *cluster.Process, r clustertest.ListenResult) { clustertest.CloseSocket(t, w, r) },
	}
	for name, end := range end {
		t.Run(name, func(t *testing.T) {
			workers := clustertest.SocketWorkers(t, 2, cluster.Options{Scheduling: cluster.RoundRobin})
			held := hold(t, workers[0], "tcp", "127.0.0.1:0")
			answers := dialMany(t, 1, "tcp", held.Addr)
			other := hold(t, workers[1], "tcp", "127.0.0.1:0")
			require.Equal(t, held.Addr, other.Addr)
			clustertest.Request(t, workers[1], clustertest.SocketOrder{Cmd: "accept", N: other.N}, nil)
			require.Equal(t, workers[1].ID(), clustertest.Await(t, dialMany(t, 1, "tcp", held.Addr), "answer of the other"))
			require.Empty(t, answers)
			end(workers[0], held)
			require.Equal(t, workers[1].ID(), clustertest.Await(t, answers, "answer to the connection given back"))
		})
	}
	// The application that takes it late has it all the same.
	t.Run("late", func(t *testing.T) {
		w := clustertest.SocketWorkers(t, 1, cluster.Options{Scheduling: cluster.RoundRobin})[0]
		held := hold(t, w, "tcp", "127.0.0.1:0")
		answers := dialMany(t, 3, "tcp", held.Addr)
		clustertest.Request(t, w, clustertest.SocketOrder{Cmd: "accept", N: held.N}, nil)
		for range 3 {
			require.Equal(t, w.ID(), clustertest.Await(t, answers, "answer"))
		}
	})
}

// The drain of one worker takes it out of the rotation, and of all of them
// leaves the connections for those that come next.
func TestRoundRobinDrain(t *testing.T) {
	workers, addr := robins(t, 2, "tcp", "127.0.0.1:0")
	require.NoError(t, workers[0].Disconnect(t.Context()))
	for range 10 {
		id, _ := clustertest.GreetingFrom(t, "tcp", addr)
		require.Equal(t, workers[1].ID(), id)
	}
	require.NoError(t, workers[1].Disconnect(t.Context()))
	answers := dialMany(t, 10, "tcp", addr)
	w := clustertest.Fork(t)
	require.Equal(t, addr, clustertest.MustListen(t, w, "tcp", "127.0.0.1:0", cluster.ListenConfig{}).Addr)
	for range 10 {
		require.Equal(t, w.ID(), clustertest.Await(t, answers, "answer"))
	}
}

// A ListenConfig decides for one address what Options says for all.
func TestSchedulingOfOneAddress(t *testing.T) {
	workers, addr := robins(t, 1, "tcp", "127.0.0.1:0")
	var r clustertest.ListenResult
	clustertest.Request(t, workers[0], clustertest.ListenOrder{Cmd: "listen", Network: "tcp", Address: clustertest.UnusedAddress(t, "tcp", ""), Config: cluster.ListenConfig{Scheduling: cluster.Shared}}, &r)
	require.Empty(t, r.Err)
	require.True(t, clustertest.Inspect(t, workers[0], r).NonBlock, "a socket of the worker's own")
	var info clustertest.SocketInfo
	require.ErrorContains(t, workers[0].Request(t.Context(), clustertest.SocketOrder{Cmd: "inspect", N: 0}, &info), "not supported", "no socket")
	clustertest.GreetingFrom(t, "tcp", addr)
	clustertest.GreetingFrom(t, "tcp", r.Addr)
}

// greeted is a connection to a socket worker that stays open.
type greeted struct {
	net.Conn
	id int // the worker's; 0 if the connection was reset before it was answered
}

func dialGreeted(t *testing.T, addr string) greeted {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, clustertest.Patience)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	g := greeted{Conn: c}
	buf := make([]byte, 100)
	c.SetReadDeadline(time.Now().Add(clustertest.Patience))
	if n, err := c.Read(buf); err == nil {
		_, err := fmt.Sscanf(string(buf[:n]), "worker %d ", &g.id)
		require.NoError(t, err)
	} else {
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	}
	return g
}

// LeastConnections gives each connection to the worker with the fewest, also while one
// dies and another takes its place: in the end all have as many.
func TestLeastConnectionsEvenSpread(t *testing.T) {
	n, each := 4, 25
	if clustertest.Long() {
		n, each = 8, 125
	}
	workers := clustertest.SocketWorkers(t, n, cluster.Options{Scheduling: cluster.LeastConnections})
	addr := ""
	for _, w := range workers {
		addr = clustertest.MustListen(t, w, "tcp", "127.0.0.1:0", cluster.ListenConfig{}).Addr
	}
	require.Equal(t, "LeastConnections", cluster.Stats().Listeners[0].Scheduling)
	var conns []greeted
	spread := func(workers ...*cluster.Process) (fewest, most int) {
		count := make(map[int]int)
		for _, c := range conns {
			count[c.id]++
		}
		for i, w := range workers {
			if c := count[w.ID()]; i == 0 {
				fewest, most = c, c
			} else {
				fewest, most = min(fewest, c), max(most, c)
			}
		}
		return fewest, most
	}
	for len(conns) < n*each/2 {
		conns = append(conns, dialGreeted(t, addr))
		fewest, most := spread(workers...)
		require.LessOrEqual(t, most-fewest, 2)
	}
	dead := workers[0]
	require.NoError(t, dead.Kill())
	workers = workers[1:]
	lost := 0
	for i := range n * each / 2 {
		if i == n*each/4 {
			next := clustertest.Fork(t)
			clustertest.MustListen(t, next, "tcp", "127.0.0.1:0", cluster.ListenConfig{})
			workers = append(workers, next)
		}
		if c := dialGreeted(t, addr); c.id != 0 && c.id != dead.ID() {
			conns = append(conns, c)
		} else {
			lost++ // the dead worker had it
		}
	}
	require.LessOrEqual(t, lost, 1, "more than one could be on its way to a worker that dies")
	for _, c := range conns {
		if c.id == dead.ID() {
			conns = append(conns, dialGreeted(t, addr))
		}
	}
	fewest, most := spread(workers...)
	require.LessOrEqual(t, most-fewest, 2, "%d workers", len(workers))
}

// The worker with the fewest connections is not waited for when it is stopped.
func TestLeastConnectionsStoppedWorker(t *testing.T) {
	workers := clustertest.SocketWorkers(t, 2, cluster.Options{Scheduling: cluster.LeastConnections})
	addr := ""
	for _, w := range workers {
		addr = clustertest.MustListen(t, w, "tcp", "127.0.0.1:0", cluster.ListenConfig{}).Addr
	}
	clustertest.PauseWorker(t, workers[0])
	answers := dialMany(t, 20, "tcp", addr)
	for range 19 {
		require.Equal(t, workers[1].ID(), clustertest.Await(t, answers, "answer of the worker that runs"))
	}
	clustertest.Kill(t, workers[0].PID(), clustertest.SigCont)
	require.Equal(t, workers[0].ID(), clustertest.Await(t, answers, "answer of the worker that goes on"))
}

// A worker that has as many connections as it may leaves the rest to the other, at once;
// when all have, connections wait until one ends.
func TestMaxConnections(t *testing.T) {
	for _, policy := range []cluster.Scheduling{cluster.Shared, cluster.RoundRobin, cluster.Sharded, cluster.LeastConnections, cluster.ByClient} {
		t.Run(policy.String(), func(t *testing.T) {
			workers := clustertest.SocketWorkers(t, 2, cluster.Options{Scheduling: policy, MaxConnections: 1})
			addr := ""
			for _, w := range workers {
				addr = clustertest.MustListen(t, w, "tcp", "127.0.0.1:0", cluster.ListenConfig{}).Addr
			}
			pinned := dialGreeted(t, addr)
			var last greeted
			for range 50 {
				last = dialGreeted(t, addr)
				require.NotEqual(t, pinned.id, last.id)
				require.NotZero(t, last.id)
				require.NoError(t, last.Close())
			}
			last = dialGreeted(t, addr)
			require.Equal(t, workers[0].ID()+workers[1].ID(), pinned.id+last.id)

			answers := dialMany(t, 3, "tcp", addr)
			if clustertest.System.Backlog {
				clustertest.Eventually(t, func() bool { return cluster.Stats().Listeners[0].Backlog == 3 }, "three that wait")
			}
			require.Empty(t, answers)
			// dialMany leaves its connections open.
			for _, c := range []greeted{last, pinned} {
				require.NoError(t, c.Close())
				require.Equal(t, c.id, clustertest.Await(t, answers, "answer of the worker that has room"))
			}
			require.Empty(t, answers)
			clustertest.KillAndWait(t, workers[0])
			w := clustertest.Fork(t)
			clustertest.MustListen(t, w, "tcp", "127.0.0.1:0", cluster.ListenConfig{})
			require.Equal(t, w.ID(), clustertest.Await(t, answers, "answer of the successor"))
		})
	}
}

// The connections of all listeners of a worker count together.
func TestMaxConnectionsOfAllListeners(t *testing.T) {
	w := clustertest.SocketWorkers(t, 1, cluster.Options{MaxConnections: 2})[0]
	var addrs []string
	for _, lc := range []cluster.ListenConfig{{}, {Scheduling: cluster.RoundRobin}, {Exclusive: true}} {
		addrs = append(addrs, clustertest.MustListen(t, w, "tcp", "127.0.0.1:0", lc).Addr)
	}
	for i := range addrs {
		addr := addrs[i]
		first, second := dialGreeted(t, addrs[(i+1)%3]), dialGreeted(t, addrs[(i+2)%3])
		answer := dialMany(t, 1, "tcp", addr)
		require.Empty(t, answer)
		require.NoError(t, first.Close())
		require.Equal(t, w.ID(), clustertest.Await(t, answer, "answer"))
		require.NoError(t, second.Close())
		require.Equal(t, w.ID(), dialGreeted(t, addr).id)
		clustertest.KillAndWait(t, w) // which ends all its connections
		w = clustertest.Fork(t)
		for j, lc := range []cluster.ListenConfig{{}, {Scheduling: cluster.RoundRobin}, {Exclusive: true}} {
			addrs[j] = clustertest.MustListen(t, w, "tcp", "127.0.0.1:0", lc).Addr
		}
	}
}
