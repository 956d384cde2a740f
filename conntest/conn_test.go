// Package conntest runs golang.org/x/net/nettest over the connections that a
// worker accepts. It is a module of its own, for that dependency.
package conntest

import (
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/go-cluster/cluster"
	"golang.org/x/net/nettest"
)

// TestMain makes a worker of every process but the first: the tests run where
// connections are accepted.
func TestMain(m *testing.M) {
	if cluster.IsWorker() {
		os.Exit(m.Run())
	}
	os.Exit(runInWorker())
}

// runInWorker runs the tests, with the flags of this process, in a worker.
func runInWorker() int {
	ended := make(chan cluster.Exit, 1)
	cluster.OnDeath(func(_ *cluster.Process, e cluster.Exit) { ended <- e })
	for _, s := range []cluster.Scheduling{cluster.Shared, cluster.RoundRobin} {
		if err := cluster.SetupMaster(cluster.Options{Scheduling: s}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(s)
		if _, err := cluster.Fork(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if e := <-ended; e.Code != 0 {
			return 1
		}
	}
	return 0
}

// TestConn: an accepted connection is what net.Conn says, deadlines and races
// included.
func TestConn(t *testing.T) {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, accepted := range []string{"first", "second"} {
		t.Run(accepted, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				client, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					return nil, nil, nil, err
				}
				server, err := ln.Accept()
				if err != nil {
					client.Close()
					return nil, nil, nil, err
				}
				stop = func() {
					client.Close()
					server.Close()
				}
				if accepted == "first" {
					return server, client, stop, nil
				}
				return client, server, stop, nil
			})
		})
	}
}
