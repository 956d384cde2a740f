//go:build unix

package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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

// moveLink makes path lead to file, in one step, as a deployment does.
func moveLink(t *testing.T, file, path string) {
	t.Helper()
	require.NoError(t, os.Symlink(file, path+".new"))
	require.NoError(t, os.Rename(path+".new", path))
}

// TestReloadRunsTheNewBinary: a reload takes the file to which the master's path
// leads now; a crashed worker is replaced by what its slot ran. When there is no
// such file the reload fails, and the old workers go on.
func TestReloadRunsTheNewBinary(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	v1, v2, current := filepath.Join(dir, "v1"), filepath.Join(dir, "v2"), filepath.Join(dir, "current")
	copyBinary(t, v1)
	copyBinary(t, v2)
	moveLink(t, v1, current)
	s := supervision{Workers: 2}
	p := startCmd(t, exec.Command(current), supervisor, supervise1(t, &s, nil)...)
	ups := p.ups(2)
	runs := func(e event, exe string) {
		t.Helper()
		require.Equal(t, exe, e.rest[1])
	}
	runs(ups[0], v1)
	moveLink(t, v2, current)
	kill(t, ups[0].pid, syscall.SIGKILL)
	ups[0] = p.event("up")
	runs(ups[0], v1)

	p.signal(syscall.SIGHUP)
	rests := p.all("up 0 ", "up 1 ", "reload", died(ups[0], cluster.ReasonReload), died(ups[1], cluster.ReasonReload))
	for i := range ups {
		ups[i] = parseEvent(itoa(i) + " " + rests[i])
		runs(ups[i], v2)
	}
	require.Equal(t, " 2 2 <nil>", rests[2])

	moveLink(t, filepath.Join(dir, "v3"), current)
	p.signal(syscall.SIGHUP)
	require.Contains(t, p.expect("reload 0 2"), "no such file")
	kill(t, ups[1].pid, syscall.SIGKILL)
	runs(p.event("up"), v2)
	p.terminate()
}

// versioned is a worker that says in its environment which version it is.
var versioned = program("versioned", func() {
	if text := os.Getenv("BROKEN"); text != "" {
		fmt.Fprintln(os.Stdout, "a line of output")
		fmt.Fprintln(os.Stderr, text)
		os.Exit(3)
	}
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	die(err)
	go ln.Accept()
	serveOrders()
	select {}
})

// TestReloadOfOptionsExec: the program of Options.Exec is held as well: what a
// deployment puts in its place comes with the reload. A script is executed by
// its path, at every fork.
func TestReloadOfOptionsExec(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "program")
	v1, v2 := filepath.Join(dir, "v1"), filepath.Join(dir, "v2")
	copyBinary(t, v1)
	copyBinary(t, v2)
	script := func(version string) {
		writeProgram(t, link+".sh", []byte("#!/bin/sh\nexec "+version+" \"$@\"\n"))
	}
	exe := func(w *cluster.Process) string { return ask[about](t, w, order{Cmd: "about"}).Exe }
	for name, c := range map[string]struct {
		exec   string
		deploy func(version string)
		pinned bool
	}{
		"binary": {link, func(v string) { moveLink(t, v, link) }, true},
		"script": {link + ".sh", script, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.deploy(v1)
			withMaster(t, versioned, cluster.Options{Workers: 1, Exec: c.exec})
			listening := listenings(t)
			require.NoError(t, cluster.AutoFork())
			w := await(t, listening, "listening")
			require.Equal(t, v1, exe(w))
			c.deploy(v2)
			require.NoError(t, w.OSProcess().Kill())
			w = await(t, listening, "listening")
			if c.pinned {
				require.Equal(t, v1, exe(w))
			} else {
				require.Equal(t, v2, exe(w))
			}
			require.NoError(t, cluster.Reload(within(t, patience)))
			require.Equal(t, v2, exe(await(t, listening, "listening")))
		})
	}
}

