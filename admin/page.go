package admin

import (
	"bytes"
	"cmp"
	"crypto/rand"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-cluster/cluster"
)

// The status page: all of it is made here, of the same state that /stats and /events
// tell, and its script only asks for it again. What a worker says of itself goes
// through plain, and then html/template.

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// pageEvents is how many events it shows.
const pageEvents = 50

// page answers with the status page. With ?part=main it is only what changes.
func (s *service) page(w http.ResponseWriter, r *http.Request) {
	nonce := rand.Text()
	v := s.look(time.Now())
	v.Nonce = nonce
	var b bytes.Buffer
	name := "page"
	if r.URL.Query().Get("part") == "main" {
		name = "part"
	}
	if err := pageTemplate.ExecuteTemplate(&b, name, v); err != nil {
		http.Error(w, plain(err.Error()), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-"+nonce+"'; style-src 'nonce-"+nonce+"'; img-src data:; connect-src 'self'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.Write(b.Bytes())
}

// view is what the page shows. All texts of it are printable.
type view struct {
	Nonce, Program, About, Title string
	Now                          time.Time
	After                        int64 // the last event that it shows

	Up, Target, Generation          int
	Tone                            string // of the number that are up: see the classes of page.html
	Open, Rate, Memory, CPU, Uptime string
	Stopping                        string
	Reload                          *reloadView
	Workers                         []workerView
	Listeners                       []listenerView
	Events                          []eventView
}

type reloadView struct {
	Running      bool
	Replaced, Of int
	Text, Tone   string
}

type workerView struct {
	Row, Slot, State, Tone, Check, Status, Version, Built, Age, Open, Rate string
	Queue, Heartbeat, Memory, CPU, CPUTime, Goroutines, LastExit           string
	ID, PID, Generation, Restarts                                          int
	Late                                                                   bool
}

type listenerView struct {
	Address, Scheduling, Note string
	Backlog, Limit, High      int
}

type eventView struct {
	N                                     int64
	Stamp, Clock, Event, Tone, Who, Words string
}

// look looks at the cluster.
func (s *service) look(now time.Time) *view {
	events, _ := s.journal.after(0) // first: what happens from here on is told anew
	st, health := cluster.Stats(), s.core.Health()
	v := &view{
		Program: s.name(), Now: now, Up: health.Up, Target: st.Target, Generation: st.Generation, Uptime: ago(time.Duration(st.Uptime)),
		Reload: viewReload(st), Tone: "good",
	}
	v.About = master(st.PID)
	switch {
	case health.Stopping:
		v.Stopping, v.Tone = "The cluster is stopping.", "going"
	case health.Up < health.Need || health.Up == 0:
		v.Tone = "bad"
	case health.Up < st.Target:
		v.Tone = "going"
	}
	v.Title = fmt.Sprintf("%d/%d %s", v.Up, v.Target, v.Program)
	s.viewWorkers(v, st, now)
	for _, l := range st.Listeners {
		v.Listeners = append(v.Listeners, viewListener(l))
	}
	if n := len(events); n > 0 {
		v.After = events[n-1].N
		events = events[max(0, n-pageEvents):]
	}
	for _, e := range slices.Backward(events) {
		v.Events = append(v.Events, viewEvent(e))
	}
	return v
}

// name is what the master is called by.
func (s *service) name() string {
	return plain(cmp.Or(s.o.Name, filepath.Base(os.Args[0])))
}

// master tells which process this is.
func master(pid int) string {
	text := "master pid " + strconv.Itoa(pid)
	if host, err := os.Hostname(); err == nil {
		text += " on " + host
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		text += ", " + info.Main.Path + " " + info.Main.Version + ", " + info.GoVersion
	}
	return plain(text)
}

func viewReload(st cluster.Snapshot) *reloadView {
	r := st.Reload
	took := time.Duration(r.Took)
	switch {
	case r.Running:
		text := fmt.Sprintf("A reload is under way for %s: %d of %d slots have the new program.", ago(took), r.Replaced, st.Target)
		return &reloadView{Running: true, Replaced: r.Replaced, Of: max(st.Target, 1), Text: text, Tone: "wait"}
	case r.Error != "":
		return &reloadView{Text: "The last reload failed: " + plain(r.Error), Tone: "bad"}
	case r.Replaced > 0:
		return &reloadView{Text: fmt.Sprintf("The last reload replaced %d of %d workers in %v.", r.Replaced, st.Target, took.Round(time.Millisecond))}
	}
	return nil
}

// tones are the classes of the states that are neither good nor bad.
var tones = map[string]string{
	cluster.Ready.String(): "good", cluster.Starting.String(): "wait", cluster.Online.String(): "wait",
	cluster.Draining.String(): "going", cluster.Disconnected.String(): "going", "out": "bad",
}

// viewWorkers shows the workers, and their sums.
func (s *service) viewWorkers(v *view, st cluster.Snapshot, now time.Time) {
	rates := s.rates.look(st.Workers, now)
	var open, memory int64
	var sum rate
	for _, w := range st.Workers {
		r, known := rates[w.ID]
		open += w.Active
		memory += w.RSS
		if known {
			sum.accepted += r.accepted
			sum.cpu += r.cpu
			sum.known = true
		}
		v.Workers = append(v.Workers, viewWorker(w, r, now))
	}
	v.Open, v.Memory, v.Rate, v.CPU = strconv.FormatInt(open, 10), size(memory), sum.perSecond(), sum.percent()
}

func viewWorker(w cluster.WorkerStats, r rate, now time.Time) workerView {
	v := workerView{
		Row: "slot" + strconv.Itoa(w.Slot), Slot: strconv.Itoa(w.Slot), State: w.State, Tone: tones[w.State],
		ID: w.ID, Generation: w.Generation, Restarts: w.Restarts, LastExit: plain(w.LastExit),
	}
	if w.ID == 0 {
		return v
	}
	if w.Slot < 0 {
		v.Slot = "–"
	}
	v.Row, v.PID, v.Check, v.Status = "worker"+strconv.Itoa(w.ID), w.PID, plain(w.Check), plain(w.Status)
	v.Version, v.Built = version(w)
	v.Age = ago(now.Sub(time.Unix(w.Started, 0)))
	v.Open, v.Rate, v.CPU = strconv.FormatInt(w.Active, 10), r.perSecond(), r.percent()
	v.Queue, v.Heartbeat, v.Memory, v.CPUTime = size(int64(w.Queue)), short(time.Duration(w.HeartbeatAge)), size(w.RSS), short(time.Duration(w.CPU))
	v.Goroutines = "–"
	if w.Goroutines > 0 { // it is watched
		v.Goroutines = strconv.Itoa(w.Goroutines)
		v.Late = time.Duration(w.HeartbeatAge) > 2*cluster.Settings().Watchdog.Interval+time.Second
	}
	return v
}

// version is what a worker was built of: in short, and whole.
func version(w cluster.WorkerStats) (short, whole string) {
	revision, dirty := strings.CutSuffix(w.Revision, "+dirty")
	if len(revision) > 8 {
		revision = revision[:8]
	}
	if dirty {
		revision += "+dirty"
	}
	parts := []string{w.Version, revision}
	if w.Version == "(devel)" && revision != "" || strings.Contains(w.Version, revision[:min(len(revision), 8)]) && revision != "" {
		parts = parts[1:] // a version that the go command has made of the revision tells no more
	}
	short = plain(strings.TrimSpace(strings.Join(parts, " ")))
	whole = plain(strings.TrimSpace(strings.Join([]string{w.Version, w.Revision, w.GoVersion}, " ")))
	return cmp.Or(short, "–"), whole
}

func viewListener(l cluster.ListenerStats) listenerView {
	v := listenerView{
		Address: plain(l.Network + " " + l.Address), Scheduling: l.Scheduling, Backlog: l.Backlog, Limit: l.Limit, High: l.Limit / 2, Note: plain(l.Fallback),
	}
	if l.Sockets > 1 {
		v.Scheduling += fmt.Sprintf(", %d sockets", l.Sockets)
	}
	return v
}

// viewEvent shows an event, whose texts are plain already.
func viewEvent(e Event) eventView {
	v := eventView{N: e.N, Stamp: e.Time.Format(time.RFC3339), Clock: e.Time.Format("15:04:05"), Event: e.Event, Tone: eventTone(e)}
	var who, words []string
	if e.Slot != nil {
		who = append(who, "slot "+strconv.Itoa(*e.Slot))
	}
	if e.ID != 0 {
		who = append(who, "id "+strconv.Itoa(e.ID))
	}
	v.Who = strings.Join(who, ", ")
	if e.Event == "fork" {
		words = append(words, "pid "+strconv.Itoa(e.PID))
	}
	if e.Event == "reload" && e.Result == "" {
		words = append(words, "has begun")
	}
	for _, text := range []string{e.Address, e.Result, e.Reason, e.Text} {
		if text != "" {
			words = append(words, text)
		}
	}
	v.Words = strings.Join(words, ": ")
	return v
}

func eventTone(e Event) string {
	switch {
	case e.Event == "error", e.Result == "failure":
		return "bad"
	case e.Event == "death" && slices.Contains([]string{string(cluster.ReasonCrash), string(cluster.ReasonStall)}, e.Reason):
		return "bad"
	case e.Event == "death", e.Event == "disconnect":
		return "going"
	case e.Event == "ready", e.Result == "success":
		return "good"
	}
	return "wait"
}
