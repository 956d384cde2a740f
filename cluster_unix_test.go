//go:build unix

package cluster_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// versionMaster is a master that prints, for each worker, the pid and the file
// that it runs; its workers are the program of the environment.
var versionMaster = clustertest.Program("version-master", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 1, Env: []string{clustertest.ProgramEnv + "=" + clustertest.CommandWorker}}))
	cluster.OnOnline(func(w *cluster.Process) {
		var a clustertest.About
		clustertest.Must(w.Request(context.Background(), clustertest.Order{Cmd: "about"}, &a))
		fmt.Println("worker", w.PID(), a.Slot)
	})
	cluster.OnError(func(_ *cluster.Process, err error) { fmt.Println("error", err) })
	clustertest.Must(cluster.Run(context.Background()))
})

// TestRespawnRunsTheMastersBinary: after another program was put in the place
// of the binary, or nothing, a crashed worker is still replaced by the version
// that the master runs.
func TestRespawnRunsTheMastersBinary(t *testing.T) {
	t.Parallel()
	other, err := exec.LookPath("false")
	require.NoError(t, err)
	binary := filepath.Join(clustertest.TempDir(t), "server")
	clustertest.CopyBinary(t, binary)
	p := clustertest.StartCmd(t, exec.Command(binary), versionMaster)
	pid := func() (pid int) {
		_, err := fmt.Sscan(p.Expect("worker"), &pid, new(int))
		require.NoError(t, err)
		return pid
	}
	first := pid()
	require.NoError(t, os.Remove(binary))
	require.NoError(t, os.Symlink(other, binary))
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	second := pid()
	require.NotEqual(t, first, second)
	require.NoError(t, os.Remove(binary))
	require.NoError(t, syscall.Kill(second, syscall.SIGKILL))
	require.NotEqual(t, second, pid())
	p.Signal(syscall.SIGTERM)
	require.Zero(t, p.Exit())
	p.GroupEmpty()
	require.NotContains(t, p.Output(), "error")
}
