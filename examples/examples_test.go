//go:build unix

// Package examples has the tests of the example programs: each is built,
// started, used as its comment says, and ended with Ctrl-C.
package examples

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// bin is where the example programs are.
var bin string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "cluster-examples")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	if out, err := exec.Command("go", "build", "-o", dir+"/", "./...").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// patience bounds every wait; it measures nothing.
const patience = 30 * time.Second

// example is a program under test, with two workers unless it says otherwise.
type example struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
	done  chan struct{} // closed when it has exited

	manager *clustertest.Manager
	once    sync.Once // waits for it

	mu  sync.Mutex
	log strings.Builder
}

func start(t *testing.T, name string, args ...string) *example {
	t.Helper()
	e := &example{t: t, lines: make(chan string, 10000), done: make(chan struct{}), manager: clustertest.NewManager(t)}
	e.cmd = exec.Command(filepath.Join(bin, name), args...)
	e.cmd.Env = append(os.Environ(), "GOMAXPROCS=2", e.manager.Env)
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r, w, err := os.Pipe()
	require.NoError(t, err)
	e.cmd.Stdout, e.cmd.Stderr = w, w
	require.NoError(t, e.cmd.Start())
	w.Close()
	go func() {
		defer r.Close()
		for s := bufio.NewScanner(r); s.Scan(); {
			e.mu.Lock()
			fmt.Fprintln(&e.log, s.Text())
			e.mu.Unlock()
			e.lines <- s.Text()
		}
	}()
	go func() {
		e.cmd.Wait()
		close(e.done)
	}()
	t.Cleanup(func() {
		syscall.Kill(-e.cmd.Process.Pid, syscall.SIGKILL)
		<-e.done
		if t.Failed() {
			e.mu.Lock()
			defer e.mu.Unlock()
			t.Logf("output of %s:\n%s", name, e.log.String())
		}
	})
	return e
}

// expect waits for a line that matches and returns its submatches.
func (e *example) expect(pattern string) []string {
	e.t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(patience)
	for {
		select {
		case line := <-e.lines:
			if m := re.FindStringSubmatch(line); m != nil {
				return m
			}
		case <-timeout:
			require.FailNow(e.t, "no line like "+pattern)
		}
	}
}

// address waits until both workers listen, and returns where.
func (e *example) address() string {
	e.t.Helper()
	e.expect(`listening on (\S+)$`)
	return e.expect(`listening on (\S+)$`)[1]
}

// inRun waits until signals are handled: see clustertest.
func (e *example) inRun() {
	e.t.Helper()
	e.once.Do(e.manager.InRun)
}

// ctrlC does what a terminal does: all processes of the group get a SIGINT.
// The status must be 0, and no process of the group may be left.
func (e *example) ctrlC() {
	e.t.Helper()
	e.inRun()
	group := -e.cmd.Process.Pid
	require.NoError(e.t, syscall.Kill(group, syscall.SIGINT))
	e.end()
}

func (e *example) end() {
	e.t.Helper()
	select {
	case <-e.done:
	case <-time.After(patience):
		require.FailNow(e.t, "it does not end")
	}
	require.Equal(e.t, 0, e.cmd.ProcessState.ExitCode(), "exit status: %v", e.cmd.ProcessState)
	require.Eventually(e.t, func() bool { return syscall.Kill(-e.cmd.Process.Pid, 0) == syscall.ESRCH },
		patience, 5*time.Millisecond, "processes are left")
}

// client opens a connection for each request, so that all workers get some.
var client = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}

func get(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	resp, err := c.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s", b)
	return string(b)
}

// answers calls ask until both workers have answered.
func answers(t *testing.T, ask func() string) {
	t.Helper()
	seen := make(map[string]bool)
	re := regexp.MustCompile(`worker (\d+)`)
	require.Eventually(t, func() bool {
		m := re.FindStringSubmatch(ask())
		require.NotNil(t, m)
		seen[m[1]] = true
		return len(seen) == 2
	}, patience, time.Millisecond, "only some workers answer: %v", seen)
}

// refused reports that nothing listens on the address any more.
func refused(t *testing.T, network, addr string) {
	t.Helper()
	_, err := net.Dial(network, addr)
	require.Error(t, err)
}

// TestHello: all workers answer on one port, as the README's first minute says.
func TestHello(t *testing.T) {
	e := start(t, "hello", "-addr", "127.0.0.1:0")
	e.expect(`^worker \d+ \(pid \d+\) online$`)
	addr := e.address()
	answers(t, func() string { return get(t, client, "http://"+addr) })
	e.ctrlC()
	refused(t, "tcp", addr)
}