// TestReloadFailureTellsWhy: the error has the exit and the last lines of the
// new worker's standard error, wherever that goes; the old workers stay, and the
// next reload works.
func TestReloadFailureTellsWhy(t *testing.T) {
	for name, output := range map[string]func(*cluster.Process) (stdout, stderr io.Writer){
		"inherited":  nil,
		"one writer": newLineWriter().both,
		"stderr": func(*cluster.Process) (stdout, stderr io.Writer) {
			return nil, new(bytes.Buffer)
		},
	} {
		t.Run(name, func(t *testing.T) {
			withMaster(t, versioned, cluster.Options{Workers: 2, Output: output})
			listening := listenings(t)
			require.NoError(t, cluster.AutoFork())
			for range 2 {
				await(t, listening, "listening")
			}
			old, before := cluster.Workers(), cluster.Stats().Generation
			o := cluster.Settings()
			good := o.Env
			o.Env = append(o.Env, "BROKEN=the configuration is wrong")
			require.NoError(t, cluster.SetupMaster(o))
			results := make(chan cluster.ReloadResult, 1)
			hook(t, cluster.OnReload(func(r cluster.ReloadResult) { results <- r }))
			err := cluster.Reload(within(t, patience))
			require.ErrorContains(t, err, "slot 0")
			require.ErrorContains(t, err, "exit status 3")
			require.ErrorContains(t, err, "the configuration is wrong")
			r := await(t, results, "result")
			require.Equal(t, err, r.Err)
			require.Zero(t, r.Replaced)
			require.Equal(t, before, r.Generation)
			require.Equal(t, old, cluster.Workers())
			for _, w := range old {
				require.Equal(t, cluster.Ready, w.State())
			}
			o.Env = good
			require.NoError(t, cluster.SetupMaster(o))
			require.NoError(t, cluster.Reload(within(t, patience)))
			r = await(t, results, "result")
			require.NoError(t, r.Err)
			require.Equal(t, 2, r.Replaced)
			require.Greater(t, r.Generation, before)
			require.Equal(t, r.Generation, cluster.Stats().Generation)
			for _, w := range old {
				require.True(t, w.IsDead(), "it is done when they are gone")
			}
		})
	}
}

// TestReloadInTheWrongPlace: without AutoFork there is nothing to reload.
func TestReloadInTheWrongPlace(t *testing.T) {
	require.ErrorIs(t, cluster.Reload(context.Background()), cluster.ErrNoWorkers)
}

// inWorker is a worker that calls what only the master may.
var inWorker = program("in-worker", func() {
	cluster.Respond("errors", func(*cluster.Process, order) (string, error) {
		if errors.Is(cluster.Reload(context.Background()), cluster.ErrNotMaster) && errors.Is(cluster.Scale(1), cluster.ErrNotMaster) &&
			cluster.Stats().PID == 0 {
			return "as expected", nil
		}
		return "", nil
	})
	select {}
})

// TestSupervisionIsTheMasters: Reload, Scale and Stats do nothing in a worker.
func TestSupervisionIsTheMasters(t *testing.T) {
	withMaster(t, inWorker, cluster.Options{})
	require.Equal(t, "as expected", ask[string](t, forkOne(t), order{Cmd: "errors"}))
}

// TestStderrIsHandedOver: what a worker says before it is ready passes through
// the master; from then on its standard error is the master's own.
func TestStderrIsHandedOver(t *testing.T) {
	withMaster(t, obedient, cluster.Options{})
	fd2 := func(pid string) string {
		file, err := os.Readlink("/proc/" + pid + "/fd/2")
		require.NoError(t, err)
		return file
	}
	w := forkOne(t)
	pid := strconv.Itoa(w.PID())
	ask[about](t, w, order{Cmd: "about"})
	require.NotEqual(t, fd2("self"), fd2(pid))
	ask[string](t, w, order{Cmd: "listen"})
	eventually(t, func() bool { return fd2(pid) == fd2("self") }, "the master's standard error in the worker")
}

// TestMasterOutlivesItsStderr: that nobody reads the master's standard error any
// more ends neither it nor a worker that has something to say before it is ready.
func TestMasterOutlivesItsStderr(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	r.Close()
	defer w.Close()
	s := supervision{Workers: 1, Env: []string{"FAIL=" + os.Args[0]}, MaxBootFailures: -1, Quiet: true} // it says so and exits
	cmd := exec.Command("/bin/sh", "-c", `exec "$0" 2>&3 3>&-`, os.Args[0])
	cmd.ExtraFiles = []*os.File{w}
	p := startCmd(t, cmd, supervisor, supervise1(t, &s, nil)...)
	for range 4 {
		require.Equal(t, []string{"crash", "3"}, p.event("dead").rest)
	}
	p.terminate()
}

