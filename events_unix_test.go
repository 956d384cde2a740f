//go:build unix

package cluster_test

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// holder gives its channel to a child that never ends, talks, and ends itself.
var holder = clustertest.Program("holder", func() {
	fd, err := syscall.Dup(3)
	clustertest.Must(err)
	c := exec.Command("/bin/sleep", "1000")
	c.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "channel")}
	clustertest.Must(c.Start())
	cluster.Worker.Send(c.Process.Pid)
	for i := range chatter {
		cluster.Worker.Send(i)
	}
	cluster.Worker.Disconnect(context.Background())
})

// TestDeathComesAfterTheMessages: even if a grandchild holds the channel open,
// a worker's death is reported, and after all that it said.
func TestDeathComesAfterTheMessages(t *testing.T) {
	clustertest.WithMaster(t, holder, cluster.Options{})
	rec := clustertest.NewRecorder()
	t.Cleanup(cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) { rec.Add("%s", m) }))
	t.Cleanup(cluster.OnDisconnect(func(*cluster.Process) { rec.Add("disconnect") }))
	t.Cleanup(cluster.OnDeath(func(_ *cluster.Process, e cluster.Exit) { rec.Add("death %d %v", e.Code, e.Voluntary) }))
	clustertest.Fork(t)
	rec.Until(t, "death")
	lines := rec.All()
	require.NoError(t, syscall.Kill(clustertest.Atoi(lines[0]), syscall.SIGKILL), "the grandchild lives")
	var want []string
	for i := range chatter {
		want = append(want, strconv.Itoa(i))
	}
	require.Equal(t, append(want, "disconnect", "death 0 true"), lines[1:])
}
