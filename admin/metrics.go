package admin

import (
	"bytes"
	"cmp"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-cluster/cluster"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// formats are those in which /metrics answers, as a scraper prefers.
var formats = []expfmt.Format{expfmt.FmtProtoDelim, expfmt.FmtOpenMetrics_1_0_0, expfmt.FmtOpenMetrics_0_0_1, expfmt.FmtText}

// metrics answers a scrape: with each worker's families and the cluster's own. It is
// never an error of the whole: what does not fit is left out, and counted.
func (s *service) metrics(w http.ResponseWriter, r *http.Request) {
	format := expfmt.NegotiateAccept(r.Header, formats...)
	st := cluster.Stats()
	answers := s.workers.scrape(r.Context(), st.Workers)
	m := newMerger(format)
	for _, a := range newestFirst(answers) {
		m.add(a)
	}
	var b bytes.Buffer
	out := expfmt.NewEncoder(&b, format)
	for _, f := range m.families() {
		if mark := b.Len(); out.Encode(f.MetricFamily) != nil {
			b.Truncate(mark)
			m.dropped[f.worker]++
		}
	}
	s.tally.drop(m.dropped)
	for _, f := range s.ownMetrics(st, answers) {
		out.Encode(f)
	}
	if c, ok := out.(expfmt.Closer); ok {
		c.Close() // the end of OpenMetrics
	}
	h := w.Header()
	h.Set("Content-Type", string(format))
	h.Set("Cache-Control", "no-store")
	w.Write(b.Bytes())
}

// ---- what the master counts

// tally counts what Stats does not.
type tally struct {
	mu       sync.Mutex
	restarts map[restart]int64
	reloads  map[string]int64 // by result
	dropped  map[string]int64 // families, by worker
}

type restart struct {
	slot   int
	reason cluster.Reason
}

func newTally() *tally {
	return &tally{restarts: make(map[restart]int64), reloads: map[string]int64{"success": 0, "failure": 0}, dropped: make(map[string]int64)}
}

// follow registers for what is counted.
func (t *tally) follow() (stop func()) {
	stopDeath := cluster.OnDeath(func(w *cluster.Process, x cluster.Exit) {
		if w.Slot() < 0 || !slices.Contains(restartReasons, x.Reason) {
			return
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.restarts[restart{w.Slot(), x.Reason}]++
	})
	stopReload := cluster.OnReload(func(r cluster.ReloadResult) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if r.Err != nil {
			t.reloads["failure"]++
		} else {
			t.reloads["success"]++
		}
	})
	return func() {
		stopDeath()
		stopReload()
	}
}

// drop counts families that were left out of a scrape.
func (t *tally) drop(families map[string]int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for worker, n := range families {
		t.dropped[worker] += int64(n)
	}
}

// restartReasons are those of ends that another worker of the slot follows, or may.
var restartReasons = []cluster.Reason{
	cluster.ReasonCrash, cluster.ReasonStall, cluster.ReasonReload, cluster.ReasonRecycle, cluster.ReasonKill, cluster.ReasonRestart, cluster.ReasonDrain,
}

// workerStates are those of Stats, each of which is told also while no worker has it.
var workerStates = append(stateNames(), "empty", "off", "out")

func stateNames() (names []string) {
	for s := cluster.Starting; s < cluster.Dead; s++ {
		names = append(names, s.String())
	}
	return names
}

// ---- the cluster's own metrics

// family makes a family of counters or gauges. Each value has its labels before it,
// as names and values in turn.
type family struct{ *dto.MetricFamily }

func newFamily(typ dto.MetricType, name, help string) family {
	return family{&dto.MetricFamily{Name: &name, Help: &help, Type: &typ}}
}

func (f family) put(value float64, labels ...string) {
	m := new(dto.Metric)
	for i := 0; i+1 < len(labels); i += 2 {
		m.Label = append(m.Label, &dto.LabelPair{Name: &labels[i], Value: &labels[i+1]})
	}
	setValue(m, f.GetType(), value)
	f.Metric = append(f.Metric, m)
}

func gauge(name, help string) family   { return newFamily(dto.MetricType_GAUGE, name, help) }
func counter(name, help string) family { return newFamily(dto.MetricType_COUNTER, name, help) }

// ownMetrics are the cluster's, by name.
func (s *service) ownMetrics(st cluster.Snapshot, answers []answer) (all []*dto.MetricFamily) {
	list := append(s.ofCluster(st), s.ofWorkers(st)...)
	list = append(list, ofScrape(answers, s.tally)...)
	for _, f := range list {
		if len(f.Metric) > 0 {
			all = append(all, f.MetricFamily)
		}
	}
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return all
}

// ofCluster are those of the whole.
func (s *service) ofCluster(st cluster.Snapshot) []family {
	states := gauge("cluster_workers", "Workers, and slots without one, by state.")
	count := make(map[string]int)
	for _, w := range st.Workers {
		count[w.State]++
	}
	for _, state := range workerStates {
		states.put(float64(count[state]), "state", state)
	}
	backlog := gauge("cluster_listener_backlog", "Connections that wait to be accepted.")
	limit := gauge("cluster_listener_backlog_limit", "How many connections may wait to be accepted.")
	for _, l := range st.Listeners {
		if l.Limit > 0 {
			address := plain(l.Network + " " + l.Address)
			backlog.put(float64(l.Backlog), "address", address)
			limit.put(float64(l.Limit), "address", address)
		}
	}
	total := s.core.Totals()
	messages := counter("cluster_messages_total", "Messages between the master and its workers: in from a worker, out to one.")
	messages.put(float64(total.MessagesIn), "direction", "in")
	messages.put(float64(total.MessagesOut), "direction", "out")
	generation := gauge("cluster_generation", "The last generation that has reached every slot.")
	generation.put(float64(st.Generation))
	resident := gauge("cluster_master_resident_memory_bytes", "Memory of the master.")
	if total.Resident > 0 {
		resident.put(float64(total.Resident))
	}
	goroutines := gauge("cluster_master_goroutines", "Goroutines of the master.")
	goroutines.put(float64(runtime.NumGoroutine()))
	return []family{states, backlog, limit, messages, generation, resident, goroutines, buildInfo(), s.tally.ofReloads()}
}

// buildInfo tells of what the master was built.
func buildInfo() family {
	f := gauge("cluster_build_info", "Of what the master's program was built: the value is 1.")
	version, revision := "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	f.put(1, "goversion", plain(runtime.Version()), "revision", plain(revision), "version", plain(version))
	return f
}

func (t *tally) ofReloads() family {
	f := counter("cluster_reloads_total", "Reloads that have ended, by result.")
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, result := range []string{"failure", "success"} {
		f.put(float64(t.reloads[result]), "result", result)
	}
	return f
}

// ofWorkers are those of each slot's worker.
func (s *service) ofWorkers(st cluster.Snapshot) []family {
	restarts := counter("cluster_worker_restarts_total", "Workers of the slot that have ended other than by a stop or a lower number of slots, by reason.")
	ready := gauge("cluster_worker_ready", "Whether the worker is ready.")
	began := gauge("cluster_worker_start_time_seconds", "When the worker was forked, in Unix time.")
	open := gauge("cluster_worker_connections_open", "Connections that the worker has open.")
	accepted := counter("cluster_worker_connections_accepted_total", "Connections that the worker has accepted.")
	resident := gauge("cluster_worker_resident_memory_bytes", "Memory of the worker.")
	cpu := counter("cluster_worker_cpu_seconds_total", "CPU time that the worker has used.")
	heartbeat := gauge("cluster_worker_heartbeat_age_seconds", "How long ago the worker was last heard of.")
	s.tally.mu.Lock()
	defer s.tally.mu.Unlock()
	for slot := range st.Target {
		for _, why := range restartReasons {
			restarts.put(float64(s.tally.restarts[restart{slot, why}]), "reason", string(why), "worker", strconv.Itoa(slot))
		}
	}
	for _, w := range st.Workers {
		if !owns(w) {
			continue
		}
		isReady := 0.0
		if w.State == cluster.Ready.String() {
			isReady = 1
		}
		ready.put(isReady, "worker", w.Name)
		began.put(float64(w.Started), "worker", w.Name)
		open.put(float64(w.Active), "worker", w.Name)
		accepted.put(float64(w.Accepted), "worker", w.Name)
		resident.put(float64(w.RSS), "worker", w.Name)
		cpu.put(time.Duration(w.CPU).Seconds(), "worker", w.Name)
		heartbeat.put(max(0, time.Duration(w.HeartbeatAge).Seconds()), "worker", w.Name)
	}
	return []family{restarts, ready, began, open, accepted, resident, cpu, heartbeat}
}

// ofScrape are those of the scrape itself.
func ofScrape(answers []answer, t *tally) []family {
	up := gauge("cluster_worker_scrape_up", "Whether the worker has answered this scrape in time.")
	took := gauge("cluster_worker_scrape_duration_seconds", "How long the worker took to answer this scrape.")
	dropped := counter("cluster_worker_scrape_dropped_families_total", "Families of the worker's that were left out, since they did not fit those of the newest generation, or were invalid.")
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range answers {
		value := 0.0
		if a.err == nil {
			value = 1
		}
		up.put(value, "worker", a.worker)
		took.put(a.took.Seconds(), "worker", a.worker)
		dropped.put(float64(t.dropped[a.worker]), "worker", a.worker)
	}
	return []family{up, took, dropped}
}

// owns reports whether w is its slot's current worker.
func owns(w cluster.WorkerStats) bool {
	return w.ID != 0 && w.Slot >= 0 && w.Name == strconv.Itoa(w.Slot)
}
