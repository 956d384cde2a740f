package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/go-cluster/cluster"
)

// symbolPath is where go tool pprof posts program counters, for their names. Nothing else
// below debug is posted.
const symbolPath = "/debug/pprof/symbol"

// debugOf answers /workers/{name}/debug/…: for the master itself, for one worker, or
// /debug/stacks for all.
func (s *service) debugOf(w http.ResponseWriter, r *http.Request) {
	name, path := r.PathValue("name"), "/debug/"+r.PathValue("rest")
	switch {
	case r.Method == http.MethodPost && path != symbolPath:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only program counters are posted, to "+symbolPath, http.StatusMethodNotAllowed)
		return
	case path == "/debug/pprof":
		// A handler below does not know the path by which it is asked.
		http.Redirect(w, r, "pprof/", http.StatusMovedPermanently)
		return
	case name == "all" && path == "/debug/stacks":
		s.allStacks(w, r)
		return
	case name == "master":
		s.debug.ServeHTTP(w, local(r, path))
		return
	}
	one, err := find(name)
	if err == nil && one.ID == 0 {
		err = fmt.Errorf("slot %d is empty: %w", one.Slot, errNoWorker)
	}
	if err != nil {
		fail(w, err)
		return
	}
	if path == "/debug/stacks" { // a profile takes as long as it is asked for
		ctx, cancel := context.WithTimeout(r.Context(), stackTime)
		defer cancel()
		r = r.WithContext(ctx)
	}
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL = &url.URL{Scheme: "http", Host: hostOf(one.ID), Path: path, RawQuery: r.URL.RawQuery}
			p.Out.Host = p.Out.URL.Host
			p.Out.Header.Del("Authorization") // is the master's
			p.Out.Header.Del("Connection")
			p.Out.Header.Del("Upgrade")
		},
		ModifyResponse: func(a *http.Response) error {
			disarm(a.Header)
			return nil
		},
		Transport:     s.workers.transport,
		FlushInterval: -1,
		ErrorLog:      nowhere,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			status := http.StatusBadGateway
			switch {
			case errors.Is(err, cluster.ErrNotSupported):
				status = http.StatusNotImplemented
			case errors.Is(err, context.DeadlineExceeded):
				status = http.StatusGatewayTimeout
			}
			writeJSON(w, status, failure{plain(unanswered(one, err).Error())})
		},
	}
	proxy.ServeHTTP(w, r)
}

// harmless are the headers of a worker's answer that are passed on.
var harmless = []string{"Content-Type", "Content-Disposition", "Content-Length", "Content-Encoding", "Date", "X-Go-Pprof"}

// disarm makes a worker's answer one that does nothing in a browser: it comes from the
// master's origin, where a script could order with the operator's password.
func disarm(h http.Header) {
	for name := range h {
		if !slices.Contains(harmless, name) {
			h.Del(name)
		}
	}
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'")
}

// unanswered says why a worker has not answered.
func unanswered(w cluster.WorkerStats, err error) error {
	switch {
	case errors.Is(err, cluster.ErrNotSupported):
		err = errors.New("a Foreign program cannot be asked; on Windows no worker can")
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("it has not answered for %v: is it stopped, or does it hang?", stackTime)
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("it does not answer: does it call admin.Start? (%w)", err)
	}
	return fmt.Errorf("worker %s (pid %d): %w", w.Name, w.PID, err)
}

// local is the request with another path.
func local(r *http.Request, path string) *http.Request {
	r = r.Clone(r.Context())
	r.URL.Path, r.URL.RawPath = path, ""
	return r
}

// stackTime is how long a worker may take to tell its stacks.
const stackTime = 5 * time.Second

// maxStacks bounds, in bytes, the stacks of one process.
const maxStacks = 64 << 20

// allStacks writes the stacks of the master and of every worker.
func (s *service) allStacks(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "=== master (pid %d)\n\n%s\n", os.Getpid(), stacks())
	client := http.Client{Transport: s.workers.transport, Timeout: stackTime}
	for _, one := range cluster.Stats().Workers {
		if one.ID == 0 {
			continue
		}
		fmt.Fprintf(w, "=== worker %s (pid %d)\n\n", one.Name, one.PID)
		answer, err := client.Get("http://" + hostOf(one.ID) + "/debug/stacks")
		if err != nil {
			fmt.Fprintf(w, "%s\n\n", plain(unanswered(one, err).Error()))
			continue
		}
		writePlain(w, io.LimitReader(answer.Body, maxStacks))
		answer.Body.Close()
		fmt.Fprintln(w)
	}
}

// writePlain copies a worker's text so that it may reach a terminal.
func writePlain(w io.Writer, text io.Reader) {
	lines := bufio.NewReader(text)
	for {
		line, err := lines.ReadString('\n')
		body, ended := strings.CutSuffix(line, "\n")
		tabs := len(body) - len(strings.TrimLeft(body, "\t")) // which indent
		io.WriteString(w, body[:tabs]+plain(body[tabs:]))
		if ended {
			io.WriteString(w, "\n")
		}
		if err != nil {
			return
		}
	}
}

// completed serves what a program's own ServeMux lacks: the stacks, for which cluster stacks
// asks whatever Options.Debug is, and the names of program counters that are posted, as go
// tool pprof does it and package net/http/pprof does not take it.
func completed(h http.Handler) http.Handler {
	mux, ok := h.(*http.ServeMux)
	if !ok {
		return h
	}
	missing := map[string]http.HandlerFunc{"/debug/stacks": tellStacks, symbolPath: symbols}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if own := missing[r.URL.Path]; own != nil {
			if _, pattern := mux.Handler(r); !strings.Contains(pattern, "/debug/") { // "/" is the program's
				own(w, r)
				return
			}
		}
		mux.ServeHTTP(w, r)
	})
}

func tellStacks(w http.ResponseWriter, _ *http.Request) { text(w, stacks()) }

// debugHandler is what Options.Debug replaces.
func debugHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/stacks", tellStacks)
	mux.HandleFunc("GET /debug/vars", variables)
	handleProfiles(mux)
	return mux
}

// stacks are those of all goroutines.
func stacks() []byte {
	b := make([]byte, 64<<10)
	for {
		n := runtime.Stack(b, true)
		if n < len(b) || len(b) >= maxStacks {
			return b[:n]
		}
		b = make([]byte, 2*len(b))
	}
}

// variables are those of package expvar, if the program has imported that; else the
// two that it begins with.
func variables(w http.ResponseWriter, r *http.Request) {
	h, pattern := http.DefaultServeMux.Handler(r)
	if strings.HasSuffix(pattern, "/debug/vars") {
		h.ServeHTTP(w, r)
		return
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	json.NewEncoder(w).Encode(map[string]any{"cmdline": os.Args, "memstats": m})
}
