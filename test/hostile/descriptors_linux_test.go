package hostile_test

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// hoards is a master that may have few descriptors, with a worker that sends it more
// than those. Nobody takes them.
var hoards = clustertest.Program("hoards", func() {
	if cluster.IsMaster() {
		few := syscall.Rlimit{Cur: 128, Max: 1024} // a worker has all 1024: it keeps what it has not sent yet
		clustertest.Must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few))
		cluster.OnError(func(_ *cluster.Process, err error) { fmt.Println("error", err) })
		clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2}))
		clustertest.Must(cluster.Run(context.Background()))
		return
	}
	fmt.Println("up", cluster.Worker.Slot(), os.Getpid())
	if cluster.Worker.Slot() == 0 {
		f, err := os.Open(os.DevNull)
		clustertest.Must(err)
		for range 200 {
			clustertest.Must(cluster.Worker.SendHandle("take it", f))
		}
		clustertest.Must(cluster.Worker.SendContext(context.Background(), "all"))
		fmt.Println("sent")
	}
	<-cluster.Context().Done()
	select {}
})

// TestHandlesLeaveDescriptors: whatever a worker sends, another one that has died can be
// replaced.
func TestHandlesLeaveDescriptors(t *testing.T) {
	t.Parallel()
	manager := clustertest.NewManager(t)
	p := clustertest.Start(t, hoards, manager.Env)
	got := p.All("up 1 ", "sent")
	manager.InRun()
	clustertest.Kill(t, clustertest.Atoi(got[0]), syscall.SIGKILL)
	p.Expect("up 1 ")
	p.Terminate()
	require.Contains(t, p.Output(), "a message lost its handle: the other descriptors of the master are kept for new workers")
}
