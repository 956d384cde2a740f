package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"unicode/utf8"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// The programs that run makes clusters of.

// address is one that only this test has.
func (c *cli) address() string { return fmt.Sprintf("127.0.0.1:%d", clustertest.FreePort(c.t)) }

// testPython: a script that takes LISTEN_FDS; its first minute from the start to the stop.
func testPython(c *cli) {
	c.needs("python3")
	t, at := c.t, c.address()
	p := c.start("-n", "2", "--listen", "tcp://"+at, "--", clustertest.Path("..", "..", "examples", "foreign", "server.py"))
	require.Contains(t, p.Expect(c.name+" | "), "2 workers of ")
	p.All(c.name+".0 | serving", c.name+".1 | serving", c.name+" | worker 0 is ready", c.name+" | worker 1 is ready")
	answer, err := clustertest.Get("http://" + at)
	require.NoError(t, err)
	require.Regexp(t, `^hello from pid \d+\n$`, answer)

	text := c.ok("status")
	for line := range strings.Lines(text) {
		require.LessOrEqual(t, utf8.RuneCountInString(line), 81, line)
	}
	require.Contains(t, text, "2 of 2 workers ready")
	require.Contains(t, text, "tcp "+at)
	require.Regexp(t, `(?m)^1 +id2 +\d+ +ready +1 `, text)

	before := c.pids()
	text = c.ok("reload") // which may be over before the last death is told
	require.Regexp(t, `(?s)slot 0: worker id3 \(pid \d+\) starts.*slot 0: worker id3 \(pid \d+\) is ready.*slot 0: worker id1 \(pid \d+\) has ended: `+
		`.*slot 1: worker id4 .*reloaded in `, text)
	for _, pid := range c.pids() {
		require.NotContains(t, before, pid)
	}
	workers := c.pids()
	require.Contains(t, c.ok("stop"), "stopped in ")
	c.ended(p, workers)
	c.no(exitNone, "no cluster", "status")
}

// testGoForeign: a Go program of this module that does not import the package, by its own
// word ready; a signal stops it.
func testGoForeign(c *cli) {
	at := c.address()
	p := c.start("-n", "1", "--listen", "web=tcp://"+at, "--ready-notify", c.programs["foreign"])
	c.ready(p, 1)
	answer, err := clustertest.Get("http://" + at)
	require.NoError(c.t, err)
	require.Contains(c.t, answer, "hello from pid")
	c.no(exitFailed, "a Foreign program cannot be asked", "pprof", "heap")
	require.NotContains(c.t, c.ok("metrics"), "cluster_worker_scrape_up{", "it cannot be asked")
	workers := c.pids()
	p.Terminate()
	c.ended(p, workers)
}

// testOwn: a program of the package has a channel, by which it tells what it was built of.
func testOwn(c *cli) {
	at := c.address()
	p := c.start("-n", "2", "--", c.programs["hello"], "-addr", at)
	c.ready(p, 2)
	answer, err := clustertest.Get("http://" + at)
	require.NoError(c.t, err)
	require.Regexp(c.t, `^hello from worker [12] `, answer)
	s := c.stats()
	require.Equal(c.t, "go", s.Workers[0].GoVersion[:2])
	c.ok("scale", "3")
	require.Len(c.t, c.stats().Workers, 3)
	workers := c.pids()
	c.ok("stop", "-j")
	c.ended(p, workers)
}

// testNode: a script of node's listens through the master.
func testNode(c *cli) {
	node, script := c.needs("node"), filepath.Join(c.dir, "server.js")
	require.NoError(c.t, os.WriteFile(script, []byte(`require("http").createServer((q, a) => a.end("hello\n")).listen(process.argv[2], "127.0.0.1")`), 0o600))
	at := c.address()
	_, port, _ := strings.Cut(at, ":")
	p := c.start("-n", "2", node, script, port)
	c.ready(p, 2)
	answer, err := clustertest.Get("http://" + at)
	require.NoError(c.t, err)
	require.Equal(c.t, "hello\n", answer)
	require.Contains(c.t, c.ok("reload"), "reloaded in ")
	workers := c.pids()
	c.ok("stop")
	c.ended(p, workers)
}

// forever is a program that prints what it is told to, and goes on until it is told to end.
func forever(print string) []string {
	return []string{"sh", "-c", "trap 'kill $!; exit 0' TERM; " + print + "; while :; do sleep 1000 & wait; done"}
}

