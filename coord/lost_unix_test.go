//go:build unix

package coord_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// lostWorker leads, and when it is to lead no more waits for a signal.
var lostWorker = clustertest.Program("lost worker", func() {
	poke := make(chan os.Signal, 1)
	clustertest.Notify(poke)
	cluster.OnShutdown(func(context.Context) error {
		_, _, err := coord.TryLock("l")
		fmt.Println("lost", os.Getpid(), errors.Is(err, cluster.ErrClosed))
		return nil
	})
	coord.Lead("job", func(ctx context.Context) error {
		fmt.Println("leads", os.Getpid())
		<-ctx.Done()
		fmt.Println("ending", os.Getpid())
		<-poke
		return nil
	})
	_, _, err := coord.Open("s").Get(context.Background(), "k") // the master knows of the candidacy
	clustertest.Must(err)
	fmt.Println("stands", os.Getpid())
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	go ln.Accept()
	<-cluster.Context().Done()
	select {}
})

// lostMaster is a master under Run of lostWorkers.
var lostMaster = clustertest.Program("lost master", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2, Env: []string{clustertest.ProgramEnv + "=" + lostWorker}}))
	clustertest.Must(cluster.Run(context.Background()))
})

// TestLostMaster: when the master is killed the context of what leads ends, nobody
// takes over while it ends, what asks for the master fails, and all workers end.
func TestLostMaster(t *testing.T) {
	t.Parallel()
	p := clustertest.Start(t, lostMaster)
	pids := p.All("leads ", "stands ", "stands ")
	p.Signal(syscall.SIGKILL)
	p.Exit()
	leader, err := strconv.Atoi(strings.TrimSpace(pids[0]))
	require.NoError(t, err)
	other := strings.TrimSpace(pids[1])
	if other == pids[0] {
		other = strings.TrimSpace(pids[2])
	}
	p.All(fmt.Sprint("ending ", leader), fmt.Sprint("lost ", other, " true"))
	require.Equal(t, 1, strings.Count(p.Output(), "leads "))
	clustertest.Kill(t, leader, clustertest.SigPoke)
	p.Expect(fmt.Sprint("lost ", leader, " true"))
	p.GroupEmpty()
	require.Equal(t, 1, strings.Count(p.Output(), "leads "))
}

// fillKernel sends to a worker that is stopped until the system takes nothing more: from
// there on room comes from nowhere.
func fillKernel(t *testing.T, w *cluster.Process) {
	t.Helper()
	queued := func() int { return cluster.Stats().Workers[0].Queue }
	for queued() == 0 {
		require.NoError(t, w.Send(strings.Repeat("z", 32<<10)))
		// What is left is being written for a moment.
		for same, last := 0, -1; same < 10; same++ {
			if now := queued(); now != last {
				same, last = 0, now
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// TestPublishToAStoppedWorker: what is published takes half of MaxQueue at most, so
// that there is room for messages. What the worker misses is counted, and reported
// once.
func TestPublishToAStoppedWorker(t *testing.T) {
	const large = 64 << 10
	clustertest.WithMaster(t, coordWorker, cluster.Options{MaxQueue: 1 << 20})
	name, said := unique(t), words(t)
	errs := make(chan error, 100)
	t.Cleanup(cluster.OnError(func(_ *cluster.Process, err error) { errs <- err }))
	w := forkAll(t, 1)[0]
	ask(t, w, "subscribe", name)
	missed := func() int64 {
		for _, topic := range cluster.Stats().Coord.Topics {
			if topic.Name == name {
				return topic.Missed
			}
		}
		return 0
	}
	clustertest.PauseWorker(t, w)
	fillKernel(t, w)
	taken := 0
	for ; missed() == 0; taken++ {
		require.Less(t, taken, 1000)
		require.NoError(t, coord.Publish(name, strings.Repeat("x", large)))
	}
	taken--                                        // the last one
	require.Greater(t, taken*large, 1<<19-3*large) // less what fills the kernel
	require.ErrorIs(t, clustertest.Await(t, errs, "error"), cluster.ErrBacklog)
	for range 5 {
		require.NoError(t, coord.Publish(name, strings.Repeat("x", large)))
	}
	require.EqualValues(t, 6, missed())
	require.NoError(t, w.Send(strings.Repeat("y", 1<<19-2*large)), "half of the queue is the application's")
	require.Empty(t, errs)
	require.NoError(t, w.OSProcess().Signal(syscall.SIGCONT))
	for range taken {
		require.Contains(t, clustertest.Await(t, said, "message").what, "heard xxx")
	}
	require.NoError(t, coord.Publish(name, "again"))
	await(t, said, "heard again")
}
