// Package admin_test tests package admin with the tools that operators use: promtool,
// Prometheus with the workers' client library, and Chromium. Each test needs a
// program of the distribution, and is skipped without it, but not in CI.
package admin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/admin"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// service is a cluster with a worker's metrics as the client library has them.
var service = clustertest.Program("service", func() {
	_, err := admin.Start(admin.Options{
		Name: "web", Socket: os.Getenv("SOCKET"), Address: os.Getenv("ADMIN"), Token: os.Getenv("TOKEN"), Metrics: promhttp.Handler(),
	})
	clustertest.Must(err)
	cluster.OnReady(func(w *cluster.Process) { fmt.Printf("ready %d %d %d\n", w.Slot(), w.ID(), w.PID()) })
	workers := 2
	if n := os.Getenv("WORKERS"); n != "" {
		workers = clustertest.Atoi(n)
	}
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: workers, ReadyFor: -1, Watchdog: cluster.Watchdog{Interval: time.Second}}))
	clustertest.Must(cluster.AutoFork())
	if _, err := os.Stat(os.Getenv("BROKEN")); err == nil && cluster.IsWorker() {
		fmt.Fprintln(os.Stderr, `config.yaml:12: unknown key "timeuot"`)
		os.Exit(1)
	}
	requests := prometheus.NewCounter(prometheus.CounterOpts{Name: "service_requests_total", Help: "Requests."})
	took := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "service_request_duration_seconds", Help: "How long requests took."})
	prometheus.MustRegister(requests, took)
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		requests.Inc()
		took.Observe(0.001)
	})
	var hostile atomic.Bool
	cluster.OnCheck(func(context.Context) error {
		if hostile.Load() {
			return errors.New("<img src=x onerror=alert(1)></td><script>alert(1)</script>\x1b[2J\u009b\u202e\n")
		}
		return nil
	})
	http.HandleFunc("/hostile", func(http.ResponseWriter, *http.Request) { hostile.Store(true) })
	http.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	clustertest.Must(cluster.ListenAndServe(os.Getenv("LISTEN"), nil))
})

// running is a service of a test.
type running struct {
	*clustertest.Proc
	t       *testing.T
	socket  string
	address string // of package admin
	listen  string
}

// run starts one, and waits for its workers.
func run(t *testing.T, env ...string) *running {
	s := &running{t: t, socket: filepath.Join(clustertest.TempDir(t), "s"), address: freeAddress(t), listen: freeAddress(t)}
	s.Proc = clustertest.Start(t, service, append(env, "SOCKET="+s.socket, "ADMIN="+s.address, "LISTEN="+s.listen)...)
	s.Expect("ready ")
	s.Expect("ready ")
	return s
}

func freeAddress(t *testing.T) string { return fmt.Sprintf("127.0.0.1:%d", clustertest.FreePort(t)) }

// order gives one over the socket.
func (s *running) order(path string) { s.t.Helper(); s.ordered(path, http.StatusOK) }

// ordered gives one, and wants the status.
func (s *running) ordered(path string, want int) {
	s.t.Helper()
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.socket)
		},
	}}
	r, err := http.NewRequest("POST", "http://cluster"+path, nil)
	require.NoError(s.t, err)
	r.Header.Set("X-Cluster", "1")
	a, err := c.Do(r)
	require.NoError(s.t, err)
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	require.NoError(s.t, err)
	require.Equal(s.t, want, a.StatusCode, "%s", b)
}

// needs is the path of a program of the distribution.
func needs(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	return path
}
