package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/admin"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// service is a program with package admin in master and workers.
var service = clustertest.Program("service", func() {
	_, err := admin.Start(admin.Options{Name: os.Getenv("NAME")})
	clustertest.Must(err)
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2}))
	cluster.OnReady(func(w *cluster.Process) { os.Stdout.WriteString(os.Getenv("NAME") + " | worker is ready\n") })
	clustertest.Must(cluster.AutoFork()) // after that: a worker may be ready at once
	clustertest.Must(cluster.ListenAndServe(os.Getenv("LISTEN"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "hello from pid %d\n", os.Getpid())
	})))
})

// testProfiles: a service of somebody's own is seen; its workers' profiles and stacks are
// had by the command.
func testProfiles(c *cli) {
	t := c.t
	p := clustertest.Start(t, service, append(c.env, "NAME="+c.name, "LISTEN="+c.address())...)
	c.ready(p, 2)
	require.Contains(t, c.call().out, c.name)
	file := filepath.Join(c.dir, c.name+".0.heap.pprof")
	require.Equal(t, "go tool pprof "+filepath.Base(file)+"\n", c.ok("pprof", "heap"))
	top, err := exec.Command("go", "tool", "pprof", "-top", file).CombinedOutput()
	require.NoError(t, err, "%s", top)
	require.Contains(t, string(top), "Type: inuse_space")
	require.Regexp(t, `^\{"file":"x","bytes":\d+\}\n$`, c.ok("pprof", "-w", "1", "--seconds", "1", "-o", "x", "-j"))
	require.FileExists(t, filepath.Join(c.dir, "x"))
	require.Equal(t, "\x1f\x8b", c.ok("pprof", "-w", "master", "goroutine", "-o", "-")[:2])
	c.no(exitFailed, "no such profile", "pprof", "bogus")
	c.no(exitFailed, "no worker has that name", "pprof", "-w", "9/../x")
	c.no(exitUsage, "--seconds", "pprof", "--seconds", "0")
	c.no(exitFailed, "no/dir", "pprof", "heap", "-o", filepath.Join(c.dir, "no", "dir"))
	left, err := filepath.Glob(filepath.Join(c.dir, "*pprof*"))
	require.NoError(t, err)
	require.Equal(t, []string{file}, left)

	require.Equal(t, "go tool pprof y\n", c.ok("worker", "1", "pprof", "heap", "-o", "y"))
	require.FileExists(t, filepath.Join(c.dir, "y"))
	require.True(t, strings.HasPrefix(c.ok("worker", "1", "stacks"), "goroutine "))
	metrics := c.ok("worker", "1", "metrics")
	require.Contains(t, metrics, "# TYPE cluster_worker_ready gauge\ncluster_worker_ready{worker=\"1\"} 1\n")
	require.NotContains(t, metrics, `worker="0"`)
	require.NotContains(t, metrics, "cluster_generation")
	c.no(exitFailed, "no metrics of a worker 9", "worker", "9", "metrics")

	stacks := c.ok("stacks")
	for _, s := range []string{"=== master (pid ", "=== worker 0 (pid ", "=== worker 1 (pid ", "goroutine 1 ["} {
		require.Contains(t, stacks, s)
	}
	require.True(t, strings.HasPrefix(c.ok("stacks", "1"), "goroutine "))
	require.True(t, strings.HasPrefix(c.ok("stacks", "master", "-j"), `{"text":"goroutine `))
	c.ok("stop")
	require.Zero(t, p.Exit())
}
