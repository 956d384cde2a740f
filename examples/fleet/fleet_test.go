//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/coder/websocket"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// example is this example as a program of the test binary.
var example = clustertest.Program("fleet", main)

func TestMain(m *testing.M) { clustertest.Main(m) }

// TestReload: while users of both members talk, the members are reloaded, one after the
// other. That closes all connections with 1001. The users come back and go on talking,
// and nothing is lost that was said to who was connected.
func TestReload(t *testing.T) {
	f := open(t)
	all := f.users(6, func(i int) []string { return []string{f.members[i%2].url} })
	reload := f.start("-reload", "a,b")
	old := append(slices.Clone(f.members[0].workers), f.members[1].workers...)
	runs := func(pid int) bool { return syscall.Kill(pid, 0) != syscall.ESRCH }
	all.talkUntil(func(*user) bool { return !slices.ContainsFunc(old, runs) })
	require.Equal(t, "[a b]", reload.Expect("reloaded: "))
	require.Zero(t, reload.Exit())
	all.part()
	for _, u := range all.users {
		require.NotEmpty(t, u.ends)
		for _, end := range u.ends {
			require.Equal(t, websocket.StatusGoingAway, end, "%v", u.ends)
		}
	}
	f.members[0].proc.Terminate()
	f.members[1].proc.Terminate()
	f.server.Terminate()
}

// TestCron: the cron runs in one worker of one member, and all hear it. When its member
// is killed it runs in the other one, where the users come to as well.
func TestCron(t *testing.T) {
	f := open(t)
	all := f.users(4, func(i int) []string { return []string{f.members[i%2].url, f.members[1-i%2].url} })
	killed, other := f.members[0], f.members[1]
	if all.awaitCron("a", "b") == other.node {
		killed, other = other, killed
	}
	require.NoError(t, syscall.Kill(killed.proc.Cmd.Process.Pid, syscall.SIGKILL))
	require.Equal(t, -1, killed.proc.Exit())
	all.awaitCron(other.node)
	killed.proc.GroupEmpty() // workers end when they have no master any more
	all.talkUntil(func(*user) bool { return true })
	all.part()
	other.proc.Terminate()
	f.server.Terminate()
	// Each time it begins the cron has a larger fence, and then counts.
	for _, u := range all.users {
		var last []int
		for _, id := range u.crons() {
			now := make([]int, 2)
			_, err := fmt.Sscanf(id, "cron/%d/%d", &now[0], &now[1])
			require.NoError(t, err)
			require.Positive(t, slices.Compare(now, last), "%v after %v", now, last)
			last = now
		}
	}
}

// running is the example: a server and two members.
type running struct {
	t       *testing.T
	url     string // of the server
	server  *clustertest.Proc
	members []*unit
}

// unit is a member with two workers.
type unit struct {
	node, url string
	workers   []int // pids
	proc      *clustertest.Proc
}

// start starts the example with these arguments. The environment has GOMAXPROCS for the
// number of workers.
func (f *running) start(args ...string) *clustertest.Proc {
	f.t.Helper()
	return f.startWith(args)
}

func (f *running) startWith(args []string, env ...string) *clustertest.Proc {
	f.t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"-nats", f.url}, args...)...)
	return clustertest.StartCmd(f.t, cmd, example, append(env, "GOMAXPROCS=2")...)
}

// open starts the server and the members.
func open(t *testing.T) *running {
	t.Parallel()
	f := &running{t: t, url: "nats://127.0.0.1:0"}
	f.server = f.start("-serve")
	f.url = f.server.Expect("NATS at ")
	managers := make(map[*unit]*clustertest.Manager)
	for _, node := range []string{"a", "b"} {
		manager := clustertest.NewManager(t)
		m := &unit{node: node, proc: f.startWith([]string{"-node", node, "-addr", "127.0.0.1:0", "-every", "100ms"}, manager.Env)}
		f.members = append(f.members, m)
		managers[m] = manager
	}
	line := regexp.MustCompile(`^(\d+)\) of \w listening on (\S+)$`)
	for m, manager := range managers {
		for _, rest := range m.proc.All("worker 1 (pid ", "worker 2 (pid ") {
			found := line.FindStringSubmatch(rest)
			require.NotNil(t, found, rest)
			pid, err := strconv.Atoi(found[1])
			require.NoError(t, err)
			m.workers, m.url = append(m.workers, pid), "ws://"+found[2]+"/chat"
		}
		manager.InRun()
		text, err := clustertest.Get("http" + m.url[len("ws"):len(m.url)-len("chat")])
		require.NoError(t, err)
		require.Contains(t, text, "new WebSocket(")
	}
	return f
}
