package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/fleet"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// crew is a member of a fleet with two workers.
var crew = clustertest.Program("crew", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2, ReadyFor: -1}))
	_, err := fleet.Join(fleet.Options{URL: os.Getenv("URL"), Name: "crew", Node: os.Getenv("NODE"), Orders: true})
	clustertest.Must(err)
	clustertest.Must(cluster.AutoFork())
	clustertest.Must(cluster.ListenAndServe("127.0.0.1:0", http.NotFoundHandler()))
})

// natsURL starts a NATS server, and returns its URL with the password.
func (c *cli) natsURL() string {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, Username: "u", Password: "right"})
	require.NoError(c.t, err)
	s.Start()
	c.t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	require.True(c.t, s.ReadyForConnections(clustertest.Patience))
	return "nats://u:right@" + s.Addr().String()
}

// seen are the members that cluster fleet status shows, by their names.
func (c *cli) seen(args ...string) map[string]fleet.Member {
	c.t.Helper()
	r := c.call(append([]string{"fleet", "status", "-j"}, args...)...)
	require.Zero(c.t, r.code, r.err)
	var all struct {
		Fleet   string
		Members []fleet.Member
	}
	require.NoError(c.t, json.Unmarshal([]byte(r.out), &all))
	require.Equal(c.t, "crew", all.Fleet)
	members := make(map[string]fleet.Member)
	for _, m := range all.Members {
		members[m.Node] = m
	}
	return members
}

// crews starts members, and waits until their workers are ready.
func (c *cli) crews(url string, nodes ...string) map[string]*clustertest.Proc {
	c.t.Helper()
	all := make(map[string]*clustertest.Proc)
	for _, node := range nodes {
		all[node] = clustertest.Start(c.t, crew, append(c.env, "URL="+url, "NODE="+node)...)
	}
	args := append([]string{"--nats", url, "--fleet", "crew"}, nodes...)
	clustertest.Eventually(c.t, func() bool {
		if r := c.call(append([]string{"fleet", "status"}, args...)...); r.code != 0 {
			return false
		}
		seen := c.seen(args...)
		for _, node := range nodes {
			if ready(seen[node].Snapshot) != 2 {
				return false
			}
		}
		return true
	}, "the members")
	return all
}

// testFleet: the members of a fleet are seen and ordered.
func testFleet(c *cli) {
	t := c.t
	url := c.natsURL()
	members := c.crews(url, "a", "b")
	c.env = append(c.env, "NATS_URL="+url)
	r := c.call("fleet", "status", "a", "b") // it finds the only fleet
	require.Zero(t, r.code, r.err)
	require.Regexp(t, `(?m)^fleet crew: 2 members$`, r.out)
	require.Regexp(t, `(?m)^a +\S+ +\d+ 2 of 2 ready +\S+ yes +\S+ ago$`, r.out)

	pids := func(node string) map[int]bool {
		all := make(map[int]bool)
		for _, w := range c.seen("--fleet", "crew", node)[node].Snapshot.Workers {
			all[w.PID] = true
		}
		return all
	}
	before := pids("a")
	r = c.call("fleet", "reload", "--fleet", "crew", "b", "a")
	require.Zero(t, r.code, r.err)
	require.Regexp(t, `^b: reload begins\nb: reloaded in \S+\na: reload begins\na: reloaded in \S+\nfleet crew: 2 members reloaded in \S+\n$`, r.out)
	clustertest.Eventually(t, func() bool {
		after := pids("a")
		for pid := range before {
			if after[pid] {
				return false
			}
		}
		return len(after) == 2
	}, "other workers")

	r = c.call("fleet", "scale", "3", "--fleet", "crew", "--parallel", "2", "-j") // all that are heard
	require.Zero(t, r.code, r.err)
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	require.Len(t, lines, 5, r.out)
	require.Equal(t, `{"member":"a"}`, lines[0])
	var end fleetOutcome
	require.NoError(t, json.Unmarshal([]byte(lines[4]), &end))
	require.True(t, *end.OK)
	require.ElementsMatch(t, []string{"a", "b"}, end.Done)
	clustertest.Eventually(t, func() bool { return len(pids("b")) == 3 }, "three workers")

	r = c.call("fleet", "stop", "--fleet", "crew", "a", "b")
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.out, "fleet crew: 2 members stopped in ")
	for _, p := range members {
		require.Zero(t, p.Exit())
		p.GroupEmpty()
	}
}

