package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-cluster/cluster"
)

// The bounds of a connection. A response has none: a profile or a drain takes as long
// as it takes.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	shutdownTimeout   = 10 * time.Second
	maxHeader         = 64 << 10
)

// nowhere is where package net/http logs what clients do wrong.
var nowhere = log.New(io.Discard, "", 0)

// logger is the cluster's.
func logger() *slog.Logger {
	if l := cluster.Settings().Logger; l != nil {
		return l
	}
	return slog.Default()
}

// routes are all that a master answers.
func (s *service) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("GET /stats", s.stats)
	mux.HandleFunc("GET /stats/{name}", s.statsOf)
	mux.HandleFunc("GET /events", s.events)
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /logs", s.guard.private(s.logs))
	mux.HandleFunc("GET /stalls", s.guard.private(s.stallList))
	mux.HandleFunc("GET /stalls/{n}", s.guard.private(s.stallOf))
	mux.HandleFunc("GET /stalls/{n}/trace", s.guard.private(s.stallTraceOf))
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /workers/{name}/debug/{rest...}", s.guard.private(s.debugOf))
	mux.HandleFunc("POST /workers/{name}/debug/{rest...}", s.guard.private(s.debugOf))
	for path, do := range map[string]order{
		"/reload": s.reload, "/scale": s.scale, "/stop": s.stop,
		"/workers/{name}/drain": s.drain, "/workers/{name}/kill": s.kill, "/workers/{name}/restart": s.restart,
	} {
		mux.HandleFunc("POST "+path, s.guard.ordering(s.workers, s.ordered(do)))
	}
	mux.HandleFunc("POST /upgrade", s.guard.ordering(s.workers, s.upgrade))
	return s.guard.all(mux)
}

// ---- the state

func (s *service) stats(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, cluster.Stats())
}

func (s *service) statsOf(w http.ResponseWriter, r *http.Request) {
	one, err := find(r.PathValue("name"))
	if err != nil {
		fail(w, err)
		return
	}
	writeJSON(w, http.StatusOK, one)
}

func (s *service) healthz(w http.ResponseWriter, _ *http.Request) {
	s.core.Health() // an answer of the state's own goroutine, not of this server alone
	io.WriteString(w, "ok\n")
}

func (s *service) readyz(w http.ResponseWriter, _ *http.Request) {
	h := s.core.Health()
	text := strconv.Itoa(h.Up) + " of " + strconv.Itoa(h.Need) + " workers are up\n"
	if h.Stopping {
		text = "stopping\n"
	}
	if h.Stopping || h.Up == 0 || h.Up < h.Need {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	io.WriteString(w, text)
}

// ---- names

// errNoWorker is why nothing was done: nobody has that name.
var errNoWorker = errors.New("no worker has that name")

// find returns the worker with the name, or the slot that is empty.
func find(name string) (cluster.WorkerStats, error) {
	for _, w := range cluster.Stats().Workers {
		if w.Name == name || w.ID == 0 && strconv.Itoa(w.Slot) == name {
			return w, nil
		}
		if w.ID != 0 && name == "id"+strconv.Itoa(w.ID) {
			return w, nil
		}
	}
	return cluster.WorkerStats{}, fmt.Errorf("%w: %q", errNoWorker, name)
}

// process is the worker with the id, or nil.
func process(id int) *cluster.Process {
	for _, w := range cluster.Workers() {
		if w.ID() == id {
			return w
		}
	}
	return nil
}

// ---- answers

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, plain(err.Error()), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(b)+1)) // so that a flush ends the answer
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}

// failure is why something was refused, or failed.
type failure struct {
	Error string `json:"error"`
}

// fail answers with the error.
func fail(w http.ResponseWriter, err error) { writeJSON(w, statusOf(err), failure{plain(err.Error())}) }

// badRequest is an error in what was asked.
type badRequest struct{ error }

func statusOf(err error) int {
	_, bad := errors.AsType[badRequest](err)
	switch {
	case bad:
		return http.StatusBadRequest
	case errors.Is(err, errNoWorker):
		return http.StatusNotFound
	case errors.Is(err, cluster.ErrNotSupported):
		return http.StatusNotImplemented
	}
	return http.StatusConflict
}

// plain is a text of a worker's as it may reach a terminal: what is not printable is
// written as in a Go string.
func plain(s string) string {
	odd := func(r rune) bool { return r == utf8.RuneError || !strconv.IsPrint(r) }
	if strings.IndexFunc(s, odd) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if odd(r) {
			q := strconv.Quote(s[:n])
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}
