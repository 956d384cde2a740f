//go:build unix

package fleet

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
)

// natsProcess is one server of a cluster of them, in a process that can be killed.
var natsProcess = clustertest.Program("nats server", func() {
	o := &server.Options{
		ServerName: os.Getenv("NODE"), Host: "127.0.0.1", NoLog: true, JetStream: true, StoreDir: os.Getenv("DIR"),
		Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", NoAdvertise: true}, // clients know the proxies only
	}
	var err error
	o.Port, err = strconv.Atoi(os.Getenv("PORT"))
	clustertest.Must(err)
	for i, port := range strings.Split(os.Getenv("ROUTES"), ",") {
		u := &url.URL{Scheme: "nats", Host: "127.0.0.1:" + port}
		if strconv.Itoa(i) == o.ServerName {
			o.Cluster.Port, err = strconv.Atoi(port)
			clustertest.Must(err)
		} else {
			o.Routes = append(o.Routes, u)
		}
	}
	s, err := server.NewServer(o)
	clustertest.Must(err)
	s.Start()
	s.WaitForShutdown()
})

// trio are three servers in a cluster.
type trio struct {
	t       *testing.T
	env     [3][]string
	servers [3]*clustertest.Proc
	addrs   [3]string
}

func startTrio(t *testing.T) *trio {
	c := &trio{t: t}
	var routes []string
	for range c.env {
		routes = append(routes, strconv.Itoa(clustertest.FreePort(t)))
	}
	for i := range c.env {
		port := strconv.Itoa(clustertest.FreePort(t))
		c.addrs[i] = "127.0.0.1:" + port
		c.env[i] = []string{"NODE=" + strconv.Itoa(i), "PORT=" + port, "ROUTES=" + strings.Join(routes, ","), "DIR=" + clustertest.TempDir(t)}
		c.start(i)
	}
	return c
}

func (c *trio) start(i int) { c.servers[i] = clustertest.Start(c.t, natsProcess, c.env[i]...) }

// URL is that of all three.
func (c *trio) URL() string { return strings.Join(c.addrs[:], ",") }

// leader is the server that leads the bucket's copies.
func (c *trio) leader(f *Fleet) (i int) {
	c.t.Helper()
	eventually(c.t, func() bool {
		ctx, cancel := context.WithTimeout(c.t.Context(), clustertest.Patience)
		defer cancel()
		s, err := f.conn.js.Stream(ctx, "KV_"+f.store.name())
		if err != nil {
			return false
		}
		info := s.CachedInfo()
		if info.Config.Replicas != 3 {
			c.t.Fatalf("%d copies", info.Config.Replicas)
		}
		i, err = strconv.Atoi(info.Cluster.Leader)
		return err == nil
	}, "the leader of the bucket's copies")
	return i
}

// contestant is a member whose worker leads when it can. It writes a line to the witness
// file again and again, as long as its ctx says that it leads.
var contestant = clustertest.Program("contestant", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 1, ReadyFor: -1, ShutdownTimeout: time.Minute}))
	clustertest.Must(cluster.AutoFork())
	set, o := touchily, Options{URL: os.Getenv("URL"), Name: os.Getenv("NAME"), Node: os.Getenv("NODE")}
	set.call = production.call // servers that lose one take some seconds to answer again
	if os.Getenv("PRODUCTION") != "" {
		set = production
	}
	set.join = 4 * clustertest.Patience // the servers may have to find each other yet
	f, err := join(o, set)
	clustertest.Must(err)
	if cluster.IsWorker() {
		file, err := os.OpenFile(os.Getenv("WITNESS"), os.O_WRONLY|os.O_APPEND, 0)
		clustertest.Must(err)
		f.Lead("job", func(ctx context.Context) error {
			for ctx.Err() == nil {
				fmt.Fprintf(file, "%d %s\n", Fence(ctx), f.Node())
				time.Sleep(5 * time.Millisecond)
			}
			return nil
		})
	}
	clustertest.Must(cluster.ListenAndServe("127.0.0.1:0", http.NotFoundHandler()))
})

// contest are three members, each behind proxies of its own, and what they write.
type contest struct {
	t       *testing.T
	trio    *trio
	file    string
	name    string
	env     string
	proxies [3][]*proxy
	members [3]*clustertest.Proc
	fence   uint64          // of the last leader that was seen
	stopped map[uint64]bool // leaders that were stopped: what they were about to write they write later
}

func startContest(t *testing.T, env string) *contest {
	c := &contest{
		t: t, trio: startTrio(t), name: fleetName(t), env: env,
		file: filepath.Join(clustertest.TempDir(t), "witness"), stopped: make(map[uint64]bool),
	}
	require.NoError(t, os.WriteFile(c.file, nil, 0o600))
	for i := range c.members {
		for _, addr := range c.trio.addrs {
			c.proxies[i] = append(c.proxies[i], startProxy(t, &natsServer{addr: addr}))
		}
	}
	return c
}

