//go:build unix

package cluster_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// The master takes no connection off the kernel's queue while no worker is free,
// and holds no descriptor of one that a worker has.
func TestRoundRobinHoldsLittle(t *testing.T) {
	w := clustertest.SocketWorkers(t, 1, cluster.Options{Scheduling: cluster.RoundRobin})[0]
	held := hold(t, w, "tcp", "127.0.0.1:0")
	before := len(sockets(t, os.Getpid()))
	answers := dialMany(t, 30, "tcp", held.Addr)
	const ends = 30 // the test's own
	require.LessOrEqual(t, len(sockets(t, os.Getpid())), before+ends+2)
	clustertest.Request(t, w, clustertest.SocketOrder{Cmd: "accept", N: held.N}, nil)
	for range 30 {
		require.Equal(t, w.ID(), clustertest.Await(t, answers, "answer"))
	}
	clustertest.Eventually(t, func() bool { return len(sockets(t, os.Getpid())) <= before+ends }, "the master lets go of the connections")
}

// sockets are the descriptors of a process. On Linux, those that are sockets.
func sockets(t *testing.T, pid int) (all []string) {
	t.Helper()
	dir := "/dev/fd"
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, n := range names {
		what, err := os.Readlink(filepath.Join(dir, n.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed meanwhile
		}
		if err != nil || strings.HasPrefix(what, "socket:") {
			all = append(all, n.Name())
		}
	}
	return all
}
