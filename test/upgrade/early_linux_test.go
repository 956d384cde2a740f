package upgrade_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// journal writes a line to the file that all processes of the cluster share, the check of
// an upgrade too.
func journal(line ...any) {
	f, err := os.OpenFile(os.Getenv("JOURNAL"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	clustertest.Must(err)
	defer f.Close()
	_, err = fmt.Fprintln(f, line...)
	clustertest.Must(err)
}

// early is a master that does before AutoFork whatever it can.
var early = clustertest.Program("upgrade early", func() {
	leads := func(ctx context.Context) error {
		journal("leads", os.Getpid())
		<-ctx.Done()
		return nil
	}
	ctx := context.Background()
	if cluster.IsWorker() {
		coord.Lead("job", leads)
		go func() {
			for {
				clustertest.Must(coord.Publish("news", "from a worker"))
				time.Sleep(pace)
			}
		}()
		coord.Subscribe("early", func(text string) { fmt.Println("worker", text) })
		serve()
		return
	}
	was, err := cluster.Upgraded("", nil)
	clustertest.Must(err)
	fmt.Println("main", version)
	printEvents()
	clustertest.Must(coord.Once(ctx, "migrate", func(context.Context) error { journal("migrates"); return nil }))
	coord.Subscribe("news", func(string) { fmt.Println("heard") })
	n, err := coord.Open("starts").Incr(ctx, "master", 1, 0)
	clustertest.Must(err)
	fmt.Println("starts", n)
	_, _, err = coord.NewLimiter("of "+version, 1, 1).Allow(ctx, "key")
	clustertest.Must(err)
	if was || cluster.Checking() {
		coord.Lead("job", leads)
		coord.Lead("of the master", leads)
		clustertest.Must(coord.Publish("early", "hears "+version))
	}
	poke()
	clustertest.Must(cluster.SetupMaster(options()))
	if version == "scales" {
		clustertest.Must(cluster.Scale(3))
	}
	clustertest.Must(cluster.Run(ctx))
})

// TestEarly: what main calls before AutoFork sees, in the program that comes, the cluster
// that there is: nothing runs twice that is to run once, nothing is deaf and nothing lost.
func TestEarly(t *testing.T) {
	s := newSite(t)
	file := s.path + ".journal"
	p, _ := s.begin(early, "JOURNAL="+file)
	text := func() string {
		b, _ := os.ReadFile(file)
		return string(b)
	}
	clustertest.Eventually(t, func() bool { return strings.Contains(text(), "leads") }, "a worker leads")
	was := text()
	s.deploy("two")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	printed(t, p, "heard")
	require.Equal(t, "2", printed(t, p, "starts "))
	clustertest.Eventually(t, func() bool { return strings.Count(p.Output(), "worker hears two\n") == 2 }, "both hear it")
	s.deploy("scales")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	printed(t, p, "ready 2 ")
	require.Equal(t, "3", printed(t, p, "starts "))
	require.Equal(t, was, text(), "nothing else has led or migrated")
	p.Terminate()
	require.NotContains(t, p.Output(), "error")
}
