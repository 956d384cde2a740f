//go:build unix

package admin_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/admin"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// service is a cluster that is asked from outside: its master tells of workers that
// get ready, a worker does what /do?… says.
var service = clustertest.Program("service", func() {
	o := admin.Options{Socket: os.Getenv("SOCKET"), Address: os.Getenv("ADMIN"), Token: os.Getenv("TOKEN")}
	if os.Getenv("HOSTILE") != "" && cluster.IsWorker() {
		o.Debug = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Set-Cookie", "a=b")
			w.Header().Set("Refresh", "0; url=http://evil.example")
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<script>fetch('/stop')</script>\x1b[2J\n\tindented\n")
		})
	}
	if os.Getenv("DEBUG") != "" {
		o.Debug = http.DefaultServeMux // as package net/http/pprof fills it
	}
	if os.Getenv("LOG") != "" {
		o.Log = -1
	}
	if os.Getenv("METRICS") != "" {
		o.Metrics = http.HandlerFunc(workerMetrics)
	}
	_, err := admin.Start(o)
	clustertest.Must(err)
	if _, err := os.Stat(os.Getenv("REFUSE")); err == nil && cluster.Checking() {
		panic("no configuration")
	}
	cluster.OnReady(func(w *cluster.Process) { fmt.Printf("ready %d %d %d\n", w.Slot(), w.ID(), w.PID()) })
	watchdog := cluster.Watchdog{Interval: clustertest.Tick}
	var env []string
	if os.Getenv("HANG") != "" {
		watchdog.Timeout = 5 * time.Second
		env = strings.Fields(os.Getenv("HANG"))
	}
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2, ReadyFor: -1, Watchdog: watchdog, Env: env}))
	startToAllocate()
	clustertest.Must(cluster.AutoFork())
	hang := make(chan struct{}, 1)
	cluster.OnCheck(func(context.Context) error {
		select {
		case <-hang:
			hungCheck()
		default:
		}
		return nil
	})
	http.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) {
		if r.FormValue("spin") == "" {
			hang <- struct{}{}
			return
		}
		go func() {
			for n := 0; ; n++ { // GODEBUG has nothing interrupt it
			}
		}()
	})
	if cluster.IsWorker() && os.Getenv("BROKEN") != "" {
		if _, err := os.Stat(os.Getenv("BROKEN")); err == nil {
			fmt.Fprintln(os.Stderr, "no certificate")
			os.Exit(1)
		}
	}
	if cluster.IsWorker() {
		cluster.OnShutdown(func(context.Context) error {
			// Twice, since the first write to a pipe that is closed ends a process.
			fmt.Println("stdout of the last moment")
			fmt.Fprintln(os.Stderr, "stderr of the last moment")
			return nil
		})
	}
	http.HandleFunc("/say", func(_ http.ResponseWriter, r *http.Request) {
		fmt.Println(r.FormValue("out"))
		if text := r.FormValue("err"); text != "" {
			fmt.Fprintln(os.Stderr, text)
		}
		if r.FormValue("exit") != "" {
			os.Exit(1)
		}
	})
	http.HandleFunc("/order", func(w http.ResponseWriter, r *http.Request) {
		// As this worker, and as what it has started.
		answer, err := post(client(os.Getenv("SOCKET")), "/scale?n=1")
		fmt.Fprintln(w, answer, err)
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), clustertest.ProgramEnv+"="+orderer)
		out, err := c.CombinedOutput()
		fmt.Fprintln(w, strings.TrimSpace(string(out)), err)
	})
	http.HandleFunc("/complain", func(w http.ResponseWriter, r *http.Request) {
		cluster.Worker.Send(json.RawMessage(`{"cmd":"number","V":"\u001b[2J\n\u009b"}`))
	})
	cluster.Handle("number", func(*cluster.Process, struct{ V int }) {})
	clustertest.Must(cluster.ListenAndServe(os.Getenv("LISTEN"), nil))
})

// hungCheck does not return.
func hungCheck() { select {} }

// orderer orders, as a program that a worker has started.
var orderer = clustertest.Program("orderer", func() {
	fmt.Println(post(client(os.Getenv("SOCKET")), "/scale?n=1"))
})

// client asks at the socket.
func client(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

// post gives an order.
func post(c *http.Client, path string) (answer string, err error) {
	r, err := http.NewRequest("POST", "http://cluster"+path, nil)
	if err != nil {
		return "", err
	}
	r.Header.Set("X-Cluster", "1")
	return do(c, r)
}

func do(c *http.Client, r *http.Request) (answer string, err error) {
	a, err := c.Do(r)
	if err != nil {
		return "", err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	return fmt.Sprintf("%d %s", a.StatusCode, strings.TrimSpace(string(b))), err
}

// running is a service of a test.
type running struct {
	*clustertest.Proc
	t      *testing.T
	socket string
	client *http.Client
	listen string
}

// run starts one, and waits for its workers.
func run(t *testing.T, env ...string) *running {
	s := &running{t: t, socket: filepath.Join(clustertest.TempDir(t), "s"), listen: fmt.Sprintf("127.0.0.1:%d", clustertest.FreePort(t))}
	s.client = client(s.socket)
	s.Proc = clustertest.Start(t, service, append([]string{"SOCKET=" + s.socket, "LISTEN=" + s.listen}, env...)...)
	s.Expect("ready ")
	s.Expect("ready ")
	return s
}

// get asks, and wants 200.
func (s *running) get(path string) string {
	s.t.Helper()
	r, err := http.NewRequest("GET", "http://cluster"+path, nil)
	require.NoError(s.t, err)
	answer, err := do(s.client, r)
	require.NoError(s.t, err)
	require.Equal(s.t, "200", answer[:3], answer)
	return answer[min(4, len(answer)):]
}

func (s *running) post(path, want string) string {
	s.t.Helper()
	answer, err := post(s.client, path)
	require.NoError(s.t, err)
	require.Equal(s.t, want, answer[:3], answer)
	return answer
}

func (s *running) stats() (st cluster.Snapshot) {
	s.t.Helper()
	require.NoError(s.t, json.Unmarshal([]byte(s.get("/stats")), &st))
	return st
}

// follow follows the events after n as JSON lines.
func (s *running) follow(path string) <-chan admin.Event {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), "GET", "http://cluster"+path, nil)
	require.NoError(s.t, err)
	r.Header.Set("Accept", "application/x-ndjson")
	a, err := s.client.Do(r)
	require.NoError(s.t, err)
	events := make(chan admin.Event, 1000)
	go func() {
		defer close(events)
		defer a.Body.Close()
		for lines := bufio.NewScanner(a.Body); lines.Scan(); {
			var e admin.Event
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				events <- e
			}
		}
	}()
	return events
}

// until waits for an event.
func until(t *testing.T, events <-chan admin.Event, what string, is func(e admin.Event) bool) admin.Event {
	t.Helper()
	for end := time.After(clustertest.Patience); ; {
		select {
		case e, ok := <-events:
			require.True(t, ok, "the events have ended: no %s", what)
			if e.Event == what && is(e) {
				return e
			}
		case <-end:
			t.Fatal("no event " + what)
		}
	}
}

func whichever(admin.Event) bool { return true }
