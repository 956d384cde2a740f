package cluster_test

// The tests' tools. Processes are real: TestMain executes the test binary again
// as one of the programs that the test files register, as a worker of the test
// process, or as a master of its own with workers of its own.

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

const programEnv = "CLUSTER_TEST_PROGRAM"

// programs are what the test binary can be run as.
var programs = map[string]func(){}

// program registers fn as the main function of a process. When it returns the
// process exits with 0.
func program(name string, fn func()) string {
	if programs[name] != nil {
		panic("program " + name + " twice")
	}
	programs[name] = fn
	return name
}

// runProgram is what a program is that begins as another.
func runProgram(name string) { programs[name]() }

// Main is the TestMain of a package whose tests start processes: they are the test
// binary again, as one of its programs.
func Main(m *testing.M) {
	if name := os.Getenv(programEnv); name != "" {
		if programs[name] == nil {
			fmt.Fprintln(os.Stderr, "no test program", name)
			os.Exit(3)
		}
		prepareProgram()
		runProgram(name)
		os.Exit(0)
	}
	// Under the race detector every process would sleep for a second at its end.
	os.Setenv("GORACE", strings.TrimSpace("atexit_sleep_ms=0 "+os.Getenv("GORACE")))
	// The goroutine of os/signal stays once it runs: let it be there before the
	// first count.
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt)
	signal.Stop(c)
	prepareTests()
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	// What runs in processes of its own mostly waits for a drain: more of that can
	// go on at a time than there are cores.
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		flag.Set("test.parallel", "8")
	}
	os.Exit(m.Run())
}

// patience bounds every wait of a test: it is there to end a test that hangs,
// not to measure anything.
const patience = 30 * time.Second

// long reports whether the tests that take minutes are to be run in full.
func long() bool { return os.Getenv("CLUSTER_LONG") == "1" }

// withMaster makes the test process a master whose workers run the program. At
// the end of the test the cluster is stopped and nothing of it may be left.
func withMaster(t testing.TB, programName string, o cluster.Options) {
	t.Helper()
	checkLeaks(t)
	o.Env = append([]string{programEnv + "=" + programName}, o.Env...)
	require.NoError(t, cluster.SetupMaster(o))
	var forks, deaths atomic.Int32
	stopFork := cluster.OnFork(func(*cluster.Process) { forks.Add(1) })
	stopDeath := cluster.OnDeath(func(*cluster.Process, cluster.Exit) { deaths.Add(1) })
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := cluster.Disconnect(ctx); err != nil && !t.Failed() {
			t.Logf("cleanup: %v", err)
		}
		// Disconnect does not wait for callbacks; the next test must not hear of
		// this one's workers.
		for end := time.Now().Add(patience); deaths.Load() != forks.Load() && !t.Failed() && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		stopFork()
		stopDeath()
		require.NoError(t, cluster.SetupMaster(cluster.Options{}))
	})
}

const apartEnv = "CLUSTER_TEST_APART"

// apart runs the test in a process of its own, beside others, and reports that it
// did: a process is one master at a time, and what one test of it counts is
// another's. A test that takes long calls it first.
func apart(t *testing.T) (done bool) {
	t.Helper()
	if os.Getenv(apartEnv) != "" {
		return false
	}
	t.Parallel()
	given := func(name string) string { return flag.Lookup("test." + name).Value.String() }
	_, subtests, _ := strings.Cut(given("run"), "/")
	subtests, _, _ = strings.Cut(subtests, "|") // from there on another test
	c := exec.Command(os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$/"+subtests, "-test.timeout="+given("timeout"))
	c.Env = append(os.Environ(), apartEnv+"=1")
	c.WaitDelay = patience // for what it might leave behind
	out, err := c.CombinedOutput()
	switch end := fmt.Sprintf(": %s (", t.Name()); {
	case err == nil && strings.Contains(string(out), "--- SKIP"+end):
		t.Skipf("%s", out)
	case err != nil || !strings.Contains(string(out), "--- PASS"+end):
		t.Fatalf("%v\n%s", err, out)
	case testing.Verbose():
		t.Logf("%s", out)
	}
	return true
}

// checkLeaks compares descriptors, goroutines and children at the end of the
// test with those at its beginning.
func checkLeaks(t testing.TB) {
	t.Helper()
	before := census()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		var after counts
		deadline := time.Now().Add(patience)
		for {
			after = census()
			if after.fds <= before.fds && after.goroutines <= before.goroutines && len(after.children) <= len(before.children) {
				return
			}
			if t.Failed() || time.Now().After(deadline) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if !t.Failed() {
			stacks := make([]byte, 1<<20)
			t.Errorf("left behind: before %+v, after %+v\n%s", before, after, stacks[:runtime.Stack(stacks, true)])
		}
	})
}

type counts struct {
	fds, goroutines int
	children        []string
}

func census() counts {
	return counts{goroutines: runtime.NumGoroutine(), fds: openFiles(), children: children(os.Getpid())}
}

