// Package conntest runs golang.org/x/net/nettest over the connections that a
// worker accepts, and those that its master sends it. It is a module of its own, for that dependency.
package conntest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"

	"github.com/go-cluster/cluster"
	"golang.org/x/net/nettest"
)

// TestMain runs the tests in a worker, where connections are accepted. The first process is the
// master.
func TestMain(m *testing.M) {
	if cluster.IsWorker() {
		os.Exit(m.Run())
	}
	os.Exit(runInWorker())
}

// addressEnv is where the master accepts.
const addressEnv = "CONNTEST_ADDRESS"

// runInWorker runs the tests, with the flags of this process, in a worker.
func runInWorker() int {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	os.Setenv(addressEnv, ln.Addr().String())
	ended := make(chan cluster.Exit, 1)
	cluster.OnDeath(func(_ *cluster.Process, e cluster.Exit) { ended <- e })
	var worker atomic.Pointer[cluster.Process]
	go sendAll(ln, &worker)
	for _, s := range []cluster.Scheduling{cluster.Shared, cluster.RoundRobin} {
		if err := cluster.SetupMaster(cluster.Options{Scheduling: s}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(s)
		w, err := cluster.Fork()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		worker.Store(w)
		if e := <-ended; e.Code != 0 {
			return 1
		}
	}
	return 0
}

// sendAll sends the connections that it accepts to the worker.
func sendAll(ln net.Listener, to *atomic.Pointer[cluster.Process]) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		if err := to.Load().SendHandle("connection", c); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		c.Close()
	}
}

// testBoth tests both ends of connections that dial makes.
func testBoth(t *testing.T, dial func() (client, server net.Conn, err error)) {
	for _, tested := range []string{"first", "second"} {
		t.Run(tested, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				client, server, err := dial()
				if err != nil {
					return nil, nil, nil, err
				}
				stop = func() {
					client.Close()
					server.Close()
				}
				if tested == "first" {
					return server, client, stop, nil
				}
				return client, server, stop, nil
			})
		})
	}
}

// TestConn: an accepted connection does what the doc of net.Conn says, also with deadlines and
// several goroutines.
func TestConn(t *testing.T) {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	testBoth(t, func() (client, server net.Conn, err error) {
		if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
			return nil, nil, err
		}
		if server, err = ln.Accept(); err != nil {
			client.Close()
		}
		return client, server, err
	})
}

// TestSentConn: a connection that the master has accepted and sent does so too.
func TestSentConn(t *testing.T) {
	sent := make(chan net.Conn, 1)
	stop := cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) {
		c, err := m.Conn()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		sent <- c
	})
	defer stop()
	testBoth(t, func() (client, server net.Conn, err error) {
		if client, err = net.Dial("tcp", os.Getenv(addressEnv)); err != nil {
			return nil, nil, err
		}
		if server = <-sent; server == nil {
			client.Close()
			return nil, nil, errors.New("no connection came")
		}
		return client, server, nil
	})
}