func (c *contest) start(i int) {
	var urls []string
	for _, p := range c.proxies[i] {
		urls = append(urls, p.URL)
	}
	c.members[i] = clustertest.Start(c.t, contestant, "URL="+strings.Join(urls, ","), "NAME="+c.name, "NODE="+strconv.Itoa(i), "WITNESS="+c.file, c.env)
}

// lines are what was written: who led, and with which fence.
func (c *contest) lines() (fences []uint64, nodes []int) {
	c.t.Helper()
	b, err := os.ReadFile(c.file)
	require.NoError(c.t, err)
	for line := range strings.Lines(string(b)) {
		var fence uint64
		var node int
		if n, _ := fmt.Sscanf(line, "%d %d\n", &fence, &node); n == 2 { // the last may not be whole
			fences, nodes = append(fences, fence), append(nodes, node)
		}
	}
	return fences, nodes
}

// next waits for a leader with a fence that is greater than the last one's.
func (c *contest) next(what string) (node int) {
	c.t.Helper()
	eventually(c.t, func() bool {
		fences, nodes := c.lines()
		if len(fences) == 0 || fences[len(fences)-1] <= c.fence {
			return false
		}
		c.fence, node = fences[len(fences)-1], nodes[len(nodes)-1]
		return true
	}, "a leader after "+what)
	return node
}

// other waits for a leader that is another member.
func (c *contest) other(than int, what string) (node int) {
	c.t.Helper()
	for node = than; node == than; {
		node = c.next(what)
	}
	return node
}

// leads waits until somebody leads, and tells who.
func (c *contest) leads() (node int) {
	c.t.Helper()
	before, _ := c.lines()
	eventually(c.t, func() bool {
		fences, nodes := c.lines()
		if len(fences) <= len(before) {
			return false
		}
		c.fence, node = fences[len(fences)-1], nodes[len(nodes)-1]
		return true
	}, "a leader that writes")
	return node
}

// check looks for a leader beside another one: it has written after one with a greater
// fence, or without the lease, or the history of the lease has two at one moment.
func (c *contest) check(o *Fleet) {
	c.t.Helper()
	var held []tenure
	eventually(c.t, func() bool { // a server that was away may lack the last revisions yet
		held = leaseHistory(c.t, o, "lead.job")
		return len(held) > 0 && held[len(held)-1].fence >= c.fence
	}, "the history of the lease")
	checkHistory(c.t, held, o.me.set.lease.hold)
	holders := make(map[uint64]string)
	for _, h := range held {
		holders[h.fence] = h.Node
	}
	fences, nodes := c.lines()
	var greatest uint64
	excused := make(map[uint64]bool)
	for i, fence := range fences {
		if fence < greatest && c.stopped[fence] && !excused[fence] {
			excused[fence] = true // its last look at ctx was before it was stopped
			continue
		}
		require.Equal(c.t, strconv.Itoa(nodes[i]), holders[fence], "who had the lease %d", fence)
		require.GreaterOrEqual(c.t, fence, greatest, "member %d leads beside another one, in line %d", nodes[i], i)
		greatest = fence
	}
	distinct := slices.Compact(fences)
	c.t.Logf("%d lines of %d leaders", len(fences), len(distinct))
}

func (c *contest) cut(node int, how func(p *proxy)) {
	for _, p := range c.proxies[node] {
		how(p)
	}
}

// kill kills a process of a member, or with a negative pid all of them.
func (c *contest) kill(pid int, s syscall.Signal) {
	c.t.Helper()
	require.NoError(c.t, syscall.Kill(pid, s))
}

// TestThreeServers: whatever happens to servers, links and members, there is at most one
// leader at any time, and one again later.
func TestThreeServers(t *testing.T) {
	t.Parallel()
	rounds, env := 1, ""
	if n := os.Getenv("CLUSTER_LONG"); n != "" { // so many times, with leases as they are in production
		var err error
		rounds, err = strconv.Atoi(n)
		require.NoError(t, err)
		env = "PRODUCTION=1"
	}
	c := startContest(t, env)
	set := beating
	set.call, set.lease = production.call, quickly.lease
	if env != "" {
		set = production
	}
	set.join = 4 * clustertest.Patience
	o := member(t, set, Options{URL: c.trio.URL(), Node: "observer", Observer: true})
	keepHistory(t, o)
	for i := range c.members {
		c.start(i)
	}
	eventually(t, func() bool { return fmt.Sprint(nodes(o)) == "[0 1 2]" }, "the members")
	c.next("the start")
	for range rounds {
		for _, step := range []struct {
			name string
			run  func()
		}{
			{"together", func() { c.counts(o) }}, {"killed server", func() { c.killedServer(o) }}, {"cut member", func() { c.cutMember(o) }},
			{"killed masters", func() { c.killedMasters(o) }}, {"killed member", func() { c.killedMaster(o, -1) }},
			{"stopped member", func() { c.stoppedMember(o) }}, {"slow link", c.slowLink},
		} {
			begin := time.Now()
			step.run()
			t.Logf("%s: %v", step.name, time.Since(begin).Round(time.Second/10))
		}
	}
	for _, p := range c.members {
		p.Terminate()
	}
	c.check(o)
}

