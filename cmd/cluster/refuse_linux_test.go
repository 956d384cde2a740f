package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// What is wrong, and what is hostile.

// everything are commands, each with all that a master can be asked for.
var everything = [][]string{
	{"status"}, {"status", "-j"}, {"events"}, {"events", "-j"}, {"reload"}, {"upgrade"}, {"scale", "1"}, {"stop"},
	{"logs"}, {"logs", "-j", "--tail", "3", "0"}, {"stacks"}, {"stacks", "0", "-j"}, {"metrics"}, {"metrics", "-j"}, {"pprof"}, {"worker", "0", "drain"}, {"worker", "0", "kill"}, {"worker", "0", "restart", "-j"},
	{"worker", "0", "pprof"}, {"worker", "0", "stacks"}, {"worker", "0", "metrics", "-j"},
}

// follow starts a command that goes on, and waits for its first line. The returned func
// waits for its end, and returns what it has printed.
func (c *cli) follow(args ...string) (end func() string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*clustertest.Patience)
	c.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, c.programs["cluster"], append([]string{"-c", c.name}, args...)...)
	cmd.Env = c.env
	r, err := cmd.StdoutPipe()
	require.NoError(c.t, err)
	require.NoError(c.t, cmd.Start())
	lines := bufio.NewReader(r)
	first, err := lines.ReadString('\n')
	require.NoError(c.t, err)
	return func() string {
		rest, err := io.ReadAll(lines)
		require.NoError(c.t, err)
		require.NoError(c.t, cmd.Wait())
		return first + string(rest)
	}
}

// testUsage: what is wrong in a call is said, with status 2, and a cluster that is not
// there has 3.
func testUsage(c *cli) {
	for _, args := range []string{
		"bogus", "status x", "scale", "scale x", "scale -1", "scale -- -1", "worker 0", "worker 0 x", "worker 0 kill x", "worker 0 pprof heap x", "worker 0 kill -o x", "status --bogus", "-c x --socket y status", "-c x",
		"run", "run -n x true", "run -n -1 true", "run --listen 8000 true", "run --listen tcp:// true", "run --name a/b true", "run --name \x1b true",
		"run --ready-notify --ready-after 1s true", "logs --tail -1", "logs --since noon", "logs 1 2", "run --ready-after -1s true", "run -c x true", "run --listen tcp://:0 " + c.programs["hello"],
		"run --ready-url http://x " + c.programs["hello"], "run --ready-after 1s " + c.programs["hello"],
	} {
		r := c.call(strings.Fields(args)...)
		require.Equal(c.t, exitUsage, r.code, "cluster %s: %s%s", args, r.out, r.err)
		require.Contains(c.t, r.err, "cluster: ", args)
		harmless(c.t, r.err)
	}
	require.Contains(c.t, c.call("scale").err, "usage: cluster scale N ")
	require.Contains(c.t, c.call("bogus").err, "cluster --help has the commands")
	version := c.call("--version")
	require.Zero(c.t, version.code)
	require.Regexp(c.t, `^cluster version \S+ \(go1\.`, version.out)
	for _, args := range everything {
		c.no(exitNone, "no cluster", args...)
		r := c.call(append(args, "--socket", filepath.Join(c.dir, "none"))...)
		require.Equal(c.t, exitNone, r.code, r.err)
		require.Contains(c.t, r.err, "nobody listens there")
	}
	for _, args := range []string{"run no-such-program", "run --log " + c.dir + "/no/log true", "run --listen bogus://x:1 true", "run --ready-after 2h true"} {
		r := c.call(strings.Fields(args)...)
		require.Equal(c.t, exitFailed, r.code, "cluster %s: %s%s", args, r.out, r.err)
	}
}

