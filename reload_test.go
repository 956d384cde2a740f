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
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

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
			t.Cleanup(cluster.OnReload(func(r cluster.ReloadResult) { results <- r }))
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
	if apart(t) {
		return
	}
	reloads, requests := 2, int64(300)
	if long() {
		reloads, requests = 20, 100_000
	}
	for _, network := range system.networks {
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
		o.Env = append(env[:len(env):len(env)], "GENERATION="+strconv.Itoa(n))
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
		return filepath.Join(tempDir(t), name)
	}
	return "127.0.0.1:" + strconv.Itoa(freePort(t))
}
