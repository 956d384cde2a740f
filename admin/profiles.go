package admin

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/pprof/profile"
)

// The profiles of this process, as package net/http/pprof serves them.

// handleProfiles adds them to mux.
func handleProfiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/{$}", profileList)
	mux.HandleFunc("GET /debug/pprof/cmdline", func(w http.ResponseWriter, _ *http.Request) {
		text(w, []byte(strings.Join(os.Args, "\x00")))
	})
	mux.HandleFunc("GET /debug/pprof/profile", func(w http.ResponseWriter, r *http.Request) {
		record(w, r, "profile", 30*time.Second, pprof.StartCPUProfile, pprof.StopCPUProfile)
	})
	mux.HandleFunc("GET /debug/pprof/trace", func(w http.ResponseWriter, r *http.Request) {
		record(w, r, "trace", time.Second, trace.Start, trace.Stop)
	})
	mux.HandleFunc("GET /debug/pprof/symbol", symbols)
	mux.HandleFunc("POST /debug/pprof/symbol", symbols)
	mux.HandleFunc("GET /debug/pprof/{profile}", lookUp)
}

// text answers with a text.
func text(w http.ResponseWriter, b []byte) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(b)
}

// binary announces a file of a name.
func binary(w http.ResponseWriter, name string) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
}

// maxSeconds bounds a profile of a time: who has gone ends it earlier.
const maxSeconds = 3600

// duration is ?seconds=, or usual if that is not given.
func duration(r *http.Request, usual time.Duration) (time.Duration, error) {
	q := r.FormValue("seconds")
	if q == "" {
		return usual, nil
	}
	n, err := strconv.ParseFloat(q, 64)
	if err != nil || !(n > 0 && n <= maxSeconds) {
		return 0, badRequest{fmt.Errorf("seconds=%q: a number above 0, of %d at most, is needed", q, maxSeconds)}
	}
	return time.Duration(n * float64(time.Second)), nil
}

// record answers with what begin writes in ?seconds=.
func record(w http.ResponseWriter, r *http.Request, name string, usual time.Duration, begin func(io.Writer) error, end func()) {
	d, err := duration(r, usual)
	if err != nil {
		fail(w, err)
		return
	}
	binary(w, name)
	if err := begin(w); err != nil { // another one is being recorded
		w.Header().Del("Content-Disposition")
		fail(w, err)
		return
	}
	defer end()
	select {
	case <-time.After(d):
	case <-r.Context().Done():
	}
}

// lookUp answers with a profile of runtime/pprof: of ?gc=1 after a collection, as text
// with ?debug=1, and with ?seconds= what has come in that time.
func lookUp(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("profile")
	p := pprof.Lookup(name)
	if p == nil {
		writeJSON(w, http.StatusNotFound, failure{"no such profile"})
		return
	}
	debug, _ := strconv.Atoi(r.FormValue("debug"))
	if r.FormValue("seconds") != "" {
		delta(w, r, p, debug)
		return
	}
	if name == "heap" && r.FormValue("gc") != "" && r.FormValue("gc") != "0" {
		runtime.GC()
	}
	if debug != 0 {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	} else {
		binary(w, name)
	}
	p.WriteTo(w, debug)
}

// differ are the profiles of which one can be taken off another.
var differ = []string{"allocs", "block", "goroutine", "heap", "mutex", "threadcreate"}

// delta answers with what a profile has at the end of ?seconds= beyond its beginning. What
// has become less is negative in it.
func delta(w http.ResponseWriter, r *http.Request, p *pprof.Profile, debug int) {
	d, err := duration(r, 0)
	switch {
	case err != nil:
	case !slices.Contains(differ, p.Name()):
		err = badRequest{fmt.Errorf("%s has no seconds: %s have", p.Name(), strings.Join(differ, ", "))}
	case debug != 0:
		err = badRequest{fmt.Errorf("seconds and debug do not go together: what comes in a time is no text")}
	}
	if err != nil {
		fail(w, err)
		return
	}
	before, err := collect(p)
	if err != nil {
		fail(w, err)
		return
	}
	select {
	case <-time.After(d):
	case <-r.Context().Done():
		return // nobody is left who would have it
	}
	after, err := collect(p)
	if err != nil {
		fail(w, err)
		return
	}
	began, ended := before.TimeNanos, after.TimeNanos
	before.Scale(-1)
	sum, err := profile.Merge([]*profile.Profile{before, after})
	if err != nil {
		fail(w, err)
		return
	}
	sum.TimeNanos, sum.DurationNanos = ended, ended-began
	binary(w, p.Name()+"-delta")
	sum.Write(w)
}

// collect takes a profile now.
func collect(p *pprof.Profile) (*profile.Profile, error) {
	var b bytes.Buffer
	if err := p.WriteTo(&b, 0); err != nil {
		return nil, err
	}
	now := time.Now().UnixNano()
	all, err := profile.Parse(&b)
	if err == nil && all.TimeNanos == 0 {
		all.TimeNanos = now
	}
	return all, err
}

// maxSymbols bounds, in bytes, a question for the names of program counters.
const maxSymbols = 1 << 20

// symbols names the functions of program counters, which are put together by "+": those of
// the body, or of the query.
func symbols(w http.ResponseWriter, r *http.Request) {
	asked := r.URL.RawQuery
	if r.Method == http.MethodPost {
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxSymbols))
		if err != nil {
			fail(w, badRequest{err})
			return
		}
		asked = string(b)
	}
	var b bytes.Buffer
	b.WriteString("num_symbols: 1\n") // not how many: there are names
	for word := range strings.SplitSeq(asked, "+") {
		pc, err := strconv.ParseUint(word, 0, 64)
		if f := runtime.FuncForPC(uintptr(pc)); err == nil && f != nil {
			fmt.Fprintf(&b, "%#x %s\n", pc, f.Name())
		}
	}
	text(w, b.Bytes())
}

// profileList names the profiles that there are.
func profileList(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	for _, p := range pprof.Profiles() {
		fmt.Fprintf(&b, "%d\t%s\n", p.Count(), p.Name())
	}
	b.WriteString("\tcmdline\n\tprofile\n\tsymbol\n\ttrace\n")
	text(w, b.Bytes())
}
