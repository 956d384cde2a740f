package hostile_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// hopeless is a master whose workers all crash at once, for ever.
var hopeless = clustertest.Program("hopeless", func() {
	if cluster.IsWorker() {
		os.Exit(1)
	}
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 4, MaxBootFailures: -1}))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := cluster.Run(ctx)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		clustertest.Must(err)
	}
	fmt.Println("cpu", clustertest.CPUUsed())
})

// TestCrashLoopIsCheap: four slots that crash for 20 seconds cost the master
// less than 1 % of one core.
func TestCrashLoopIsCheap(t *testing.T) {
	if !clustertest.Long() {
		t.Skip("takes 20 s: set CLUSTER_LONG=1, as CI does")
	}
	p := clustertest.Start(t, hopeless)
	cpu, err := time.ParseDuration(p.Expect("cpu "))
	require.NoError(t, err)
	require.Less(t, cpu, 200*time.Millisecond)
	require.Zero(t, p.Exit())
}