// TestHelloTerminated: kill, which reaches the master alone, is as good as
// Ctrl-C.
func TestHelloTerminated(t *testing.T) {
	e := start(t, "hello", "-addr", "127.0.0.1:0")
	addr := e.address()
	get(t, client, "http://"+addr)
	e.inRun()
	require.NoError(t, e.cmd.Process.Signal(syscall.SIGTERM))
	e.end()
	refused(t, "tcp", addr)
}

// TestHelloPortTaken: an address in use is named in the error, and the exit
// status is not 0.
func TestHelloPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	e := start(t, "hello", "-addr", ln.Addr().String())
	e.expect(regexp.QuoteMeta(ln.Addr().String()) + `.*address already in use`)
	select {
	case <-e.done:
	case <-time.After(patience):
		require.FailNow(t, "it does not give up")
	}
	require.Equal(t, 1, e.cmd.ProcessState.ExitCode())
}

// TestCounter: the master counts what the workers report, those included that
// were forked later.
func TestCounter(t *testing.T) {
	e := start(t, "counter", "-addr", "127.0.0.1:0")
	addr := e.address()
	for range 20 {
		get(t, client, "http://"+addr)
	}
	e.expect(`^numReqs = 20$`)
	if runtime.GOOS == "linux" {
		for _, pid := range children(e.cmd.Process.Pid) {
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		}
		e.address() // two new ones
		for range 20 {
			get(t, client, "http://"+addr)
		}
		e.expect(`^numReqs = 40$`)
	}
	e.ctrlC()
}

func children(pid int) (pids []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, l := range lists {
		b, _ := os.ReadFile(l)
		for _, f := range strings.Fields(string(b)) {
			n, _ := strconv.Atoi(f)
			pids = append(pids, n)
		}
	}
	return pids
}

// TestEvents: the life of a worker that crashes is logged in order, and another
// one takes its place.
func TestEvents(t *testing.T) {
	e := start(t, "events", "-addr", "127.0.0.1:0")
	addr := e.address()
	_, err := client.Get("http://" + addr + "/crash")
	require.Error(t, err)
	id := e.expect(`worker (\d+): message "about to crash"`)[1]
	e.expect(`worker ` + id + `: disconnected`)
	e.expect(`worker ` + id + `: died, exit status 1 .* voluntary false`)
	e.expect(`worker 3: forked, pid \d+`)
	e.expect(`worker 3: online`)
	e.expect(`worker 3: listening on ` + addr)
	require.Equal(t, "ok\n", get(t, client, "http://"+addr))
	e.ctrlC()
	e.expect(`worker 3: died, exit status 0 .* voluntary true`)
}

// TestEventsTimeout: a worker that does not listen in time is complained about.
func TestEventsTimeout(t *testing.T) {
	e := start(t, "events", "-addr", "127.0.0.1:0")
	addr := e.address()
	for {
		client.Get("http://" + addr + "/crash")
		pid, err := strconv.Atoi(e.expect(`forked, pid (\d+)`)[1])
		require.NoError(t, err)
		syscall.Kill(pid, syscall.SIGSTOP)
		// It may have been quicker than the signal: then once more.
		what := e.expect(`listening on|something must be wrong`)[0]
		syscall.Kill(pid, syscall.SIGCONT)
		if what == "something must be wrong" {
			break
		}
	}
	e.expect(`listening on`)
	e.ctrlC()
}

// TestMessages: receipts, typed messages and requests reach the right side.
func TestMessages(t *testing.T) {
	e := start(t, "messages")
	want := make(map[string]bool)
	for _, id := range []string{"1", "2"} {
		want["worker "+id+": received the task, error <nil>"] = true
		want["worker "+id+": the square of 7 is 49"] = true
		want["worker "+id+": the double of 21 is 42, error <nil>"] = true
		want["worker "+id+": the master says \"welcome, worker "+id+"\""] = true
	}
	for len(want) > 0 {
		delete(want, e.expect(`^worker.*`)[0])
	}
	e.ctrlC()
}

