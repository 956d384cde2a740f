package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/admin"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// mode is what the program does that an upgrade finds at the master's path: a word in a
// file, so that the program need not be built several times.
func mode() string {
	b, _ := os.ReadFile(os.Getenv("MODE"))
	return string(b)
}

// One program fails before main.
var _ = func() bool {
	if mode() == "init" {
		panic("broken in its init")
	}
	return true
}()

// deployed is a service whose master is upgraded.
var deployed = clustertest.Program("deployed", func() {
	was, err := cluster.Upgraded("", nil)
	clustertest.Must(err)
	if cluster.IsMaster() && mode() == "main" {
		panic("no configuration")
	}
	_, err = admin.Start(admin.Options{Name: os.Getenv("NAME")})
	clustertest.Must(err)
	options := cluster.Options{Workers: 2, ReadyFor: -1, StartTimeout: clustertest.Patience, ShutdownTimeout: clustertest.Patience}
	switch what := mode(); {
	case !was:
	case what == "hangs":
		clustertest.Must(os.WriteFile(os.Getenv("MODE"), nil, 0o600)) // the program before comes here again
		select {}
	case what == "dies":
		os.Exit(3)
	}
	cluster.OnUpgrade("mode", func() (any, error) {
		if mode() == "hangs" { // the check is over: only who hangs must be quick
			o := options
			o.StartTimeout = 2 * time.Second
			return nil, cluster.SetupMaster(o)
		}
		return nil, nil
	})
	cluster.OnUpgraded(func(err error) {
		if err != nil {
			clustertest.Must(cluster.SetupMaster(options))
		}
	})
	cluster.OnReady(func(w *cluster.Process) { os.Stdout.WriteString(os.Getenv("NAME") + " | worker is ready\n") })
	clustertest.Must(cluster.SetupMaster(options))
	clustertest.Must(cluster.AutoFork())
	for mode() == "slow" {
		time.Sleep(10 * time.Millisecond)
	}
	clustertest.Must(cluster.ListenAndServe(os.Getenv("LISTEN"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("asked for " + r.URL.Path)
	})))
})

// site is a cluster that is upgraded.
type site struct {
	*cli
	p    *clustertest.Proc
	file string
	at   string // where it serves
}

func (c *cli) site() *site {
	s := &site{cli: c, file: filepath.Join(c.dir, "mode"), at: c.address()}
	s.p = clustertest.Start(c.t, deployed, append(c.env, "NAME="+c.name, "LISTEN="+s.at, "MODE="+s.file)...)
	c.ready(s.p, 2)
	return s
}

// deploy puts another program in the master's path. It is there at once.
func (s *site) deploy(what string) {
	s.t.Helper()
	require.NoError(s.t, os.WriteFile(s.file+".new", []byte(what), 0o600))
	require.NoError(s.t, os.Rename(s.file+".new", s.file))
}

// upgrade orders an upgrade. One that was called off since this machine was slow has changed
// nothing, and is ordered again.
func (s *site) upgrade(flags ...string) (r result) {
	s.t.Helper()
	for range 5 {
		if r = s.call(append([]string{"-c", s.name, "upgrade"}, flags...)...); !strings.Contains(r.err, "not within 5s") {
			break
		}
	}
	return r
}

