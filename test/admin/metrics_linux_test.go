package admin_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestLint: promtool finds nothing to object to in the metrics.
func TestLint(t *testing.T) {
	t.Parallel()
	promtool := needs(t, "promtool")
	s := run(t)
	var text string
	for _, want := range []string{`go_goroutines{worker="0"} `, `service_requests_total{worker="1"} `, `service_request_duration_seconds_bucket{worker="1",le="+Inf"} 0`} {
		clustertest.Eventually(t, func() bool { // a worker has a second to answer, which a slow machine may not give it
			var err error
			text, err = clustertest.Get("http://" + s.address + "/metrics")
			require.NoError(t, err)
			return strings.Contains(text, "\n"+want)
		}, want)
	}
	c := exec.Command(promtool, "check", "metrics")
	c.Stdin = strings.NewReader(text + "\n")
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(out))
}

// TestRules: the alerts of deploy are rules of Prometheus.
func TestRules(t *testing.T) {
	promtool := needs(t, "promtool")
	out, err := exec.Command(promtool, "check", "rules", filepath.Join("..", "..", "deploy", "alerts.yaml")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "SUCCESS")
}

// TestDashboard: each query of the dashboard is one that Prometheus takes, once the
// variables have values, of metrics that there are.
func TestDashboard(t *testing.T) {
	t.Parallel()
	promtool := needs(t, "promtool")
	b, err := os.ReadFile(filepath.Join("..", "..", "deploy", "grafana.json"))
	require.NoError(t, err)
	var dashboard struct {
		Annotations struct{ List []struct{ Expr string } }
		Panels      []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(b, &dashboard))
	var queries []string
	for _, a := range dashboard.Annotations.List {
		queries = append(queries, a.Expr)
	}
	for _, p := range dashboard.Panels {
		require.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			queries = append(queries, target.Expr)
		}
	}
	alerts, err := os.ReadFile(filepath.Join("..", "..", "deploy", "alerts.yaml"))
	require.NoError(t, err)
	s := run(t)
	text, err := clustertest.Get("http://" + s.address + "/metrics")
	require.NoError(t, err)
	for _, name := range regexp.MustCompile(`cluster_[a-z_]+`).FindAllString(strings.Join(queries, "\n")+string(alerts), -1) {
		require.Contains(t, text, "# TYPE "+name+" ")
	}
	rules := "groups:\n- name: dashboard\n  rules:\n"
	for i, q := range queries {
		q = strings.NewReplacer("$__rate_interval", "1m", "$job", "a", "$instance", "b").Replace(q)
		rules += fmt.Sprintf("  - {record: 'query:%d', expr: '%s'}\n", i, q)
	}
	file := filepath.Join(clustertest.TempDir(t), "rules.yaml")
	require.NoError(t, os.WriteFile(file, []byte(rules), 0o600))
	out, err := exec.Command(promtool, "check", "rules", file).CombinedOutput()
	require.NoError(t, err, "%s%s", rules, out)
	require.Contains(t, string(out), fmt.Sprintf("%d rules found", len(queries)))
}

// prometheusServer is a Prometheus that scrapes.
type prometheusServer struct {
	t       *testing.T
	address string
}

// scrape starts one that scrapes the address twice a second.
func scrape(t *testing.T, address string) *prometheusServer {
	program := needs(t, "prometheus")
	dir := clustertest.TempDir(t)
	p := &prometheusServer{t, freeAddress(t)}
	config := "scrape_configs: [{job_name: cluster, scrape_interval: 500ms, scrape_timeout: 500ms, static_configs: [{targets: ['" + address + "']}]}]\n"
	file := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	defer log.Close()
	c := exec.Command(program, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+p.address)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, c.Start())
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("%s", b)
		}
	})
	return p
}

// values are those of a series, by the time of the scrape.
type values map[float64]float64

// series are those that match a query, by name, worker and result.
func (p *prometheusServer) series(query string) (all map[string]values) {
	a, err := http.Get("http://" + p.address + "/api/v1/query?query=" + url.QueryEscape(query+"[1h]"))
	if err != nil {
		return nil // it starts
	}
	defer a.Body.Close()
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	if json.NewDecoder(a.Body).Decode(&answer) != nil {
		return nil
	}
	all = make(map[string]values)
	for _, r := range answer.Data.Result {
		key := strings.TrimSpace(r.Metric["__name__"] + " " + r.Metric["worker"] + r.Metric["result"])
		if all[key] == nil {
			all[key] = make(values)
		}
		for _, v := range r.Values {
			f, err := strconv.ParseFloat(v[1].(string), 64)
			require.NoError(p.t, err)
			all[key][v[0].(float64)] = f
		}
	}
	return all
}

// inOrder are the values in the order of time.
func (v values) inOrder() (list []float64) {
	for _, at := range slices.Sorted(maps.Keys(v)) {
		list = append(list, v[at])
	}
	return list
}

// after waits until Prometheus has scraped n times more than up to now, with success.
func (p *prometheusServer) after(n int) {
	p.t.Helper()
	count := func() (good int) {
		for _, up := range p.series("up")["up"] {
			good += int(up)
		}
		return good
	}
	before := count()
	clustertest.Eventually(p.t, func() bool { return count() >= before+n }, "scrapes")
}

// TestPrometheus: a real one scrapes through a reload. No scrape fails but by its time,
// no series of a worker that has answered has a gap, and a counter of a worker's falls
// only where it was replaced.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	s := run(t)
	p := scrape(t, s.address)
	p.after(2)
	for range 20 {
		a, err := http.Get("http://" + s.listen)
		require.NoError(t, err)
		a.Body.Close()
	}
	clustertest.Eventually(t, func() bool {
		sum := 0.0
		for _, of := range p.series("service_requests_total") {
			list := of.inOrder()
			sum += list[len(list)-1]
		}
		return sum == 20
	}, "scrape of all requests")
	s.order("/reload")
	p.after(3)

	ups := p.series("up")["up"] // first: of what is scraped meanwhile the others have more
	took := p.series("scrape_duration_seconds")["scrape_duration_seconds"]
	answered, requests := p.series("cluster_worker_scrape_up"), p.series("service_requests_total")
	for at, up := range ups {
		if up != 1 {
			require.GreaterOrEqual(t, took[at], 0.45, "a scrape fails that was not too slow")
			continue
		}
		for _, worker := range []string{"0", "1"} {
			if answered["cluster_worker_scrape_up "+worker][at] == 1 {
				require.Contains(t, requests["service_requests_total "+worker], at, "a gap")
			}
		}
	}
	sum := 0.0
	for _, of := range requests {
		falls, list := 0, of.inOrder()
		for i := 1; i < len(list); i++ {
			if list[i] < list[i-1] {
				falls++
				require.Zero(t, list[i])
			}
		}
		require.LessOrEqual(t, falls, 1)
		sum += slices.Max(list)
	}
	require.Equal(t, 20.0, sum)
	for _, direction := range []string{"in", "out"} {
		query := `cluster_messages_total{direction="` + direction + `"}`
		require.True(t, slices.IsSorted(p.series(query)["cluster_messages_total"].inOrder()), direction)
	}
	reloads := p.series("cluster_reloads_total")["cluster_reloads_total success"].inOrder()
	require.Equal(t, 1.0, reloads[len(reloads)-1])
	require.Zero(t, reloads[0])
}
