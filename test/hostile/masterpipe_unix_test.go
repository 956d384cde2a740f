//go:build unix

package hostile_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// logsOn has one worker, whose output the master copies. It answers a connection when the
// master is gone, after it has logged to both files that lead nowhere by then.
var logsOn = clustertest.Program("logs-on", func() {
	drop := struct{ io.Writer }{io.Discard} // not io.Discard itself, which is no pipe
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 1, Output: func(*cluster.Process) (io.Writer, io.Writer) { return drop, drop }}))
	if cluster.IsMaster() {
		cluster.OnListening(func(_ *cluster.Process, addr net.Addr) { fmt.Println("address", addr) })
		clustertest.Must(cluster.Run(context.Background()))
		return
	}
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	for {
		c, err := ln.Accept()
		clustertest.Must(err)
		go func() {
			defer c.Close()
			fmt.Fprintln(c, "begun")
			<-cluster.Context().Done()
			for range 100 {
				fmt.Println("a line of the log")
				fmt.Fprintln(os.Stderr, "another")
			}
			fmt.Fprintln(c, "done")
		}()
	}
})

// TestLogOfAnOrphan: workers that log outlive the pipes to a master that was killed, and
// finish what is in flight.
func TestLogOfAnOrphan(t *testing.T) {
	t.Parallel()
	p := clustertest.Start(t, logsOn)
	c, err := net.Dial("tcp", p.Expect("address "))
	require.NoError(t, err)
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(clustertest.Patience))
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "begun\n", line)
	p.Signal(syscall.SIGKILL)
	line, err = r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "done\n", line)
}
