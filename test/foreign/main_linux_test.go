// Package foreign_test has the tests of workers that are no programs of package
// cluster: a program of this directory that is built for them, and shells.
package foreign_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// bin is where the guest is.
var bin string

func TestMain(m *testing.M) {
	if os.Getenv(clustertest.ProgramEnv) == "" { // else it is a program of the test's
		dir, err := os.MkdirTemp("", "cluster-foreign")
		clustertest.Must(err)
		bin = dir
		os.Setenv("CLUSTER_TEST_BIN", dir)
		clustertest.Must(build("guest", "1"))
		clustertest.Must(build("newer", "2"))
		defer os.RemoveAll(dir)
	}
	bin = os.Getenv("CLUSTER_TEST_BIN")
	clustertest.Main(m)
}

func build(name, version string) error {
	out, err := exec.Command("go", "build", "-o", filepath.Join(bin, name), "-ldflags=-X main.version="+version, "./testdata/guest").CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// guest are the options for workers that are the guest.
func guest(args ...string) cluster.Options {
	return cluster.Options{
		Exec: filepath.Join(bin, "guest"), Args: append([]string{}, args...), Foreign: true, Workers: 1,
		Sockets: []cluster.Socket{{Network: "tcp", Address: "127.0.0.1:0", Name: "web"}},
		Output:  silent, ReadyAfter: 100 * time.Millisecond,
	}
}

// address is where the cluster listens.
func address(t *testing.T) string {
	t.Helper()
	listeners := cluster.Stats().Listeners
	require.NotEmpty(t, listeners)
	return listeners[0].Address
}

// ask asks a worker of this process's, whichever answers.
func ask[A any](t *testing.T, path string, query ...string) (answer A) {
	t.Helper()
	values := url.Values{}
	for i := 0; i < len(query); i += 2 {
		values.Set(query[i], query[i+1])
	}
	text, err := clustertest.Get("http://" + address(t) + path + "?" + values.Encode())
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(text), &answer))
	return answer
}

// until waits for a state of the worker's.
func until(t *testing.T, w *cluster.Process, s cluster.State) {
	t.Helper()
	clustertest.Eventually(t, func() bool { return w.State() >= s }, "state "+s.String())
	require.Equal(t, s, w.State())
}

// only is the one worker there is, once it is ready.
func only(t *testing.T) *cluster.Process {
	t.Helper()
	workers := cluster.Workers()
	require.Len(t, workers, 1)
	until(t, workers[0], cluster.Ready)
	return workers[0]
}

// deaths are the ends of workers from now on.
func deaths(t *testing.T) chan cluster.Exit {
	ends := make(chan cluster.Exit, 1000)
	t.Cleanup(cluster.OnDeath(func(_ *cluster.Process, e cluster.Exit) { ends <- e }))
	return ends
}
