package cluster_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// leakyMaster opens descriptors as a C library does, before it forks; it may
// have inherited some too. It prints what its workers have open: of AutoFork,
// of a plain Fork, and one that replaced another.
var leakyMaster = program("leaky-master", func() {
	var fds [2]int
	die(syscall.Pipe(fds[:]))
	_, err := syscall.Open("/dev/null", syscall.O_RDWR, 0)
	die(err)
	_, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	die(err)
	fmt.Println("master has", len(descriptors()))
	die(cluster.SetupMaster(cluster.Options{
		Workers: 2, Env: []string{programEnv + "=" + obedient},
		Output: func(*cluster.Process) (stdout, stderr io.Writer) { return os.Stdout, &strings.Builder{} },
	}))
	online := make(chan *cluster.Process, 10)
	cluster.OnOnline(func(w *cluster.Process) { online <- w })
	show := func() {
		var a about
		w := <-online
		die(w.Request(context.Background(), order{Cmd: "about"}, &a))
		fmt.Printf("worker has %d: %q\n", len(a.Descriptors), a.Descriptors)
	}
	die(cluster.AutoFork())
	show()
	show()
	die(cluster.Workers()[0].OSProcess().Kill())
	show()
	_, err = cluster.Fork()
	die(err)
	show()
	die(cluster.Disconnect(context.Background()))
})

// TestWorkerInheritsOnlyItsChannel: whatever the master was started with or has
// opened without close-on-exec, a worker has its stdio and its channel.
func TestWorkerInheritsOnlyItsChannel(t *testing.T) {
	t.Parallel()
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), programEnv+"="+leakyMaster)
	c.ExtraFiles = []*os.File{null, nil, null, null, nil, null}
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	var has int
	_, err = fmt.Sscanf(string(out), "master has %d", &has)
	require.NoError(t, err)
	require.GreaterOrEqual(t, has, 8, "inherited and opened: the test needs something to leak")
	require.Equal(t, 4, strings.Count(string(out), "worker has 1: [\"3 "), "%s", out)
}