// fake says again and again that it is a member, and answers orders with that error.
func (c *cli) fake(nc *nats.Conn, name, node, failure string) {
	beat, err := json.Marshal(map[string]any{
		"node": node, "host": "h\x1b]0;title\a", "pid": 1, "orders": failure != "", "protocol": 1, "instance": name + node, "snapshot": map[string]any{},
	})
	require.NoError(c.t, err)
	_, err = nc.Subscribe("cluster."+name+".order.*", func(m *nats.Msg) {
		answer := nats.NewMsg(m.Reply)
		answer.Header.Set("Cluster-Error", failure)
		m.RespondMsg(answer)
	})
	require.NoError(c.t, err)
	end := make(chan struct{})
	c.t.Cleanup(func() { close(end) })
	go func() {
		for {
			nc.Publish("cluster."+name+".member.x", beat)
			select {
			case <-end:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
}

// testFleetTrouble: what is wrong is said with the status that the help has, and nothing of
// a member's reaches the terminal as it is.
func testFleetTrouble(c *cli) {
	t := c.t
	url := c.natsURL()
	check := func(code int, text string, args ...string) {
		t.Helper()
		r := c.call(append([]string{"fleet"}, args...)...)
		require.Equal(t, code, r.code, "cluster fleet %q: %s%s", args, r.out, r.err)
		require.Contains(t, r.err, text, "%q", args)
		harmless(t, r.out)
		harmless(t, r.err)
	}
	check(exitUsage, "which command")
	check(exitUsage, "--nats", "status")
	for _, args := range []string{"scale", "scale x", "scale -- -1", "bogus", "status --bogus", "reload --parallel 0", "status --wait -1s", "status --tls-cert x", "status -c x", "reload --socket x"} {
		check(exitUsage, "", append(strings.Fields(args), "--nats", url)...)
	}
	c.env = append(c.env, "NATS_URL="+url)
	help := c.call("fleet", "status", "--help")
	require.Contains(t, help.out, "NATS_URL")
	require.NotContains(t, help.out, "right")
	c.env = c.env[:len(c.env)-1]
	for _, fleet := range [][]string{nil, {"--fleet", "crew"}} {
		r := c.call(append([]string{"fleet", "status", "--nats", "nats://u:right@[::1"}, fleet...)...)
		require.NotZero(t, r.code)
		require.NotContains(t, r.err, "right")
	}
	nobody := fmt.Sprintf("nats://127.0.0.1:%d", clustertest.FreePort(t))
	check(exitNone, "no server", "status", "--nats", nobody)
	check(exitNone, "no server", "reload", "--nats", nobody, "--fleet", "crew")
	wrong := strings.Replace(url, "right", "wrong", 1)
	check(exitFailed, "Authorization", "status", "--nats", wrong)
	check(exitFailed, "Authorization", "stop", "--nats", wrong, "--fleet", "crew")
	check(exitFailed, "no-such-file", "stop", "--nats", url, "--fleet", "crew", "--creds", "no-such-file")
	check(exitNone, "no member", "status", "--nats", url, "--wait", "10ms")
	check(exitNone, "no member", "reload", "--nats", url, "--wait", "10ms", "--fleet", "crew")

	nc, err := nats.Connect(url)
	require.NoError(t, err)
	defer nc.Close()
	odd := "x\x1b[31m\u202e\n"
	c.fake(nc, "crew", odd, "boom \x1b[2J")
	check(0, "", "status", "--nats", url, "--fleet", "crew", odd)
	check(0, "", "status", "-j", "--nats", url, "--fleet", "crew", odd)
	check(exitFailed, "boom", "reload", "--nats", url, "--fleet", "crew", odd, odd)
	check(exitFailed, "", "reload", "-j", "--nats", url, "--fleet", "crew", odd)
	check(exitFailed, "no member", "reload", "--nats", url, "--wait", "2s", "--fleet", "crew", odd, "none") // odd is heard every 20 ms
	c.fake(nc, "idle", "i", "")
	check(exitFailed, "takes no orders", "stop", "--nats", url, "--fleet", "idle", "i")
	check(exitUsage, "crew, idle", "status", "--nats", url, "--wait", "5s")
}
