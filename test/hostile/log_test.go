package hostile_test

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

var logWorker = clustertest.Program("log worker", func() { <-cluster.Context().Done() })

// stuckHandler is a log that asks the cluster before it writes, and then writes
// for ever: somebody has pressed Ctrl-S.
type stuckHandler struct {
	slog.Handler
	called  chan struct{}
	release <-chan struct{}
	once    *sync.Once
}

func (h stuckHandler) Handle(context.Context, slog.Record) error {
	cluster.Workers()
	cluster.Stats()
	h.once.Do(func() { close(h.called) })
	<-h.release
	return nil
}

// A log that hangs, and one that calls the package, keep the master from nothing:
// a worker that dies is replaced, and the cluster ends.
func TestLogThatHangs(t *testing.T) {
	release := make(chan struct{})
	h := stuckHandler{slog.NewTextHandler(io.Discard, nil), make(chan struct{}), release, new(sync.Once)}
	clustertest.WithMaster(t, logWorker, cluster.Options{Workers: 1, Logger: slog.New(h)})
	t.Cleanup(func() { close(release) })
	online := clustertest.Onlines(t)
	require.NoError(t, cluster.AutoFork())
	first := clustertest.Await(t, online, "the first worker")
	require.NoError(t, first.OSProcess().Signal(os.Kill))
	clustertest.Await(t, h.called, "a line of the log")
	second := clustertest.Await(t, online, "the replacement")
	require.NotEqual(t, first.ID(), second.ID())
	require.NotEmpty(t, cluster.Stats().Workers)
	require.NoError(t, cluster.Disconnect(clustertest.Within(t, clustertest.Patience)))
}
