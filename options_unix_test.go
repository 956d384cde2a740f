//go:build unix

package cluster_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestOptionsCredential: workers run as the user and with the groups that are
// named, and with no other group; without the privilege Fork says so.
func TestOptionsCredential(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Credential: &cluster.Credential{UID: 65534, GID: 65533, Groups: []uint32{65532}}, Dir: "/"})
	w, err := cluster.Fork()
	if os.Getuid() != 0 {
		require.ErrorIs(t, err, syscall.EPERM)
		return
	}
	require.NoError(t, err)
	self := clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about"})
	require.Equal(t, []int{65534, 65533}, []int{self.UID, self.GID})
	require.Subset(t, []int{65532, 65533}, self.Groups)
	// The sockets are the master's to open, and it can still end the worker.
	clustertest.Ask[string](t, w, clustertest.Order{Cmd: "listen"})
	require.NoError(t, w.Disconnect(clustertest.Within(t, clustertest.Patience)))

	o := cluster.Settings()
	o.Credential = &cluster.Credential{UID: 65534, GID: 65533}
	require.NoError(t, cluster.SetupMaster(o))
	self = clustertest.Ask[clustertest.About](t, clustertest.Fork(t), clustertest.Order{Cmd: "about"})
	require.Subset(t, []int{65533}, self.Groups, "the master's supplementary groups are dropped")
}

// TestOutputHeldByGrandchild: a grandchild that keeps the pipe open does not
// delay the worker's death for as long as it lives, and what it writes later
// is still copied.
func TestOutputHeldByGrandchild(t *testing.T) {
	out := clustertest.NewLineWriter()
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Output: out.Both})
	dead := clustertest.Deaths(t)
	w := clustertest.Fork(t)
	hold := filepath.Join(clustertest.TempDir(t), "hold")
	require.NoError(t, syscall.Mkfifo(hold, 0o600))
	clustertest.Ask[int](t, w, clustertest.Order{Cmd: "child", Text: "echo begin; read line <" + hold + "; echo $line"})
	require.Equal(t, "begin", clustertest.Await(t, out.Lines, "output of the grandchild"))
	require.NoError(t, w.Disconnect(clustertest.Within(t, clustertest.Patience)))
	clustertest.Await(t, dead, "death")
	require.NoError(t, os.WriteFile(hold, []byte("later\n"), 0))
	require.Equal(t, "later", clustertest.Await(t, out.Lines, "output after the worker's death"))
}
