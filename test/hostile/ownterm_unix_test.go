//go:build unix

package hostile_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// ownTerm has one worker, which handles SIGTERM itself and closes its listener at once.
var ownTerm = clustertest.Program("own-term", func() {
	if cluster.IsMaster() {
		clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 1, Backoff: cluster.Backoff{Max: time.Millisecond}}))
		clustertest.Must(cluster.Run(context.Background()))
		return
	}
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() {
		<-term
		ln.Close()
	}()
	fmt.Println("worker", os.Getpid(), ln.Addr())
	clustertest.AnswerConns(ln)
	<-cluster.Context().Done()
	select {}
})

// TestOwnTerm: what a worker closes because of a SIGTERM, its successor listens on, also
// if the program has heard of the signal before the package has.
func TestOwnTerm(t *testing.T) {
	t.Parallel()
	manager := clustertest.NewManager(t)
	p := clustertest.Start(t, ownTerm, manager.Env)
	first := ""
	for range 8 {
		pid, address, _ := strings.Cut(p.Expect("worker "), " ")
		if first == "" {
			first = address
			manager.InRun()
		}
		require.Equal(t, first, address, "the address goes on")
		clustertest.Kill(t, clustertest.Atoi(pid), syscall.SIGTERM)
		c, err := net.Dial("tcp", address)
		require.NoError(t, err)
		c.Close()
	}
	p.Expect("worker ")
	p.Terminate()
}
