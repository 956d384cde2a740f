//go:build unix

package fleet

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// BenchmarkLeadHandover measures how long nobody leads when the member that leads is
// killed, against the term of the lease.
func BenchmarkLeadHandover(b *testing.B) {
	f := benchFleet(b)
	file := filepath.Join(clustertest.TempDir(b), "witness")
	size := func() int64 {
		info, err := os.Stat(file)
		require.NoError(b, err)
		return info.Size()
	}
	var took time.Duration
	for range b.N {
		require.NoError(b, os.WriteFile(file, nil, 0o600))
		p := clustertest.Start(b, contestant, "URL="+f.server.address, "NAME=bench", "NODE=victim", "WITNESS="+file, "PRODUCTION=1")
		for size() == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		leads := make(chan time.Time, 1)
		stop := f.Lead("job", func(ctx context.Context) error {
			leads <- time.Now()
			<-ctx.Done()
			return nil
		})
		time.Sleep(2 * time.Second) // it waits for the lease now
		begin := time.Now()
		require.NoError(b, syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGKILL))
		took = max(took, (<-leads).Sub(begin))
		stop()
	}
	b.ReportMetric(took.Seconds(), "longest-s")
	b.ReportMetric(production.lease.term.Seconds(), "lease-s")
	b.ReportMetric(0, "ns/op")
}