// TestSignalsOfRun: HUP reloads, TTIN and TTOU scale, not under one. Workers
// leave these signals to the master, as they come to the whole group of a
// terminal.
func TestSignalsOfRun(t *testing.T) {
	t.Parallel()
	p, ups := supervise(t, supervision{Workers: 1})
	group := func(sig syscall.Signal) { kill(t, -p.cmd.Process.Pid, sig) }
	group(syscall.SIGTTIN)
	second := p.event("up")
	require.Equal(t, 1, second.slot)
	require.Equal(t, 2, p.stats().Target)
	group(syscall.SIGTTOU)
	p.dead(second.pid, cluster.ReasonScale)
	group(syscall.SIGTTOU)
	group(syscall.SIGHUP)
	rests := p.all("up 0 ", "reload ", died(ups[0], cluster.ReasonReload))
	require.Equal(t, "1 2 <nil>", rests[1])
	s := p.stats()
	require.Equal(t, 1, s.Target)
	require.Equal(t, parseEvent("0 "+rests[0]).pid, s.Workers[0].PID)
	p.terminate()
}

// TestNoSignals: they are the program's own; even SIGTERM does what it does to
// any program, and the workers drain as their master is gone.
func TestNoSignals(t *testing.T) {
	t.Parallel()
	p, ups := supervise(t, supervision{Workers: 1, NoSignals: true})
	p.signal(syscall.SIGHUP)
	p.expect("own hangup")
	s := p.stats()
	require.Equal(t, ups[0].pid, s.Workers[0].PID)
	require.Equal(t, 1, s.Generation)
	p.signal(syscall.SIGTERM)
	require.Equal(t, -1, p.exit())
	p.groupEmpty()
}

// ---- no request is lost

// echoing serves the same over HTTP and over a protocol of its own, on the
// addresses of the environment.
var echoing = program("echoing", func() {
	generation := os.Getenv("GENERATION")
	raw, err := cluster.Listen(os.Getenv("NETWORK"), os.Getenv("RAW"))
	die(err)
	go func() {
		for {
			c, err := raw.Accept()
			die(err)
			go echoRaw(c, generation)
		}
	}()
	ln, err := cluster.Listen(os.Getenv("NETWORK"), os.Getenv("HTTP"))
	die(err)
	die(cluster.Serve(ln, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("Generation", generation)
		w.Write(body)
	})}))
})

// echoRaw answers one connection's lines: the generation and the line.
func echoRaw(c net.Conn, generation string) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 32<<10)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, generation+" "+line); err != nil {
			return
		}
	}
}

// load are clients in closed loops that never try again.
type load struct {
	t             *testing.T
	network       string
	http, raw     string
	body          []byte
	oldest        atomic.Int64 // the generation that may answer
	requests      atomic.Int64
	stop          chan struct{}
	excuse        func(began time.Time, err error) bool // of a request that may fail; nil: none may
	running       sync.WaitGroup
	mu            sync.Mutex
	failures      []error
	failuresCount int
}

func (l *load) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

func (l *load) run(client func() error) {
	l.running.Go(func() {
		for !l.stopped() {
			began := time.Now()
			if err := client(); err != nil && (l.excuse == nil || !l.excuse(began, err)) {
				l.mu.Lock()
				if l.failuresCount++; len(l.failures) < 5 {
					l.failures = append(l.failures, err)
				}
				l.mu.Unlock()
			}
		}
	})
}

// answered checks who answered a request that began when oldest was the
// generation that Reload had promised.
func (l *load) answered(oldest int64, generation string) error {
	l.requests.Add(1)
	if int64(atoi(generation)) < oldest {
		return fmt.Errorf("generation %s answered after %d was complete", generation, oldest)
	}
	return nil
}

// exchange is one HTTP request on c.
func (l *load) exchange(c net.Conn, r *bufio.Reader, last bool) (closing bool, err error) {
	oldest := l.oldest.Load()
	req, _ := http.NewRequest("POST", "http://cluster/", bytes.NewReader(l.body))
	req.Close = last
	c.SetDeadline(time.Now().Add(patience))
	if err := req.Write(c); err != nil {
		return true, fmt.Errorf("write: %w", err)
	}
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return true, fmt.Errorf("response: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || !bytes.Equal(body, l.body) {
		return true, fmt.Errorf("body of %d bytes, %s, %v", len(body), resp.Status, err)
	}
	return resp.Close, l.answered(oldest, resp.Header.Get("Generation"))
}

