package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// hopeless is a master whose workers all crash at once, for ever.
var hopeless = program("hopeless", func() {
	if cluster.IsWorker() {
		os.Exit(1)
	}
	die(cluster.SetupMaster(cluster.Options{Workers: 4, MaxBootFailures: -1}))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := cluster.Run(ctx)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		die(err)
	}
	fmt.Println("cpu", cpuUsed())
})

// TestCrashLoopIsCheap: four slots that crash for 20 seconds cost the master
// less than 1 % of one core.
func TestCrashLoopIsCheap(t *testing.T) {
	if !long() {
		t.Skip("takes 20 s: set CLUSTER_LONG=1, as CI does")
	}
	p := start(t, hopeless)
	cpu, err := time.ParseDuration(p.expect("cpu "))
	require.NoError(t, err)
	require.Less(t, cpu, 200*time.Millisecond)
	require.Zero(t, p.exit())
}
