package upgrade_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// handedOver is how many connections a master of takers gives away, and fillers how many
// messages follow each: more than a channel takes.
const (
	handedOver = 40
	fillers    = 10
)

// takers is a master that gives connections to its one worker, with messages. In the version
// that goes it waits for the step "send" with that.
var takers = clustertest.Program("upgrade takers", func() {
	if cluster.IsWorker() {
		takeHandles()
		serve()
		return
	}
	fmt.Println("main", version)
	if version == "one" && !cluster.Checking() {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		clustertest.Must(err)
		fmt.Println("give to", ln.Addr())
		go giveAway(ln)
	}
	cluster.OnUpgrade("step", func() (any, error) { return nil, os.WriteFile(step("saved"), nil, 0o600) })
	cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) { fmt.Println("echo", m.Cmd()[:4]) })
	printEvents()
	poke()
	o := options()
	o.Workers = 1
	if node := os.Getenv("NODE_BINARY"); node != "" {
		o.Exec, o.Args = node, []string{os.Getenv("SCRIPT")}
	}
	clustertest.Must(cluster.SetupMaster(o))
	clustertest.Must(cluster.Run(context.Background()))
})

// giveAway gives the worker all connections at once.
func giveAway(ln net.Listener) {
	var all []net.Conn
	for range handedOver {
		c, err := ln.Accept()
		clustertest.Must(err)
		all = append(all, c)
	}
	awaitStep("send")
	w := cluster.Workers()[0]
	for n, c := range all {
		clustertest.Must(w.SendHandle(numbered{"take", n}, c))
		c.Close()
		for range fillers {
			clustertest.Must(w.Send(numbered{strings.Repeat("x", 1000), n}))
		}
	}
	fmt.Println("sent")
}

// takeHandles writes its number to each connection that comes. The number of a filler is that
// of the connection before it.
func takeHandles() {
	last, filled := -1, fillers
	cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) {
		var v numbered
		clustertest.Must(m.Decode(&v))
		if v.Cmd != "take" {
			if filled++; v.N != last {
				fmt.Println("wrong:", v.N, "after", last)
			}
			return
		}
		if v.N != last+1 || filled != fillers {
			fmt.Println("wrong: connection", v.N, "after", last, "and", filled, "messages")
		}
		last, filled = v.N, 0
		c, err := m.Conn()
		clustertest.Must(err)
		fmt.Fprint(c, v.N)
		c.Close()
	})
}

// given are the clients of those connections, in the order of their numbers.
func given(t *testing.T, address string) (all []net.Conn) {
	t.Helper()
	for range handedOver {
		c, err := net.Dial("tcp", address)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		c.SetReadDeadline(time.Now().Add(clustertest.Patience))
		all = append(all, c)
	}
	return all
}

// pause stops a worker until goOn. The signal is sent before all threads have stopped: one may
// still accept.
func pause(t *testing.T, pid string) (goOn func(syscall.Signal)) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(n, syscall.SIGSTOP))
	clustertest.Eventually(t, func() bool {
		threads, _ := filepath.Glob("/proc/" + pid + "/task/*/stat")
		for _, path := range threads {
			text, _ := os.ReadFile(path)
			if !bytes.Contains(text, []byte(") T ")) {
				return false
			}
		}
		return true
	}, "all threads are stopped")
	return func(sig syscall.Signal) {
		t.Helper()
		require.NoError(t, syscall.Kill(n, sig))
	}
}

// TestHandles: connections go to a worker with messages. During the upgrade some are in the
// channel and some wait for it. All reach the worker afterwards, each with its message.
func TestHandles(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dir, do := steps(t)
	s.deploy("one")
	p := s.start(takers, "STEPS="+dir)
	rests := p.All("give to ", "ready 0 ")
	clients := given(t, rests[0])
	goOn := pause(t, rests[1])
	do("send")
	p.Expect("sent")
	s.deploy("two")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	goOn(syscall.SIGCONT)
	for n, c := range clients {
		text, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(n), string(text))
	}
	p.Terminate()
	require.NotContains(t, p.Output(), "wrong")
	require.NotContains(t, p.Output(), "error")
}

// TestNodeHandle: an upgrade waits until a node worker has acknowledged the handles that are
// on their way to it, since all messages wait behind them.
func TestNodeHandle(t *testing.T) {
	node := clustertest.NodeBinary(t)
	t.Parallel()
	s := newSite(t)
	dir, do := steps(t)
	s.deploy("one")
	p := s.start(takers, "STEPS="+dir, "NODE_BINARY="+node, "SCRIPT="+clustertest.Path("test", "upgrade", "testdata", "worker.js"))
	rests := p.All("give to ", "ready 0 ")
	clients := given(t, rests[0])
	goOn := pause(t, rests[1])
	do("send")
	p.Expect("sent")
	s.deploy("two")
	p.Signal(clustertest.SigPoke)
	clustertest.Eventually(t, func() bool { return exists(dir + "saved") }, "the state of the program")
	goOn(syscall.SIGCONT)
	if outcome := p.Expect("upgraded "); outcome != "<nil>" {
		require.Contains(t, outcome, "a handle that it has not acknowledged") // a slow machine
		require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	}
	for _, c := range clients {
		text, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, "taken", string(text))
		require.NoError(t, c.Close()) // node has closed its half only
	}
	clustertest.Eventually(t, func() bool { return strings.Count(p.Output(), "echo xxxx\n") == fillers*handedOver }, "all messages")
	require.Equal(t, handedOver, strings.Count(p.Output(), "echo take\n"))
	p.Terminate()
	require.NotContains(t, p.Output(), "error")
}

// robin is a master that hands out connections, and tells when its state is taken.
var robin = clustertest.Program("upgrade robin", func() {
	if cluster.IsWorker() {
		serve()
		return
	}
	fmt.Println("main", version)
	cluster.OnUpgrade("step", func() (any, error) { return nil, os.WriteFile(step("saved"), nil, 0o600) })
	printEvents()
	poke()
	o := options()
	o.Scheduling = cluster.RoundRobin
	if os.Getenv("SCHEDULING") == "least" {
		o.Scheduling = cluster.LeastConnections
	}
	clustertest.Must(cluster.SetupMaster(o))
	clustertest.Must(cluster.Run(context.Background()))
})

// TestHandedOver: an upgrade waits until workers have answered for the connections that they
// were handed. When one dies instead, its connection goes to another worker, as ever.
func TestHandedOver(t *testing.T) {
	for _, scheduling := range []string{"robin", "least"} {
		t.Run(scheduling, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			dir, _ := steps(t)
			s.deploy("one")
			p := s.start(robin, "STEPS="+dir, "SCHEDULING="+scheduling)
			rests := p.All("ready 0 ", "ready 1 ", "address ")
			dies, lives := pause(t, rests[0]), pause(t, rests[1])
			was := settled(p.Cmd.Process.Pid)
			var clients []net.Conn
			for range 3 { // the last waits
				clients = append(clients, asking(t, rests[2], "/"))
			}
			clustertest.Eventually(t, func() bool { return descriptors(p.Cmd.Process.Pid) >= was+2 }, "two are handed over")
			s.deploy("two")
			p.Signal(clustertest.SigPoke)
			clustertest.Eventually(t, func() bool { return exists(dir + "saved") }, "the state of the program")
			dies(syscall.SIGKILL)
			lives(syscall.SIGCONT)
			if outcome := p.Expect("upgraded "); outcome != "<nil>" {
				require.Contains(t, outcome, "not within 5s") // a slow machine
				require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
			}
			for _, c := range clients {
				answered(t, c)
			}
			p.Terminate()
		})
	}
}
