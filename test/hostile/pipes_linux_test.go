package hostile_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// unblocker does to its standard output what node does.
var unblocker = clustertest.Program("unblocker", func() {
	clustertest.Must(unix.SetNonblock(1, true))
})

// TestPipesOfNode: a process that node started, as a worker or by
// child_process.fork, has open files of its own of the pipes that it shares with
// node: what the one does to them is not the other's trouble.
func TestPipesOfNode(t *testing.T) {
	for name, env := range map[string]string{"worker": "NODE_UNIQUE_ID=1", "child": "NODE_CHANNEL_SERIALIZATION_MODE=json"} {
		t.Run(name, func(t *testing.T) {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
			defer ours.Close()
			r, w, err := os.Pipe()
			require.NoError(t, err)
			defer r.Close()
			defer w.Close()
			fd := w.Fd() // which makes it blocking
			c := exec.Command(os.Args[0])
			c.Env = append(os.Environ(), clustertest.ProgramEnv+"="+unblocker, "NODE_CHANNEL_FD=3", env)
			c.ExtraFiles, c.Stdout = []*os.File{theirs}, w
			require.NoError(t, c.Start())
			theirs.Close()
			require.NoError(t, c.Wait())
			flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
			require.NoError(t, err)
			require.Zero(t, flags&unix.O_NONBLOCK)
		})
	}
}