// testStopped: a master that is stopped is named by every command, and gets no order.
func testStopped(c *cli) {
	p := c.start(append([]string{"-n", "1", "--ready-after", "1ms"}, forever("echo up")...)...)
	c.ready(p, 1)
	workers := c.pids()
	pid := p.Cmd.Process.Pid
	clustertest.Pause(c.t, pid)
	var all sync.WaitGroup
	results := make([]result, len(everything)+1)
	for i, args := range everything {
		all.Go(func() { results[i] = c.call(append([]string{"-c", c.name}, args...)...) })
	}
	all.Go(func() { results[len(everything)] = c.call() })
	all.Wait()
	why := "the master (pid " + strconv.Itoa(pid) + ") does not answer: it is stopped"
	for _, r := range results[:len(everything)] {
		require.Equal(c.t, exitFailed, r.code, r.err)
		require.Contains(c.t, r.err, why)
	}
	require.Zero(c.t, results[len(everything)].code)
	require.Contains(c.t, results[len(everything)].out, why)
	p.Signal(syscall.SIGCONT)
	require.Equal(c.t, workers, c.pids())
	c.ok("stop")
	c.ended(p, workers)
}

// testKilled: whoever follows a master that is killed is told.
func testKilled(c *cli) {
	p := c.start(append([]string{"-n", "1", "--ready-after", "1ms"}, forever("echo up")...)...)
	c.ready(p, 1)
	workers := c.pids()
	cmd := exec.Command(c.programs["cluster"], "-c", c.name, "events", "-f")
	cmd.Env = c.env
	r, err := cmd.StdoutPipe()
	require.NoError(c.t, err)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	require.NoError(c.t, cmd.Start())
	_, err = bufio.NewReader(r).ReadString('\n')
	require.NoError(c.t, err)
	p.Signal(syscall.SIGKILL)
	cmd.Wait()
	require.Equal(c.t, exitFailed, cmd.ProcessState.ExitCode())
	require.Contains(c.t, stderr.String(), "has ended")
	p.Exit()
	c.no(exitNone, "no cluster", "status")
	clustertest.Eventually(c.t, func() bool { return syscall.Kill(workers[0], 0) != nil || !runs(workers[0]) }, "the end of the worker")
}

// runs reports whether a process is no zombie.
func runs(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// nasty is what a terminal would obey.
const nasty = "\x1b[2J\x07\r\n\u009b31m\u202e\x7f"

// testHostile: nothing that a master says reaches the terminal raw, in text or in JSON.
func testHostile(c *cli) {
	path := filepath.Join(c.dir, "socket")
	ln, err := net.Listen("unix", path)
	require.NoError(c.t, err)
	quoted := `"` + strings.NewReplacer("\x1b", `\u001b`, "\x07", `\u0007`, "\r", `\r`, "\n", `\n`).Replace(nasty) + `"`
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, strings.ReplaceAll(`{"pid":1,"target":1,"reload":{"error":X},"listeners":[{"network":X,"address":X,"scheduling":X}],
			"workers":[{"slot":0,"id":1,"name":X,"state":X,"status":X,"check":X,"last_exit":X}]}`, "X", quoted))
	})
	event := strings.ReplaceAll(`{"n":1,"event":"error","id":1,"address":X,"reason":X,"result":X,"text":X}`, "X", quoted) + "\n" +
		strings.ReplaceAll(`{"n":2,"event":X,"text":X}`, "X", quoted) + "\n" + strings.ReplaceAll(`{"n":1,"event":"death","id":1,"text":X}`, "X", quoted) + "\n"
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, event) })
	mux.HandleFunc("GET /logs", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, strings.ReplaceAll(`{"worker":X,"stream":X,"text":X}`, "X", quoted)+"\n")
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, nasty) })
	mux.HandleFunc("GET /workers/all/debug/stacks", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, nasty) })
	mux.HandleFunc("GET /workers/0/debug/", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		io.WriteString(w, `{"error":`+quoted+`}`)
	})
	mux.HandleFunc("POST /", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, event+`{"ok":false,"error":`+quoted+`}`)
	})
	mux.HandleFunc("POST /upgrade", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, nasty, http.StatusForbidden) })
	srv := &http.Server{Handler: mux}
	go srv.Serve(ln)
	defer srv.Close()
	for _, args := range everything {
		r := c.call(append(args, "--socket", path)...)
		require.NotEmpty(c.t, r.out+r.err)
		harmless(c.t, r.out+r.err)
		if strings.Contains("reload upgrade scale stop worker pprof", args[0]) {
			require.Equal(c.t, exitFailed, r.code, r.out)
			require.NotEmpty(c.t, r.err)
		}
	}
}

