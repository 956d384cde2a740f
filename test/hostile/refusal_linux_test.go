package hostile_test

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
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// overAsked is a master whose lone worker takes one connection and no further
// one. On SIGUSR1 it tells what the next seconds cost it.
var overAsked = clustertest.Program("over-asked", func() {
	o := cluster.Options{Workers: 1, Scheduling: cluster.RoundRobin, Env: []string{clustertest.ProgramEnv + "=" + takesOne}}
	if exec := os.Getenv("EXEC"); exec != "" {
		o.Exec, o.Args = exec, []string{os.Getenv("SCRIPT")}
	}
	clustertest.Must(cluster.SetupMaster(o))
	cluster.OnListening(func(_ *cluster.Process, a net.Addr) { fmt.Println("listening", a) })
	measure := make(chan os.Signal, 1)
	signal.Notify(measure, syscall.SIGUSR1)
	go func() {
		<-measure
		before, begun := clustertest.CPUUsed(), time.Now()
		time.Sleep(overAskedFor)
		fmt.Println("took", time.Since(begun)) // longer, where this process gets no turn
		fmt.Println("cpu", clustertest.CPUUsed()-before)
	}()
	clustertest.Must(cluster.Run(context.Background()))
})

const overAskedFor = 3 * time.Second

// takesOne is a Go worker that is at its limit with one connection: it accepts
// no other.
var takesOne = clustertest.Program("takes-one", func() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	c, err := ln.Accept()
	clustertest.Must(err)
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
				env = []string{"EXEC=" + clustertest.NodeBinary(t), "SCRIPT=" + clustertest.NodeScript(t, "one.js")}
			}
			p := clustertest.Start(t, overAsked, env...)
			address := p.Expect("listening")
			for i := range 50 {
				c, err := net.Dial("tcp", address)
				require.NoError(t, err)
				defer c.Close()
				if i == 0 { // it is the worker's; the others wait
					c.SetReadDeadline(time.Now().Add(clustertest.Patience))
					_, err := c.Read(make([]byte, 1))
					require.NoError(t, err)
				}
			}
			p.Signal(syscall.SIGUSR1)
			took, err := time.ParseDuration(p.Expect("took"))
			require.NoError(t, err)
			cpu, err := time.ParseDuration(p.Expect("cpu"))
			require.NoError(t, err)
			require.Less(t, cpu, took*3/100, "3 %% of a core")
			p.Signal(syscall.SIGKILL)
			p.Exit()
			p.GroupEmpty()
		})
	}
}
