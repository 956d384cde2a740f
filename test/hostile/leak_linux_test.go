package hostile_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// leakyMaster opens descriptors as a C library does, before it forks; it may
// have inherited some too. It prints what its workers have open: of AutoFork,
// of a plain Fork, and one that replaced another.
var leakyMaster = clustertest.Program("leaky-master", func() {
	var fds [2]int
	clustertest.Must(syscall.Pipe(fds[:]))
	_, err := syscall.Open("/dev/null", syscall.O_RDWR, 0)
	clustertest.Must(err)
	_, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	clustertest.Must(err)
	fmt.Println("master has", len(clustertest.Descriptors()))
	clustertest.Must(cluster.SetupMaster(cluster.Options{
		Workers: 2, Env: []string{clustertest.ProgramEnv + "=" + clustertest.CommandWorker},
		Output: func(*cluster.Process) (stdout, stderr io.Writer) { return os.Stdout, &strings.Builder{} },
	}))
	online := make(chan *cluster.Process, 10)
	cluster.OnOnline(func(w *cluster.Process) { online <- w })
	show := func() {
		var a clustertest.About
		w := <-online
		clustertest.Must(w.Request(context.Background(), clustertest.Order{Cmd: "about"}, &a))
		fmt.Printf("worker has %d: %q\n", len(a.Descriptors), a.Descriptors)
	}
	clustertest.Must(cluster.AutoFork())
	show()
	show()
	clustertest.Must(cluster.Workers()[0].OSProcess().Kill())
	show()
	_, err = cluster.Fork()
	clustertest.Must(err)
	show()
	clustertest.Must(cluster.Disconnect(context.Background()))
})

// TestWorkerInheritsOnlyItsChannel: whatever the master was started with or has
// opened without close-on-exec, a worker has its stdio and its channel.
func TestWorkerInheritsOnlyItsChannel(t *testing.T) {
	t.Parallel()
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), clustertest.ProgramEnv+"="+leakyMaster)
	c.ExtraFiles = []*os.File{null, nil, null, null, nil, null}
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	var has int
	_, err = fmt.Sscanf(string(out), "master has %d", &has)
	require.NoError(t, err)
	require.GreaterOrEqual(t, has, 8, "inherited and opened: the test needs something to leak")
	require.Equal(t, 4, strings.Count(string(out), "worker has 1: [\"3 "), "%s", out)
}

// zoned is a master that asks for the local time only after it has forked, when the
// file of its zone is gone.
var zoned = clustertest.Program("zoned", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Env: []string{clustertest.ProgramEnv + "=" + clustertest.CommandWorker}}))
	_, err := cluster.Fork()
	clustertest.Must(err)
	clustertest.Must(os.Remove(os.Getenv("TZ")))
	zone, _ := time.Now().Zone()
	clustertest.Must(cluster.Disconnect(context.Background()))
	fmt.Println("zone", zone)
})

// TestZoneIsRead: the file of the local time zone, which package time opens without
// close-on-exec, is read before the first fork. No worker can inherit it.
func TestZoneIsRead(t *testing.T) {
	t.Parallel()
	// One zone without transitions: six counts, its offset, no daylight saving, its name.
	zone := "TZif" + strings.Repeat("\x00", 16+4*4) + "\x00\x00\x00\x01" + "\x00\x00\x00\x04" + strings.Repeat("\x00", 6) + "ABC\x00"
	path := t.TempDir() + "/zone"
	require.NoError(t, os.WriteFile(path, []byte(zone), 0o600))
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), clustertest.ProgramEnv+"="+zoned, "TZ="+path)
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "zone ABC\n", string(out))
}