// testLogs: the flags of logs are asked for, and a master that does not know logs is said
// to be an older one.
func testLogs(c *cli) {
	path := filepath.Join(c.dir, "socket")
	ln, err := net.Listen("unix", path)
	require.NoError(c.t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /logs", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"worker":"2","id":7,"stream":"stdout","text":"\tasked `+r.URL.RawQuery+`"}`+"\n")
	})
	srv := &http.Server{Handler: mux}
	go srv.Serve(ln)
	defer srv.Close()
	r := c.call("--socket", path, "logs", "-f", "--since", "10m", "--tail", "0", "2")
	require.Equal(c.t, result{out: "socket.2 | \tasked follow=1&since=10m&tail=0&worker=2\n"}, r)
	r = c.call("--socket", path, "logs", "-j", "--since", "2006-01-02T15:04:05Z")
	require.Contains(c.t, r.out, `asked since=2006-01-02T15%3A04%3A05Z"}`)
	r = c.call("--socket", path, "metrics")
	require.Equal(c.t, exitFailed, r.code)
	require.Contains(c.t, r.err, "an older one")
}

// testHostileWorker: nor does what a worker prints, on the terminal or in the log.
func testHostileWorker(c *cli) {
	file := filepath.Join(c.dir, "nasty")
	require.NoError(c.t, os.WriteFile(file, []byte(nasty+"\n"+`{"a":"`+"\u009b\u202e"+`"}`+"\n\xff\ttab\n"), 0o600))
	for _, flag := range []string{"", "-j"} {
		args := append([]string{"-n", "1"}, strings.Fields(flag)...)
		p := c.start(append(args, forever("cat '"+file+"'; echo end")...)...)
		clustertest.Eventually(c.t, func() bool { return strings.Contains(p.Output(), "end") }, "the end")
		p.Terminate()
		harmless(c.t, p.Output())
		require.Contains(c.t, p.Output(), `\u009b\u202e`)
	}
}

// testSeveral: with one cluster none need be named, with several one must. Each user has
// its own.
func testSeveral(c *cli) {
	if os.Getuid() != 0 {
		c.t.Skip("not root: this user may have other clusters")
	}
	c.another()
	r := c.call()
	require.Equal(c.t, result{out: "no cluster of this user runs\n"}, r)
	require.Equal(c.t, exitNone, c.call("status").code)
	one := c.start(append([]string{"-n", "1", "--ready-after", "1ms"}, forever("echo up")...)...)
	c.ready(one, 1)
	require.Zero(c.t, c.call("status").code)
	two := c.start(append([]string{"-n", "1", "--ready-after", "1ms"}, forever("echo up")...)...)
	c.ready(two, 1)
	r = c.call("stop")
	require.Equal(c.t, exitUsage, r.code)
	first, second := c.name+"."+strconv.Itoa(one.Cmd.Process.Pid), c.name+"."+strconv.Itoa(two.Cmd.Process.Pid)
	require.Contains(c.t, r.err, first)
	require.Contains(c.t, r.err, second)
	require.Equal(c.t, exitUsage, c.call("-c", c.name, "stop").code)
	completed := c.call("__complete", "stop", "-c", "").out
	require.Contains(c.t, completed, first+"\n")
	require.Contains(c.t, completed, second+"\n")
	require.NotContains(c.t, completed, c.name+"\n", "it is of both")
	r = c.call()
	require.Equal(c.t, 3, strings.Count(r.out, "\n"), r.out)
	require.Equal(c.t, 2, strings.Count(r.out, " 1 of 1 ready\n"), r.out)
	require.Zero(c.t, c.call("-c", second, "stop").code)
	require.Zero(c.t, two.Exit())
	require.Zero(c.t, c.call("stop").code)
	require.Zero(c.t, one.Exit())
}

// testCompletion: a shell completes names of clusters.
func testCompletion(c *cli) {
	p := c.start(append([]string{"-n", "1", "--ready-after", "1ms"}, forever("echo up")...)...)
	c.ready(p, 1)
	require.Contains(c.t, c.call("__complete", "status", "-c", "").out, c.name+"\n")
	require.Contains(c.t, c.call("__complete", "worker", "0", "").out, "restart\n")
	require.Contains(c.t, c.call("completion", "bash").out, "complete ")
	p.Terminate()
}