// counts counts in several goroutines: where the bucket has copies the server refuses a
// write with an old revision in its own way.
func (c *contest) counts(o *Fleet) {
	const together, n = 4, 20
	ctx := long(c.t)
	results := make(chan error, together)
	for range together {
		go func() {
			var err error
			for i := 0; i < n && err == nil; i++ {
				_, err = o.KV("n").Incr(ctx, "k", 1, 0)
			}
			results <- err
		}()
	}
	for range together {
		require.NoError(c.t, <-results)
	}
	sum, err := o.KV("n").Incr(ctx, "k", 0, 0)
	require.NoError(c.t, err)
	require.Equal(c.t, int64(together*n), sum)
	require.NoError(c.t, o.KV("n").Delete(ctx, "k"))
}

// killedServer kills the server that leads the copies: the others go on without.
func (c *contest) killedServer(o *Fleet) {
	i := c.trio.leader(o)
	c.trio.servers[i].Signal(syscall.SIGKILL)
	c.trio.servers[i].Exit()
	eventually(c.t, func() bool {
		ctx, cancel := context.WithTimeout(c.t.Context(), clustertest.Patience)
		defer cancel()
		return o.KV("x").Set(ctx, "k", nil, 0) == nil
	}, "a write without the killed server")
	c.leads()
	c.trio.start(i)
}

// cutMember cuts the leading member off all servers.
func (c *contest) cutMember(o *Fleet) {
	node := c.leads()
	c.cut(node, (*proxy).Cut)
	c.other(node, "the cut")
	c.cut(node, (*proxy).Reset)
	c.cut(node, (*proxy).Heal)
	c.whole(o)
}

// killedMasters kills one leading member's master after another. What has died before keeps
// nobody from leading.
func (c *contest) killedMasters(o *Fleet) {
	times := 1
	if c.env != "" {
		times = 5
	}
	for range times {
		c.killedMaster(o, 1)
	}
}

// killedMaster kills the leading member's master, and with group -1 its worker too. A
// worker without a master ends.
func (c *contest) killedMaster(o *Fleet, group int) {
	node := c.leads()
	p := c.members[node]
	c.kill(group*p.Cmd.Process.Pid, syscall.SIGKILL)
	begin := time.Now()
	c.other(node, "the master's death")
	if c.env != "" {
		require.Less(c.t, time.Since(begin), production.lease.term+10*time.Second)
	}
	p.GroupEmpty()
	if group < 0 {
		c.lost(o, node)
	}
	c.start(node)
	c.whole(o)
}

// stoppedMember stops the leading member's master alone: its worker goes on leading. And
// then all of it: another one leads, and it ends what it did when it goes on.
func (c *contest) stoppedMember(o *Fleet) {
	node := c.leads()
	pid := c.members[node].Cmd.Process.Pid
	c.kill(pid, syscall.SIGSTOP)
	c.lost(o, node)
	c.kill(pid, syscall.SIGCONT)
	c.whole(o)
	node = c.leads()
	pid = c.members[node].Cmd.Process.Pid
	c.stopped[c.fence] = true
	c.kill(-pid, syscall.SIGSTOP)
	c.other(node, "the stop")
	c.kill(-pid, syscall.SIGCONT)
	c.whole(o)
}

// slowLink makes the leading member's link slow for a while.
func (c *contest) slowLink() {
	node := c.leads()
	c.cut(node, func(p *proxy) { p.Slow(300 * time.Millisecond) })
	for range 20 {
		c.leads()
	}
	c.cut(node, func(p *proxy) { p.Slow(0) })
	c.leads()
}

// lost waits until the observer has lost a member; in the long form within 20 seconds.
func (c *contest) lost(o *Fleet, node int) {
	c.t.Helper()
	begin := time.Now()
	eventually(c.t, func() bool { return !slices.Contains(nodes(o), strconv.Itoa(node)) }, "the loss of a member")
	if c.env != "" {
		require.Less(c.t, time.Since(begin), 20*time.Second)
	}
}

// whole waits until the observer knows all members.
func (c *contest) whole(o *Fleet) {
	c.t.Helper()
	eventually(c.t, func() bool { return fmt.Sprint(nodes(o)) == "[0 1 2]" }, "all members")
}