// testUpgrade: the command tells how an upgrade has ended, though the program that it has
// asked is gone by then; and what goes wrong changes nothing.
func testUpgrade(c *cli) {
	t, s := c.t, c.site()
	workers, master := c.pids(), c.stats().PID
	s.deploy("main")
	r := s.upgrade()
	require.Equal(t, exitFailed, r.code, r.out)
	require.Contains(t, r.err, "no configuration")
	s.deploy("init")
	r = s.upgrade("-j")
	require.Equal(t, exitFailed, r.code, r.out)
	require.Contains(t, r.err, "broken in its init")
	require.Contains(t, r.out, `{"ok":false,"error":"`)

	s.deploy("")
	r = s.upgrade()
	require.Zero(t, r.code, r.err)
	program, err := os.Executable()
	require.NoError(t, err)
	require.Contains(t, r.out, c.name+": upgraded in ")
	require.Contains(t, r.out, ": "+program)
	r = s.upgrade("-j")
	require.Zero(t, r.code, r.err)
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	require.Equal(t, `{"ok":true}`, lines[len(lines)-1])
	require.Contains(t, lines[len(lines)-2], `"event":"upgrade","result":"success"`)
	require.Equal(t, workers, c.pids())
	require.Equal(t, master, c.stats().PID)
	require.Regexp(t, `(?m)^\d\d:\d\d:\d\d\.\d{3} upgrade +failure: .*\n(.*\n)*.* upgrade +success: `, c.ok("events"))
	c.no(exitUsage, "--wait", "upgrade", "--wait", "0s")
	c.ok("stop")
	c.ended(s.p, workers)
}

// testUpgradeDuringReload: an upgrade waits for a reload that is under way, and whoever
// ordered that is told of its end.
func testUpgradeDuringReload(c *cli) {
	t, s := c.t, c.site()
	before := c.pids()
	s.deploy("slow")
	reload, upgrade := make(chan result, 1), make(chan result, 1)
	go func() { reload <- c.call("-c", c.name, "reload") }()
	clustertest.Eventually(t, func() bool { return strings.Contains(c.ok("events", "-j"), `"event":"reload"`) }, "the beginning of the reload")
	go func() { upgrade <- s.upgrade() }()
	clustertest.Eventually(t, func() bool { return strings.Contains(c.ok("stacks", "master"), "admin.(*service).upgrade(") }, "the order")
	s.deploy("")
	r := clustertest.Await(t, reload, "the end of the reload")
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.out, ": reloaded in ")
	r = clustertest.Await(t, upgrade, "the end of the upgrade")
	require.Zero(t, r.code, r.err)
	for _, pid := range c.pids() {
		require.False(t, slices.Contains(before, pid))
	}
	c.ok("stop")
	require.Zero(t, s.p.Exit())
}

// testRollback: that the new program was rolled back is told, and all is as before.
func testRollback(c *cli) {
	t, s := c.t, c.site()
	workers, master := c.pids(), c.stats().PID
	s.deploy("hangs")
	r := s.upgrade("-j")
	require.Equal(t, exitFailed, r.code, r.out)
	require.Contains(t, r.err, "rolled back: ")
	require.Contains(t, r.err, "did not come to AutoFork")
	require.Contains(t, r.out, `{"ok":false,"error":"`)
	require.Equal(t, workers, c.pids())
	require.Equal(t, master, c.stats().PID)
	r = s.upgrade()
	require.Zero(t, r.code, r.err)
	c.ok("stop")
	c.ended(s.p, workers)
}

// testUpgradeDies: a program that ends before it has taken over is the master's end, and
// that is told.
func testUpgradeDies(c *cli) {
	t, s := c.t, c.site()
	s.deploy("dies")
	r := s.upgrade()
	require.Equal(t, exitFailed, r.code, r.out)
	require.Contains(t, r.err, "has ended in the middle of the upgrade")
	require.Equal(t, 3, s.p.Exit())
	s.p.GroupEmpty()
}

// followed is a command that goes on.
type followed struct {
	s     *site
	cmd   *exec.Cmd
	lines chan string
}

// follow starts one.
func (s *site) follow(args ...string) *followed {
	s.t.Helper()
	f := &followed{s: s, cmd: exec.Command(s.programs["cluster"], append([]string{"-c", s.name}, args...)...), lines: make(chan string, 10_000)}
	f.cmd.Dir, f.cmd.Env, f.cmd.Stderr = s.dir, s.env, os.Stderr
	out, err := f.cmd.StdoutPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, f.cmd.Start())
	s.t.Cleanup(func() { f.cmd.Process.Kill(); f.cmd.Wait() })
	go func() {
		defer close(f.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			f.lines <- lines.Text()
		}
	}()
	return f
}

