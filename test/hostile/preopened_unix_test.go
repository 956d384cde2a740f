//go:build unix

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

// preopens listens before it forks, and keeps that listener. Its drain does not end.
var preopens = clustertest.Program("preopens", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2, ShutdownTimeout: time.Hour}))
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	if cluster.IsMaster() {
		fmt.Println("address", ln.Addr())
	}
	clustertest.Must(cluster.AutoFork())
	if cluster.IsMaster() {
		ends := make(chan os.Signal, 1)
		signal.Notify(ends, syscall.SIGUSR1)
		go func() {
			<-ends
			cluster.Disconnect(context.Background())
		}()
		clustertest.Must(cluster.Run(context.Background()))
		return
	}
	cluster.OnShutdown(func(context.Context) error { select {} })
	fmt.Println("worker")
	clustertest.AnswerConns(ln)
})

// TestStopRefusesPreopened: clients are refused once a stop has begun, by a signal or by the
// program, also at a listener that the program itself opened before it forked and still has.
func TestStopRefusesPreopened(t *testing.T) {
	t.Parallel()
	for name, sig := range map[string]syscall.Signal{"signal": syscall.SIGTERM, "Disconnect": syscall.SIGUSR1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := clustertest.Start(t, preopens)
			got := p.All("address ", "worker", "worker")
			dial := func() error {
				c, err := net.Dial("tcp", got[0])
				if err == nil {
					c.Close()
				}
				return err
			}
			require.NoError(t, dial())
			p.Signal(sig)
			clustertest.Eventually(t, func() bool { return dial() != nil }, "refused")
		})
	}
}
