package upgrade_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// locks is a master whose workers lead and lock.
var locks = clustertest.Program("upgrade locks", func() {
	if cluster.IsMaster() {
		fmt.Println("main", version)
		printEvents()
		poke()
		clustertest.Must(cluster.SetupMaster(options()))
		clustertest.Must(cluster.Run(context.Background()))
		return
	}
	coord.Lead("job", func(ctx context.Context) error {
		fmt.Println("leads", os.Getpid())
		<-ctx.Done()
		fmt.Println("leads no more", os.Getpid())
		return nil
	})
	if cluster.Worker.Slot() < 2 {
		go lockInTurn()
	}
	serve()
})

// lockInTurn has slot 1 wait for a lock that slot 0 holds until the step "unlock".
func lockInTurn() {
	if cluster.Worker.Slot() == 1 {
		awaitStep("held")
		fmt.Println("waits")
	}
	unlock, err := coord.Lock(context.Background(), "lock")
	clustertest.Must(err)
	fmt.Println("holds", cluster.Worker.Slot())
	if cluster.Worker.Slot() == 0 {
		clustertest.Must(os.WriteFile(step("held"), nil, 0o600))
		awaitStep("unlock")
		unlock()
	}
}

// TestLeaderAndWaiter: the leader goes on, and nobody leads beside it, not even a new worker.
// When it dies, the next leader is the worker that was a candidate before the upgrade: only the
// state that went over tells that. A worker that waits for a lock gets it when its holder, which
// has had it since before the upgrade, frees it.
func TestLeaderAndWaiter(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dir, do := steps(t)
	s.deploy("one")
	p := s.start(locks, "STEPS="+dir)
	pids := p.All("ready 0 ", "ready 1 ")
	clustertest.Eventually(t, func() bool { return strings.Contains(p.Output(), "waits\n") }, "one that waits")
	clustertest.Eventually(t, func() bool { return strings.Contains(p.Output(), "leads ") }, "a leader")
	leader, next := outputLine(p, "leads "), pids[0]
	if next == leader {
		next = pids[1]
	}
	s.deploy("two")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	require.NotContains(t, p.Output(), "holds 1")
	do("unlock")
	printed(t, p, "holds 1")
	p.Signal(syscall.SIGTTIN) // Scale by one
	printed(t, p, "ready 2 ") // it has stood before it was ready
	require.Equal(t, 1, strings.Count(p.Output(), "leads "), "one leader, for all the time")

	pid, err := strconv.Atoi(leader)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.Equal(t, next, printed(t, p, "leads "))
	p.Terminate()
}
