package foreign_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// Programs of others, each with two workers that are reloaded while they are asked.

// TestExampleGo: the program of examples/foreign, which says when it is ready.
func TestExampleGo(t *testing.T) {
	program := filepath.Join(t.TempDir(), "server")
	out, err := exec.Command("go", "build", "-o", program, clustertest.Path("examples", "foreign")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	o := guest()
	o.Exec, o.ManualReady = program, true
	loseNothing(t, o, func(int) {})
}

// TestExamplePython: the script of examples/foreign. By that time it has begun to serve,
// or the connections wait.
func TestExamplePython(t *testing.T) {
	needs(t, "python3")
	o := guest()
	o.Exec = clustertest.Path("examples", "foreign", "server.py")
	o.ReadyAfter = 0
	loseNothing(t, o, func(int) {})
}

// TestGunicorn: it is a master with workers itself, and says when it is ready. That
// is before its worker handles signals: a SIGTERM in between is lost, and gunicorn
// waits for that worker until its graceful timeout. So this waits for the workers.
func TestGunicorn(t *testing.T) {
	booted := t.TempDir()
	t.Setenv("BOOTED", booted)
	data := clustertest.Path("test", "foreign", "testdata")
	o := guest("--chdir", data, "--config", filepath.Join(data, "gunicorn.conf.py"), "wsgi:app")
	o.Exec, o.ManualReady = needs(t, "gunicorn"), true
	loseNothing(t, o, func(workers int) {
		clustertest.Eventually(t, func() bool {
			files, err := os.ReadDir(booted)
			return err == nil && len(files) >= workers // more, if it has replaced one that was slow
		}, "gunicorn's workers")
	})
}

func needs(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		require.Empty(t, os.Getenv("CI"), "no %s, which CI has to install", program)
		t.Skipf("no %s here", program)
	}
	return path
}

// loseNothing reloads two workers while they are asked, and stops them. It calls
// booted before each of the two, with the number of workers that have begun until then.
func loseNothing(t *testing.T, o cluster.Options, booted func(workers int)) {
	o.Workers = 2
	clustertest.WithMaster(t, "none", o)
	require.NoError(t, cluster.AutoFork())
	for _, w := range cluster.Workers() {
		until(t, w, cluster.Ready)
	}
	var before []int
	for _, w := range cluster.Workers() {
		before = append(before, w.PID())
	}
	booted(2)
	at := "http://" + address(t)
	var failed atomic.Value
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if text, err := clustertest.Get(at); err != nil {
				failed.Store(err.Error())
			} else if !greeting.MatchString(text) {
				failed.Store(text)
			}
		}
	}()
	require.NoError(t, cluster.Reload(clustertest.Within(t, 2*clustertest.Patience)))
	close(stop)
	<-stopped
	require.Nil(t, failed.Load())
	workers := cluster.Workers()
	require.Len(t, workers, 2)
	for _, w := range workers {
		require.Equal(t, cluster.Ready, w.State())
		require.NotContains(t, before, w.PID())
	}
	for _, pid := range before {
		require.NoDirExists(t, "/proc/"+strconv.Itoa(pid))
	}
	booted(4)
	require.NoError(t, cluster.Disconnect(clustertest.Within(t, clustertest.Patience)))
	http.DefaultClient.CloseIdleConnections()
}

var greeting = regexp.MustCompile(`^hello from pid \d+\n$`)

// TestDocs: the code of docs/run.md runs.
func TestDocs(t *testing.T) {
	needs(t, "gunicorn")
	b := clustertest.BuildBlocks(t, "docs/run.md", clustertest.Frame{In: "gunicorn"})
	dir := t.TempDir()
	app, err := os.ReadFile("testdata/wsgi.py")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "app.py"), app, 0o600))
	address := "127.0.0.1:" + strconv.Itoa(clustertest.FreePort(t))
	// One of them: where two share the address, an answer would not say that both are there.
	p := b.Start(t, "gunicorn", address, "PYTHONPATH="+dir, "GOMAXPROCS=1")
	clustertest.Eventually(t, func() bool {
		text, err := clustertest.Get("http://" + address)
		return err == nil && greeting.MatchString(text)
	}, "an answer")
	p.Terminate()
}