// await returns what comes over c, or fails the test.
func await[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		stacks := make([]byte, 1<<20)
		t.Fatalf("no %s within %v\n%s", what, patience, stacks[:runtime.Stack(stacks, true)])
		panic("unreachable")
	}
}

// eventually polls cond: for states of the system that send no event.
func eventually(t testing.TB, cond func() bool, what string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// recorder collects events as lines of text, in order.
type recorder struct {
	mu    sync.Mutex
	lines []string
	ch    chan string
}

func newRecorder() *recorder { return &recorder{ch: make(chan string, 10000)} }

func (r *recorder) add(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.lines = append(r.lines, line)
	r.mu.Unlock()
	r.ch <- line
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.lines...)
}

// until waits for a line that has the prefix.
func (r *recorder) until(t testing.TB, prefix string) string {
	t.Helper()
	for {
		if line := await(t, r.ch, prefix); strings.HasPrefix(line, prefix) {
			return line
		}
	}
}

// proc is a process of its own: usually a master with workers.
type proc struct {
	t     testing.TB
	cmd   *exec.Cmd
	lines chan string
	mu    sync.Mutex
	log   strings.Builder
	done  chan struct{} // closed when it has exited
	group processGroup  // it and its workers
}

// start runs a program in a process of its own, with its own process group.
func start(t testing.TB, programName string, env ...string) *proc {
	t.Helper()
	return startCmd(t, exec.Command(os.Args[0]), programName, env...)
}

// startCmd is start with a command that runs the test binary in its own way.
func startCmd(t testing.TB, cmd *exec.Cmd, programName string, env ...string) *proc {
	t.Helper()
	p := &proc{t: t, cmd: cmd, lines: make(chan string, 10000), done: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), programEnv+"="+programName), env...)
	ownGroup(p.cmd)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	p.cmd.Stdout, p.cmd.Stderr = w, w
	require.NoError(t, p.cmd.Start())
	p.group = groupOf(p.cmd.Process)
	w.Close()
	go func() {
		defer r.Close()
		for s := bufio.NewScanner(r); s.Scan(); {
			p.mu.Lock()
			fmt.Fprintln(&p.log, s.Text())
			p.mu.Unlock()
			p.lines <- s.Text()
		}
	}()
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.group.kill()
		<-p.done
		if t.Failed() {
			t.Logf("output of %s:\n%s", programName, p.output())
		}
	})
	return p
}

func (p *proc) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// expect waits for a line that begins with prefix and returns the rest of it.
func (p *proc) expect(prefix string) string {
	p.t.Helper()
	for {
		if rest, ok := strings.CutPrefix(await(p.t, p.lines, "line "+prefix), prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
}

func (p *proc) signal(sig os.Signal) {
	p.t.Helper()
	kill(p.t, p.cmd.Process.Pid, sig.(syscall.Signal))
}

// exit waits for the end and returns the exit status, -1 after a signal.
func (p *proc) exit() int {
	p.t.Helper()
	await(p.t, p.done, "exit")
	return p.cmd.ProcessState.ExitCode()
}

// groupEmpty waits until no process of the program's group is left.
func (p *proc) groupEmpty() {
	p.t.Helper()
	eventually(p.t, func() bool { return !p.group.runs() }, "the end of all its processes")
}

// get fetches url on a connection of its own.
func get(url string) (string, error) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s: %s", resp.Status, b)
	}
	return string(b), err
}

// die ends a test program with an error.
func die(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "FATAL", err)
		os.Exit(1)
	}
}

// port of an address, for a test that dials it.
func dialable(addr net.Addr) string {
	_, port, _ := net.SplitHostPort(addr.String())
	return "127.0.0.1:" + port
}

// freePort returns a port that nobody has just now, of any address, and that
// nobody is given who asks for a free one before the test comes to use it: it is
// below those that systems give.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		if ln, err := net.Listen("tcp", ":"+strconv.Itoa(port)); err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// tempDir is a directory that goes with the test. Wine cannot remove a directory
// as t.TempDir does.
func tempDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "cluster")
	require.NoError(t, err)
	t.Cleanup(func() {
		filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
			if err == nil && !info.IsDir() {
				os.Remove(path)
			}
			return nil
		})
		os.Remove(dir)
	})
	return dir
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// requireKilled checks how a worker ended that was killed.
func requireKilled(t testing.TB, e cluster.Exit) {
	t.Helper()
	require.Equal(t, system.killed, fmt.Sprint(e.Code, " ", e.Signal))
}

// inModule is the path of a file of this module: tests run in the directory of
// their package.
func inModule(elem ...string) string {
	dir, err := os.Getwd()
	die(err)
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(append([]string{dir}, elem...)...)
		}
		if dir == filepath.Dir(dir) {
			die(errors.New("no go.mod above " + dir))
		}
		dir = filepath.Dir(dir)
	}
}