// until waits for a line with the text, and wants none of those before that has the other.
func (f *followed) until(text, never string) {
	f.s.t.Helper()
	for {
		line := clustertest.Await(f.s.t, f.lines, "line "+text)
		require.NotEmpty(f.s.t, line, "it has ended before %q", text)
		require.NotContains(f.s.t, line, never)
		if strings.Contains(line, text) {
			return
		}
	}
}

// testFollowOverUpgrade: who follows lines or events does so over an upgrade, and sees each
// of them once.
func testFollowOverUpgrade(c *cli) {
	t, s := c.t, c.site()
	ask := func(path string) {
		_, err := clustertest.Get("http://" + s.at + path)
		require.NoError(t, err)
	}
	ask("/first")
	logs, tail, events, top := s.follow("logs", "-f"), s.follow("logs", "-f", "--tail", "1", "-j"), s.follow("events", "-f"), s.follow("top", "-j")
	logs.until("| asked for /first", "none")
	tail.until(`"text":"asked for /first"`, "none")
	events.until(" ready ", "none")
	events.until(" ready ", "none")
	top.until(`{"pid":`, "none")
	require.Zero(t, s.upgrade().code)
	ask("/second")
	logs.until("| asked for /second", "/first")
	tail.until(`"text":"asked for /second"`, "/first")
	events.until(" success: ", " ready ")
	require.Zero(t, s.upgrade().code)
	ask("/third")
	logs.until("| asked for /third", "/second")
	tail.until(`"text":"asked for /third"`, "/second")
	events.until(" success: ", " ready ")
	for len(top.lines) > 0 {
		<-top.lines
	}
	top.until(`{"pid":`, "none")

	c.ok("stop")
	require.Zero(t, s.p.Exit())
	for _, f := range []*followed{logs, tail, events} {
		for range f.lines {
		}
		require.NoError(t, f.cmd.Wait(), "the master has ended well")
	}
}

// testFollowKilled: a master that is killed is the end of what follows it, at once.
func testFollowKilled(c *cli) {
	t, s := c.t, c.site()
	_, err := clustertest.Get("http://" + s.at + "/first")
	require.NoError(t, err)
	logs, events := s.follow("logs", "-f"), s.follow("events", "-f")
	logs.until("/first", "none")
	events.until(" ready ", "none")
	require.NoError(t, s.p.Cmd.Process.Kill())
	for _, f := range []*followed{logs, events} {
		for range f.lines {
		}
		f.cmd.Wait()
		require.Equal(t, exitFailed, f.cmd.ProcessState.ExitCode())
	}
}

// testUpgradeRun: the command itself is renewed while the programs that it runs serve on.
func testUpgradeRun(c *cli) {
	t, at := c.t, c.address()
	program := filepath.Join(c.dir, "command")
	put := func() {
		b, err := os.ReadFile(c.programs["cluster"])
		require.NoError(t, err)
		clustertest.WriteProgram(t, program+".new", b)
		require.NoError(t, os.Rename(program+".new", program))
	}
	put()
	cmd := exec.Command(program, "run", "--name", c.name, "-n", "2", "--listen", "tcp://"+at, "--ready-notify", c.programs["foreign"])
	s := &site{cli: c, p: clustertest.StartCmd(t, cmd, "", c.env...)}
	c.ready(s.p, 2)
	workers, master := c.pids(), c.stats().PID
	for range 2 {
		put()
		r := s.upgrade()
		require.Zero(t, r.code, r.err)
		require.Contains(t, r.out, c.name+": upgraded in ")
		is, err := os.Stat(fmt.Sprintf("/proc/%d/exe", master))
		require.NoError(t, err)
		want, err := os.Stat(program)
		require.NoError(t, err)
		require.True(t, os.SameFile(is, want), "the new file")
		require.Equal(t, workers, c.pids())
		answer, err := clustertest.Get("http://" + at)
		require.NoError(t, err)
		require.Contains(t, answer, "hello from pid")
	}
	c.ok("reload")
	require.NotContains(t, c.pids(), workers[0])
	workers = c.pids()
	require.Contains(t, c.ok("stop"), "stopped in ")
	c.ended(s.p, workers)
}
