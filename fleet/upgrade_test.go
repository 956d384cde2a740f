//go:build unix

package fleet

import (
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestUpgrade: the master's new program is the same member. Its workers keep their
// connections meanwhile, and are then replaced.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	boss := member(t, quick, Options{URL: s.URL, Node: "boss"})
	p := clustertest.Start(t, unit, "NAME="+boss.Name(), "NODE=u", "URL="+s.URL)
	old := hellos(p, 2)
	awaitNodes(t, boss, "boss", "u")
	came := make(chan string, 10)
	boss.OnJoin(func(m Member) { came <- m.Node })
	clustertest.Await(t, came, "the boss")
	clustertest.Await(t, came, "the unit")
	p.Signal(syscall.SIGUSR2)
	for _, pid := range hellos(p, 2) {
		require.NotContains(t, old, pid)
	}
	for _, pid := range old {
		clustertest.Eventually(t, func() bool { return strings.Contains(p.Output(), "dead "+pid+" exit status 0") }, "the end of the old ones")
	}
	require.Equal(t, "u", clustertest.Await(t, came, "the new program's master"))
	res, err := boss.Reload(long(t), Roll{Nodes: []string{"u"}})
	require.NoError(t, err)
	require.Equal(t, []string{"u"}, res.Done)
	hellos(p, 2)
	p.Terminate()
	awaitNodes(t, boss, "boss")
}

// TestKilledAndBack: a member that is killed and started anew is the new one at once, and so
// are its words.
func TestKilledAndBack(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	a := member(t, quick, Options{URL: s.URL, Node: "a"})
	start := func() *clustertest.Proc {
		p := clustertest.Start(t, unit, "NAME="+a.Name(), "NODE=u", "URL="+s.URL)
		hellos(p, 2)
		return p
	}
	p := start()
	awaitNodes(t, a, "a", "u")
	require.NoError(t, syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGKILL))
	p.GroupEmpty()
	p = start()
	clustertest.Eventually(t, func() bool {
		all := a.Members()
		return len(all) == 2 && all[1].PID == p.Cmd.Process.Pid
	}, "the new master")
	p.Terminate()
	awaitNodes(t, a, "a")
}

// TestReloadLosesNoRequest: while a member's workers are replaced, by an order and by an
// upgrade, each request to it is answered.
func TestReloadLosesNoRequest(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	boss := member(t, quick, Options{URL: s.URL, Node: "boss"})
	p := clustertest.Start(t, unit, "NAME="+boss.Name(), "NODE=u", "URL="+s.URL)
	old := hellos(p, 2)
	awaitNodes(t, boss, "boss", "u")
	ctx := long(t)
	var answered, ended atomic.Int32
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for ended.Load() == 0 {
				if err := boss.Request(ctx, "u", "pid", 0, nil); err != nil {
					t.Error(err)
					return
				}
				answered.Add(1)
			}
		})
	}
	gone := func() {
		for _, pid := range old {
			clustertest.Eventually(t, func() bool { return strings.Contains(p.Output(), "dead "+pid+" ") }, "the end of the old ones")
		}
	}
	_, err := boss.Reload(ctx, Roll{Nodes: []string{"u"}})
	require.NoError(t, err)
	gone()
	old = hellos(p, 2)
	p.Signal(syscall.SIGUSR2)
	hellos(p, 2)
	gone()
	ended.Store(1)
	asking.Wait()
	t.Logf("%d requests", answered.Load())
	p.Terminate()
}
