//go:build unix

package admin_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/admin"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// workerMetrics is what a worker of the service answers to a scrape: as text, and it
// says what no worker may say.
func workerMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprintf(w, "# HELP jobs_total Jobs.\n# TYPE jobs_total counter\njobs_total{worker=\"mine\"} %d\n", cluster.Worker.PID())
	io.WriteString(w, "# TYPE cluster_workers gauge\ncluster_workers{state=\"fake\"} 1\n")
	io.WriteString(w, "# HELP bad_info Says \x1b[2J.\n# TYPE bad_info gauge\nbad_info{name=\"\x1b[2J\"} 1\n")
}

// has wants a line of the metrics.
func has(t *testing.T, text, line string) {
	t.Helper()
	require.Contains(t, text, "\n"+line+"\n")
}

// scrape is one that the workers have answered. They have a second for that, which a slow
// machine may not give them.
func (s *running) scrape(workers ...string) (text string) {
	s.t.Helper()
	clustertest.Eventually(s.t, func() bool {
		began := time.Now()
		text = s.get("/metrics")
		require.Less(s.t, time.Since(began), clustertest.Patience/2)
		for _, name := range workers {
			if !strings.Contains(text, "\ncluster_worker_scrape_up{worker=\""+name+"\"} 1\n") {
				return false
			}
		}
		return true
	}, "an answer of each worker")
	return text
}

// TestMetrics: the cluster's own and the workers', through a reload and a death.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := run(t, "METRICS=1")
	events := s.follow("/events")
	st := s.stats()
	text := s.scrape("0", "1")
	for _, w := range st.Workers {
		has(t, text, fmt.Sprintf(`jobs_total{exported_worker="mine",worker="%d"} %d`, w.Slot, w.PID))
		has(t, text, fmt.Sprintf(`cluster_worker_scrape_up{worker="%d"} 1`, w.Slot))
		has(t, text, fmt.Sprintf(`cluster_worker_ready{worker="%d"} 1`, w.Slot))
		has(t, text, fmt.Sprintf(`cluster_worker_restarts_total{reason="kill",worker="%d"} 0`, w.Slot))
	}
	has(t, text, `cluster_workers{state="ready"} 2`)
	has(t, text, `cluster_workers{state="draining"} 0`)
	has(t, text, `cluster_generation 1`)
	has(t, text, `cluster_reloads_total{result="success"} 0`)
	require.NotContains(t, text, "fake")
	require.NotContains(t, text, "\x1b")
	has(t, text, `bad_info{name="\\x1b[2J",worker="0"} 1`)
	for _, name := range []string{
		"cluster_worker_start_time_seconds{", "cluster_worker_connections_open{", "cluster_worker_connections_accepted_total{",
		"cluster_worker_resident_memory_bytes{", "cluster_worker_cpu_seconds_total{", "cluster_worker_heartbeat_age_seconds{",
		`cluster_messages_total{direction="in"}`, `cluster_messages_total{direction="out"}`, "cluster_build_info{", "cluster_master_goroutines ",
	} {
		require.Contains(t, text, "\n"+name)
	}
	if _, err := os.Stat("/proc/self/statm"); err == nil {
		require.Contains(t, text, "\ncluster_master_resident_memory_bytes ")
		require.Contains(t, text, `cluster_listener_backlog{address="tcp `+s.listen+`"} `)
		require.Contains(t, text, `cluster_listener_backlog_limit{address="tcp `+s.listen+`"} `)
	}

	s.post("/reload", "200")
	s.post("/workers/1/kill", "200")
	until(t, events, "reload", func(e admin.Event) bool { return e.Result == "success" })
	until(t, events, "death", func(e admin.Event) bool { return e.Reason == "kill" })
	text = s.get("/metrics")
	has(t, text, `cluster_reloads_total{result="success"} 1`)
	has(t, text, `cluster_generation 2`)
	has(t, text, `cluster_worker_restarts_total{reason="reload",worker="0"} 1`)
	require.Contains(t, text, "cluster_worker_restarts_total{reason=\"kill\",worker=\"1\"} 1\n")
}

// TestMetricsOfSlowWorker: one that does not answer costs a second, and only its own
// part.
func TestMetricsOfSlowWorker(t *testing.T) {
	t.Parallel()
	s := run(t, "METRICS=1")
	stopped := s.stats().Workers[1]
	clustertest.Pause(t, stopped.PID)
	text := s.scrape("0")
	has(t, text, `cluster_worker_scrape_up{worker="1"} 0`)
	require.Contains(t, text, `worker="0"} `+strconv.Itoa(s.stats().Workers[0].PID))
	require.NotContains(t, text, `} `+strconv.Itoa(stopped.PID))
	require.Contains(t, text, `cluster_worker_ready{worker="1"} `)
}

// TestMetricsOfTheClusterAlone: workers that have none are asked, and cost nothing;
// over the address anybody may scrape, in the format of their choice.
func TestMetricsOfTheClusterAlone(t *testing.T) {
	t.Parallel()
	address := fmt.Sprintf("127.0.0.1:%d", clustertest.FreePort(t))
	run(t, "ADMIN="+address)
	for accept, want := range map[string]string{
		"": "text/plain",
		"application/openmetrics-text;version=1.0.0":                                                           "application/openmetrics-text",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,*/*;q=0.1": "application/vnd.google.protobuf",
	} {
		r, err := http.NewRequest("GET", "http://"+address+"/metrics", nil)
		require.NoError(t, err)
		r.Header.Set("Accept", accept)
		a, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		b, err := io.ReadAll(a.Body)
		a.Body.Close()
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, a.StatusCode)
		require.True(t, strings.HasPrefix(a.Header.Get("Content-Type"), want), a.Header.Get("Content-Type"))
		require.Contains(t, string(b), "cluster_worker_scrape_up")
		require.NotContains(t, string(b), "jobs_total")
	}
}