// testWorker: the orders for one worker, and the events of it all.
func testWorker(c *cli) {
	t := c.t
	p := c.start(append([]string{"-n", "2", "--ready-after", "1ms"}, forever("echo up")...)...)
	c.ready(p, 2)
	before := c.stats().Workers
	require.Contains(t, c.ok("worker", "0", "restart"), "worker 0 restarted in ")
	require.Contains(t, c.ok("worker", "1", "kill"), "worker 1 killed in ")
	after := c.stats().Workers
	require.Greater(t, after[0].ID, before[0].ID)
	require.Greater(t, after[1].ID, before[1].ID)
	c.ok("worker", "1", "drain")
	require.Regexp(t, `(?m)^1 +- +- +off `, c.ok("status"))
	c.no(exitFailed, "cluster: "+c.name+": Respawn: slot 1 is empty, a restart fills it", "worker", "1", "kill")
	for _, args := range []string{"worker 0 stacks", "stacks 0", "pprof heap", "worker 0 pprof"} {
		c.no(exitFailed, "a Foreign program cannot be asked", strings.Fields(args)...)
	}
	require.Contains(t, c.ok("stacks"), "a Foreign program cannot be asked")
	c.no(exitFailed, `no worker has that name: "7"`, "stacks", "7")
	for _, name := range []string{"", ".", "..", "../.."} {
		c.no(exitFailed, "has that name", "worker", name, "restart")
		c.no(exitFailed, "has that name", "stacks", name)
	}
	c.no(exitFailed, "no worker has that name", "worker", "7", "kill")
	c.no(exitFailed, "no worker has that name", "worker", "../0", "kill")
	c.no(exitFailed, "no worker has that name", "worker", "\x1b[2J", "kill")
	for _, command := range []string{"status", "events", "logs", "metrics", "stacks", "status -j", ""} {
		full := exec.Command("sh", "-c", c.programs["cluster"]+" "+command+" -c "+c.name+" >/dev/full")
		if command == "" {
			full = exec.Command("sh", "-c", c.programs["cluster"]+" >/dev/full")
		}
		full.Env = c.env
		text, err := full.CombinedOutput()
		require.Error(t, err)
		require.Equal(t, exitFailed, full.ProcessState.ExitCode(), "%s: %s", command, text)
	}
	events := c.ok("events")
	require.Regexp(t, `(?m)^\d\d:\d\d:\d\d\.\d{3} fork +0 id1 +\d+$`, events)
	require.Regexp(t, `(?m) death +0 id1 +\d+  restart: `, events)
	for line := range strings.Lines(c.ok("events", "-j")) {
		var e struct{ N int }
		require.NoError(t, json.Unmarshal([]byte(line), &e))
		require.Positive(t, e.N)
	}
	workers := c.pids()
	follow := c.follow("events", "-f")
	c.ok("stop")
	require.Contains(t, follow(), " death ")
	c.ended(p, workers)
}

// testBootLoop: a cluster whose program always fails says why, with status 1.
func testBootLoop(c *cli) {
	p := c.start("-n", "1", "--", "sh", "-c", "echo no certificate >&2; exit 3")
	p.Expect(c.name + ".0 | no certificate")
	require.Equal(c.t, exitFailed, p.Exit())
	require.Contains(c.t, p.Output(), "exit status 3")
	require.NotContains(c.t, p.Output(), "cluster: cluster: ")
}

// testLog: whole lines to a file, which a signal opens anew, as logrotate has it: the file is
// moved, what is written until the signal is in the moved one, and no line is lost.
func testLog(c *cli) {
	t, log := c.t, filepath.Join(c.dir, "log")
	p := c.start("-n", "1", "--log", log, "-j", "--", "sh", "-c", `trap 'exit 0' TERM; echo '{"level":"info"}'; n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.01; done`)
	ticks := func(path string) (n int) {
		b, err := os.ReadFile(path)
		if err != nil {
			return 0
		}
		return strings.Count(string(b), `"text":"tick `)
	}
	for turn := 1; turn <= 3; turn++ {
		clustertest.Eventually(t, func() bool { return ticks(log) > 0 }, "lines in the log")
		old := fmt.Sprint(log, ".", turn)
		require.NoError(t, os.Rename(log, old))
		moved := ticks(old)
		clustertest.Eventually(t, func() bool { return ticks(old) > moved }, "lines in the moved log, before the signal")
		p.Signal(syscall.SIGUSR1)
		clustertest.Eventually(t, func() bool { return ticks(log) > 0 }, "lines in the new log")
	}
	p.Terminate()
	levels, last := 0, 0
	for _, path := range []string{log + ".1", log + ".2", log + ".3", log} {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		for line := range strings.Lines(string(b)) {
			var r struct{ Time, Worker, Level, Text string }
			require.NoError(t, json.Unmarshal([]byte(line), &r), line)
			require.NotEmpty(t, r.Time)
			if r.Level == "info" {
				require.Equal(t, "0", r.Worker)
				levels++
			}
			if number, ok := strings.CutPrefix(r.Text, "tick "); ok {
				last++
				require.Equal(t, strconv.Itoa(last), number, "in %s", path)
			}
		}
	}
	require.Equal(t, 1, levels)
	require.Empty(t, p.Output())
}

// testReadyURL: a worker is ready when the URL says so, and not before.
func testReadyURL(c *cli) {
	var up atomic.Bool
	asked := make(chan bool, 1000)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- true:
		default:
		}
		if !up.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	p := c.start(append([]string{"-n", "1", "--ready-url", srv.URL}, forever("echo up")...)...)
	for range 2 {
		clustertest.Await(c.t, asked, "a question")
	}
	require.Equal(c.t, cluster.Online.String(), c.stats().Workers[0].State)
	r := (&site{cli: c, p: p}).upgrade() // the next master goes on to ask
	require.Zero(c.t, r.code, r.err)
	up.Store(true)
	c.ready(p, 1)
	p.Terminate()
}

// testReloadOnChange: a script that is replaced is run.
func testReloadOnChange(c *cli) {
	script := filepath.Join(c.dir, "script.sh")
	write := func(text string) {
		require.NoError(c.t, os.WriteFile(script+".new", []byte(forever("echo " + text)[2]), 0o600))
		require.NoError(c.t, os.Rename(script+".new", script))
	}
	write("one")
	p := c.start("-n", "1", "--ready-after", "1ms", "--reload-on-change", "--", "sh", script)
	p.All(c.name+".0 | one", c.name+" | worker 0 is ready")
	write("two")
	p.All(c.name+".0 | two", c.name+" | reloaded")
	p.Terminate()
}
