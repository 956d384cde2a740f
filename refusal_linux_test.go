package cluster_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// cpuUsed is what this process has used of it so far.
func cpuUsed() time.Duration {
	var used syscall.Rusage
	die(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// overAsked is a master whose lone worker takes one connection and no further
// one. On SIGUSR1 it tells what the next seconds cost it.
var overAsked = program("over-asked", func() {
	o := cluster.Options{Workers: 1, Scheduling: cluster.RoundRobin, Env: []string{programEnv + "=" + takesOne}}
	if exec := os.Getenv("EXEC"); exec != "" {
		o.Exec, o.Args = exec, []string{os.Getenv("SCRIPT")}
	}
	die(cluster.SetupMaster(o))
	cluster.OnListening(func(_ *cluster.Process, a net.Addr) { fmt.Println("listening", a) })
	measure := make(chan os.Signal, 1)
	signal.Notify(measure, syscall.SIGUSR1)
	go func() {
		<-measure
		before := cpuUsed()
		time.Sleep(overAskedFor)
		fmt.Println("cpu", cpuUsed()-before)
	}()
	die(cluster.Run(context.Background()))
})

const overAskedFor = 3 * time.Second

// takesOne is a Go worker that is at its limit with one connection: it accepts
// no other.
var takesOne = program("takes-one", func() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	die(err)
	c, err := ln.Accept()
	die(err)
	c.Write([]byte("x"))
	<-cluster.Context().Done()
})

// TestRefusalIsCheap: connections that wait for a lone worker at its limit cost
// the master next to nothing under RoundRobin, whether the worker leaves the one
// that it is offered alone, as a Go worker does, or refuses it again and again,
// as node does past its maxConnections.
func TestRefusalIsCheap(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"Go", "node"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var env []string
			if kind == "node" {
				env = []string{"EXEC=" + nodeBinary(t), "SCRIPT=" + nodeScript(t, "one.js")}
			}
			p := start(t, overAsked, env...)
			address := p.expect("listening")
			for i := range 50 {
				c, err := net.Dial("tcp", address)
				require.NoError(t, err)
				defer c.Close()
				if i == 0 { // it is the worker's; the others wait
					c.SetReadDeadline(time.Now().Add(patience))
					_, err := c.Read(make([]byte, 1))
					require.NoError(t, err)
				}
			}
			p.signal(syscall.SIGUSR1)
			cpu, err := time.ParseDuration(p.expect("cpu"))
			require.NoError(t, err)
			require.Less(t, cpu, overAskedFor*3/100, "3 %% of a core")
			p.signal(syscall.SIGKILL)
			p.exit()
			p.groupEmpty()
		})
	}
}
