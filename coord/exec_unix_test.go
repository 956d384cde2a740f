//go:build unix

package coord_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// execWorker uses every verb of the package, once.
var execWorker = clustertest.Program("exec-coord", func() {
	ctx := cluster.Context()
	clustertest.Must(coord.Once(ctx, "migration", func(context.Context) error { fmt.Println("migrates"); return nil }))
	unlock, err := coord.Lock(ctx, "lock")
	clustertest.Must(err)
	n, err := coord.Open("store").Incr(ctx, "workers", 1, 0)
	clustertest.Must(err)
	unlock()
	ok, _, err := coord.NewLimiter("limiter", 0.0001, 3).Allow(ctx, "key")
	clustertest.Must(err)
	fmt.Println("counts", n, ok)
	id := cluster.Worker.ID()
	coord.Subscribe("topic", func(who int) { fmt.Println("heard", id, who) })
	coord.Lead("name", func(ctx context.Context) error {
		fmt.Println("leads", id)
		clustertest.Must(coord.Publish("topic", id))
		<-ctx.Done()
		return nil
	})
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	fmt.Println("worker", id, os.Getpid())
	ln.Accept()
})

// TestMasterIsAnotherProgram: the master of workers that use this package need not know
// it: what leads, is locked and is stored is in every master.
func TestMasterIsAnotherProgram(t *testing.T) {
	program := filepath.Join(t.TempDir(), "master")
	out, err := exec.Command("go", "build", "-o", program, "./testdata/master").CombinedOutput()
	require.NoError(t, err, "%s", out)
	deps, err := exec.Command("go", "list", "-deps", "./testdata/master").Output()
	require.NoError(t, err)
	require.NotContains(t, string(deps), "cluster/coord\n")

	manager := clustertest.NewManager(t)
	p := clustertest.StartCmd(t, exec.Command(program, os.Args[0]), execWorker, manager.Env)
	got := p.All("counts 1 true", "counts 2 true", "counts 3 true", "worker 1 ", "worker 2 ", "worker 3 ", "leads ", "heard ")
	manager.InRun()
	leader := clustertest.Atoi(got[6])
	require.True(t, strings.HasSuffix(got[7], fmt.Sprint(" ", leader)), got[7])
	clustertest.Kill(t, clustertest.Atoi(strings.Fields(got[2+leader])[0]), syscall.SIGKILL)
	p.All(fmt.Sprint("dead ", leader), "leads ", "counts 4 false")
	p.Terminate()
	require.Equal(t, 1, strings.Count(p.Output(), "migrates\n"), "once for all")
}
