//go:build unix

package cluster_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// TestOptionsCredential: workers run as the user and with the groups that are
// named, and with no other group; without the privilege Fork says so.
func TestOptionsCredential(t *testing.T) {
	withMaster(t, obedient, cluster.Options{Credential: &cluster.Credential{UID: 65534, GID: 65533, Groups: []uint32{65532}}, Dir: "/"})
	w, err := cluster.Fork()
	if os.Getuid() != 0 {
		require.ErrorIs(t, err, syscall.EPERM)
		return
	}
	require.NoError(t, err)
	self := ask[about](t, w, order{Cmd: "about"})
	require.Equal(t, []int{65534, 65533}, []int{self.UID, self.GID})
	require.Subset(t, []int{65532, 65533}, self.Groups)
	// The sockets are the master's to open, and it can still end the worker.
	ask[string](t, w, order{Cmd: "listen"})
	require.NoError(t, w.Disconnect(within(t, patience)))

	o := cluster.Settings()
	o.Credential = &cluster.Credential{UID: 65534, GID: 65533}
	require.NoError(t, cluster.SetupMaster(o))
	self = ask[about](t, forkOne(t), order{Cmd: "about"})
	require.Subset(t, []int{65533}, self.Groups, "the master's supplementary groups are dropped")
}

// TestOutputHeldByGrandchild: a grandchild that keeps the pipe open does not
// delay the worker's death for as long as it lives, and what it writes later
// is still copied.
func TestOutputHeldByGrandchild(t *testing.T) {
	out := newLineWriter()
	withMaster(t, obedient, cluster.Options{Output: out.both})
	dead := deaths(t)
	w := forkOne(t)
	hold := filepath.Join(tempDir(t), "hold")
	require.NoError(t, syscall.Mkfifo(hold, 0o600))
	ask[int](t, w, order{Cmd: "child", Text: "echo begin; read line <" + hold + "; echo $line"})
	require.Equal(t, "begin", await(t, out.c, "output of the grandchild"))
	require.NoError(t, w.Disconnect(within(t, patience)))
	await(t, dead, "death")
	require.NoError(t, os.WriteFile(hold, []byte("later\n"), 0))
	require.Equal(t, "later", await(t, out.c, "output after the worker's death"))
}
