package admin

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-cluster/cluster"
)

// debugOf answers /workers/{name}/debug/…: for the master itself, for one worker, or
// /debug/stacks for all.
func (s *service) debugOf(w http.ResponseWriter, r *http.Request) {
	name, path := r.PathValue("name"), "/debug/"+r.PathValue("rest")
	switch {
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
			writeJSON(w, http.StatusBadGateway, failure{plain(unanswered(one, err).Error())})
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
	if errors.Is(err, io.EOF) {
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

// stackTime is how long a worker may take to tell its stacks, of all.
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

// debugHandler is what Options.Debug replaces.
func debugHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/stacks", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write(stacks())
	})
	mux.HandleFunc("GET /debug/vars", variables)
	mux.HandleFunc("GET /debug/pprof/{$}", profileList)
	mux.HandleFunc("GET /debug/pprof/cmdline", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, strings.Join(os.Args, "\x00"))
	})
	mux.HandleFunc("GET /debug/pprof/profile", func(w http.ResponseWriter, r *http.Request) {
		record(w, r, "profile", 30, pprof.StartCPUProfile, pprof.StopCPUProfile)
	})
	mux.HandleFunc("GET /debug/pprof/trace", func(w http.ResponseWriter, r *http.Request) {
		record(w, r, "trace", 1, trace.Start, trace.Stop)
	})
	mux.HandleFunc("GET /debug/pprof/{profile}", profile)
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

// maxSeconds bounds a profile of a time: who has gone ends it earlier.
const maxSeconds = 3600

// record answers with what begin writes in ?seconds=.
func record(w http.ResponseWriter, r *http.Request, name string, seconds int, begin func(io.Writer) error, end func()) {
	if q := r.FormValue("seconds"); q != "" {
		n, err := strconv.Atoi(q)
		if err != nil || n < 1 || n > maxSeconds {
			fail(w, badRequest{fmt.Errorf("seconds=%q: a number from 1 to %d is needed", q, maxSeconds)})
			return
		}
		seconds = n
	}
	binary(w, name)
	if err := begin(w); err != nil { // another one is being recorded
		w.Header().Del("Content-Disposition")
		fail(w, err)
		return
	}
	defer end()
	select {
	case <-time.After(time.Duration(seconds) * time.Second):
	case <-r.Context().Done():
	}
}

func binary(w http.ResponseWriter, name string) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
}

// profile answers with a profile of runtime/pprof: of ?gc=1 after a collection, as
// text with ?debug=1.
func profile(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("profile")
	p := pprof.Lookup(name)
	if p == nil {
		writeJSON(w, http.StatusNotFound, failure{"no such profile"})
		return
	}
	if name == "heap" && r.FormValue("gc") != "" && r.FormValue("gc") != "0" {
		runtime.GC()
	}
	debug, _ := strconv.Atoi(r.FormValue("debug"))
	if debug != 0 {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	} else {
		binary(w, name)
	}
	p.WriteTo(w, debug)
}

// profileList names the profiles that there are.
func profileList(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	for _, p := range pprof.Profiles() {
		fmt.Fprintf(&b, "%d\t%s\n", p.Count(), p.Name())
	}
	b.WriteString("\tcmdline\n\tprofile\n\ttrace\n")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(b.Bytes())
}
