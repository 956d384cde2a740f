package cluster_test

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// robins are puppets that listen on one address, which the master accepts on.
func robins(t *testing.T, n int, network, address string) (all []*cluster.Process, addr string) {
	t.Helper()
	all = puppets(t, n, cluster.Options{Scheduling: cluster.RoundRobin})
	for _, w := range all {
		addr = mustListen(t, w, network, address, cluster.ListenConfig{}).Addr
	}
	return all, addr
}

// hold lets w listen without ever accepting.
func hold(t *testing.T, w *cluster.Process, network, address string) (r listenResult) {
	t.Helper()
	request(t, w, listenOrder{Cmd: "listen", Network: network, Address: address, Hold: true}, &r)
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

// RoundRobin gives each worker as many connections as the next. By a few they may
// differ, when a worker's word that it took one is overtaken by those of three
// others; a shared socket leaves a quarter and more between them.
func TestRoundRobinEvenSpread(t *testing.T) {
	for _, network := range system.networks {
		t.Run(network, func(t *testing.T) {
			address := "127.0.0.1:0"
			if network == "unix" {
				address = filepath.Join(tempDir(t), "s")
			}
			workers, addr := robins(t, 4, network, address)
			spread := make(map[int]int)
			for range 400 {
				id, _ := asked(t, network, addr)
				spread[id]++
			}
			for _, w := range workers {
				require.InDelta(t, 100, spread[w.ID()], 10, "%v", spread)
			}
		})
	}
}

// A connection that was handed to a worker which dies before it takes it goes to
// another; a stopped worker holds up no more than one.
func TestRoundRobinStoppedWorker(t *testing.T) {
	workers, addr := robins(t, 2, "tcp", "127.0.0.1:0")
	stop(t, workers[0])
	const n = 20
	answers := dialMany(t, n, "tcp", addr)
	for range n - 1 {
		require.Equal(t, workers[1].ID(), await(t, answers, "answer of the worker that runs"))
	}
	require.Empty(t, answers)
	killed(t, workers[0])
	require.Equal(t, workers[1].ID(), await(t, answers, "answer to the connection handed on"))
}

// A stopped worker that goes on serves what it was handed.
func TestRoundRobinContinuedWorker(t *testing.T) {
	workers, addr := robins(t, 2, "tcp", "127.0.0.1:0")
	stop(t, workers[0])
	answers := dialMany(t, 4, "tcp", addr)
	for range 3 {
		require.Equal(t, workers[1].ID(), await(t, answers, "answer of the worker that runs"))
	}
	kill(t, workers[0].PID(), sigCont)
	require.Equal(t, workers[0].ID(), await(t, answers, "answer of the worker that goes on"))
	id, _ := asked(t, "tcp", addr)
	require.NotZero(t, id)
}

// A connection is the worker's only once its application has accepted it: until
// then it is given to another when the worker dies, drains or closes.
func TestRoundRobinAcceptedByApplication(t *testing.T) {
	end := map[string]func(w *cluster.Process, r listenResult){
		"dies":   func(w *cluster.Process, _ listenResult) { killed(t, w) },
		"drains": func(w *cluster.Process, _ listenResult) { require.NoError(t, w.Disconnect(t.Context())) },
		"closes": func(w *cluster.Process, r listenResult) { closeSocket(t, w, r) },
	}
	for name, end := range end {
		t.Run(name, func(t *testing.T) {
			workers := puppets(t, 2, cluster.Options{Scheduling: cluster.RoundRobin})
			held := hold(t, workers[0], "tcp", "127.0.0.1:0")
			answers := dialMany(t, 1, "tcp", held.Addr)
			other := hold(t, workers[1], "tcp", "127.0.0.1:0")
			require.Equal(t, held.Addr, other.Addr)
			request(t, workers[1], socketOrder{"accept", other.N}, nil)
			require.Equal(t, workers[1].ID(), await(t, dialMany(t, 1, "tcp", held.Addr), "answer of the other"))
			require.Empty(t, answers)
			end(workers[0], held)
			require.Equal(t, workers[1].ID(), await(t, answers, "answer to the connection given back"))
		})
	}
	// The application that takes it late has it all the same.
	t.Run("late", func(t *testing.T) {
		w := puppets(t, 1, cluster.Options{Scheduling: cluster.RoundRobin})[0]
		held := hold(t, w, "tcp", "127.0.0.1:0")
		answers := dialMany(t, 3, "tcp", held.Addr)
		request(t, w, socketOrder{"accept", held.N}, nil)
		for range 3 {
			require.Equal(t, w.ID(), await(t, answers, "answer"))
		}
	})
}

// The drain of one worker takes it out of the rotation, and of all of them
// leaves the connections for those that come next.
func TestRoundRobinDrain(t *testing.T) {
	workers, addr := robins(t, 2, "tcp", "127.0.0.1:0")
	require.NoError(t, workers[0].Disconnect(t.Context()))
	for range 10 {
		id, _ := asked(t, "tcp", addr)
		require.Equal(t, workers[1].ID(), id)
	}
	require.NoError(t, workers[1].Disconnect(t.Context()))
	answers := dialMany(t, 10, "tcp", addr)
	w := forkOne(t)
	require.Equal(t, addr, mustListen(t, w, "tcp", "127.0.0.1:0", cluster.ListenConfig{}).Addr)
	for range 10 {
		require.Equal(t, w.ID(), await(t, answers, "answer"))
	}
}

// A ListenConfig decides for one address what Options says for all.
func TestSchedulingOfOneAddress(t *testing.T) {
	workers, addr := robins(t, 1, "tcp", "127.0.0.1:0")
	var r listenResult
	request(t, workers[0], listenOrder{Cmd: "listen", Network: "tcp", Address: freeAddress(t), Config: cluster.ListenConfig{Scheduling: cluster.Shared}}, &r)
	require.Empty(t, r.Err)
	require.True(t, inspect(t, workers[0], r).NonBlock, "a socket of the worker's own")
	var info socketInfo
	require.ErrorContains(t, workers[0].Request(t.Context(), socketOrder{"inspect", 0}, &info), "not supported", "no socket")
	asked(t, "tcp", addr)
	asked(t, "tcp", r.Addr)
}