// keepAlive uses one connection for as long as the server wants it.
func (l *load) keepAlive() func() error {
	var c net.Conn
	var r *bufio.Reader
	return func() error {
		if c == nil {
			var err error
			if c, err = net.Dial(l.network, l.http); err != nil {
				c = nil
				return err
			}
			r = bufio.NewReader(c)
		}
		closing, err := l.exchange(c, r, false)
		if closing || l.stopped() {
			c.Close()
			c = nil
		}
		return err
	}
}

func (l *load) oneShot() error {
	c, err := net.Dial(l.network, l.http)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = l.exchange(c, bufio.NewReader(c), true)
	return err
}

// session is a few lines on a raw connection.
func (l *load) session() error {
	oldest := l.oldest.Load()
	c, err := net.Dial(l.network, l.raw)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReaderSize(c, 32<<10)
	line := string(l.body) + "\n"
	for range 3 {
		if _, err := io.WriteString(c, line); err != nil {
			return fmt.Errorf("raw write: %w", err)
		}
		answer, err := r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("raw answer: %w", err)
		}
		generation, rest, _ := strings.Cut(answer, " ")
		if rest != line {
			return fmt.Errorf("raw answer of %d bytes", len(answer))
		}
		if err := l.answered(oldest, generation); err != nil {
			return err
		}
	}
	return nil
}

// TestReloadLosesNothing: reload after reload under the load of clients that
// keep their connection until they are told to close it, that have a new one for
// each request, and that speak something else than HTTP: not one request fails,
// and once Reload has returned no old worker answers.
//
// With CLUSTER_LONG=1 there are 20 reloads and 100 000 requests for each.
func TestReloadLosesNothing(t *testing.T) {
	reloads, requests := 2, int64(300)
	if os.Getenv("CLUSTER_LONG") != "" {
		reloads, requests = 20, 100_000
	}
	for _, network := range []string{"tcp", "unix"} {
		for _, scheduling := range []cluster.Scheduling{cluster.Shared, cluster.RoundRobin} {
			t.Run(fmt.Sprint(network, " ", scheduling), func(t *testing.T) {
				l := &load{t: t, network: network, body: bytes.Repeat([]byte("x"), 16<<10), stop: make(chan struct{})}
				l.http, l.raw = unusedAddress(t, network, "http"), unusedAddress(t, network, "raw")
				withMaster(t, echoing, cluster.Options{Workers: 2, Scheduling: scheduling,
					Env: []string{"NETWORK=" + network, "HTTP=" + l.http, "RAW=" + l.raw}})
				loseNothing(t, l, reloads, requests, 2, l.keepAlive(), l.keepAlive(), l.keepAlive(),
					l.oneShot, l.oneShot, l.oneShot, l.session, l.session, l.session)
			})
		}
	}
}

// loseNothing reloads two workers, each of which listens on so many addresses,
// while the clients are at work.
func loseNothing(t *testing.T, l *load, reloads int, requests int64, listeners int, clients ...func() error) {
	o := cluster.Settings()
	env := o.Env
	generation := func(n int) {
		o.Env = append(env[:len(env):len(env)], "GENERATION="+itoa(n))
		require.NoError(t, cluster.SetupMaster(o))
	}
	generation(1)
	listening := listenings(t)
	require.NoError(t, cluster.AutoFork())
	for range 2 * listeners {
		await(t, listening, "listening")
	}
	for _, c := range clients {
		l.run(c)
	}
	for i := 2; i <= reloads+1 || l.requests.Load() < requests; i++ {
		generation(i)
		before := l.requests.Load()
		require.NoError(t, cluster.Reload(within(t, 2*patience)))
		l.oldest.Store(int64(i))
		eventually(t, func() bool { return l.requests.Load() > before+100 }, "requests between reloads")
	}
	close(l.stop)
	l.running.Wait()
	require.Zero(t, l.failuresCount, "of %d requests: %v", l.requests.Load(), l.failures)
	t.Logf("%d requests", l.requests.Load())
}

// unusedAddress is one that nobody listens on.
func unusedAddress(t *testing.T, network, name string) string {
	t.Helper()
	if network == "unix" {
		return filepath.Join(t.TempDir(), name)
	}
	ln, err := net.Listen(network, "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().String()
}