// TestTCP: the echo server drains without waiting for clients that are silent.
func TestTCP(t *testing.T) {
	e := start(t, "tcp", "-addr", "127.0.0.1:0")
	addr := e.address()
	var conns []net.Conn
	for range 8 {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		for _, text := range []string{"hello\n", "again\n"} {
			_, err = io.WriteString(c, text)
			require.NoError(t, err)
			line := make([]byte, len(text))
			_, err = io.ReadFull(c, line)
			require.NoError(t, err)
			require.Equal(t, text, string(line))
		}
		conns = append(conns, c)
	}
	begun := time.Now()
	e.ctrlC()
	require.Less(t, time.Since(begun), 20*time.Second, "it waited until its time was up")
	for _, c := range conns {
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
	refused(t, "tcp", addr)
}

// TestUDP: both workers answer datagrams to one port.
func TestUDP(t *testing.T) {
	e := start(t, "udp", "-addr", "127.0.0.1:0")
	addr := e.address()
	c, err := net.Dial("udp", addr)
	require.NoError(t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	buf := make([]byte, 100)
	for range 20 {
		_, err = io.WriteString(c, "hello")
		require.NoError(t, err)
		n, err := c.Read(buf)
		require.NoError(t, err)
		require.Regexp(t, `^worker \d+: hello$`, string(buf[:n]))
	}
	e.ctrlC()
}

// TestUnix: HTTP over a unix socket whose file has the mode asked for, takes
// the place of a dead process's, and is gone at the end.
func TestUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	old.SetUnlinkOnClose(false)
	old.Close()

	e := start(t, "unix", "-path", path)
	require.Equal(t, path, e.address())
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o660), info.Mode().Perm())
	c := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	answers(t, func() string { return get(t, c, "http://localhost/") })
	e.ctrlC()
	_, err = os.Stat(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestDrain: a request in flight at Ctrl-C is answered, then the hooks run,
// first the worker's and last the master's.
func TestDrain(t *testing.T) {
	e := start(t, "drain", "-addr", "127.0.0.1:0")
	addr := e.address()
	type answer struct {
		text string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		resp, err := client.Get("http://" + addr + "/?takes=2s")
		if err != nil {
			answered <- answer{err: err}
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		answered <- answer{string(b), err}
	}()
	worker := e.expect(`^(worker \d+) works for 2s$`)[1]
	e.ctrlC()
	a := <-answered
	require.NoError(t, a.err)
	require.Equal(t, worker+" took 2s; asked to stop meanwhile: true\n", a.text)
	e.expect(`^` + worker + ` has finished$`)
	e.expect(`^master has finished$`)
}

// TestExec: the master runs workers of another program, with its arguments.
func TestExec(t *testing.T) {
	e := start(t, "exec", "-workers", "2", filepath.Join(bin, "hello"), "-addr", "127.0.0.1:0")
	addr := e.address()
	answers(t, func() string { return get(t, client, "http://"+addr) })
	e.ctrlC()
	refused(t, "tcp", addr)
}

// TestExecNode: the other program may be a node script.
func TestExecNode(t *testing.T) {
	script := filepath.Join(t.TempDir(), "server.js")
	require.NoError(t, os.WriteFile(script, []byte(`
		require('http').createServer((req, res) => {
			res.end('hello from worker ' + require('cluster').worker.id + '\n');
		}).listen(0, '127.0.0.1');
	`), 0o600))
	e := start(t, "exec", "-workers", "2", nodeBinary(t), script)
	addr := e.address()
	answers(t, func() string { return get(t, client, "http://"+addr) })
	e.ctrlC()
	refused(t, "tcp", addr)
}

// TestTLS: a session is resumed on both workers, before a reload and after it, and the
// reload has brought the new certificate.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	files := []string{"-cert", filepath.Join(dir, "cert.pem"), "-key", filepath.Join(dir, "key.pem")}
	generate := func() {
		out, err := exec.Command(filepath.Join(bin, "tls"), append(files, "-make")...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	generate()
	e := start(t, "tls", append(files, "-addr", "127.0.0.1:0")...)
	addr := e.address()
	cache := tls.NewLRUClientSessionCache(1)
	tr := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ClientSessionCache: cache}}
	c := &http.Client{Timeout: patience, Transport: tr}
	require.Contains(t, get(t, c, "https://"+addr), "resumed: false")
	resumed := func() string {
		text := get(t, c, "https://"+addr)
		require.Contains(t, text, "resumed: true")
		return text
	}
	answers(t, resumed)
	old := serial(t, addr)
	generate()
	e.inRun()
	require.NoError(t, e.cmd.Process.Signal(syscall.SIGHUP))
	e.expect(`^reloaded 2 workers, error <nil>$`)
	answers(t, resumed)
	require.NotEqual(t, old, serial(t, addr))
	e.ctrlC()
}

// serial is the number of the certificate that addr serves with.
func serial(t *testing.T, addr string) string {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	require.NoError(t, err)
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}
