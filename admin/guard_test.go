package admin

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// TestHosts: an address is asked by names only that no stranger can make lead here.
func TestHosts(t *testing.T) {
	g := newGuard(Options{Hosts: []string{"Admin.Example.com"}})
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.0.0.1:80": true, "[::1]:80": true, "[::1]": true, "::1": true, "localhost:80": true, "web-1": true, "web-1:80": true,
		"admin.example.com": true, "ADMIN.example.com.:8": true,
		"evil.example": false, "evil.example:80": false, "127.0.0.1.evil.example": false, "": false, ":80": false, "localhost.evil.example": false,
	} {
		require.Equal(t, want, g.hostAllowed(host), host)
	}
}

// TestHandler: mounted in another server it asks as Address does; before Start it has
// nothing to say.
func TestHandler(t *testing.T) {
	ask := func(r *http.Request) int {
		w := httptest.NewRecorder()
		Handler().ServeHTTP(w, r)
		return w.Code
	}
	require.Equal(t, http.StatusServiceUnavailable, ask(httptest.NewRequest("GET", "http://localhost/stats", nil)))
	stop, err := Start(Options{Socket: "-", Token: "secret"})
	require.NoError(t, err)
	defer stop()
	require.Equal(t, http.StatusOK, ask(httptest.NewRequest("GET", "http://localhost/stats", nil)))
	require.Equal(t, http.StatusMisdirectedRequest, ask(httptest.NewRequest("GET", "http://evil.example/stats", nil)))
	r := httptest.NewRequest("POST", "http://localhost/reload", nil)
	r.Header.Set("X-Cluster", "1")
	require.Equal(t, http.StatusUnauthorized, ask(r))
	r.Header.Set("Authorization", "Bearer secret")
	require.Equal(t, http.StatusConflict, ask(r), "there are no workers")
	r.Header.Set("Origin", "null")
	require.Equal(t, http.StatusForbidden, ask(r))
	r.Header.Set("Origin", "http://localhost")
	require.Equal(t, http.StatusConflict, ask(r))

	// Without a token nobody is trusted, whatever he gives.
	g := newGuard(Options{})
	r = httptest.NewRequest("POST", "http://localhost/reload", nil)
	require.False(t, g.trusted(r))
	r.SetBasicAuth("", "")
	require.False(t, g.trusted(r))
}

// TestPageGuards: the page is guarded as the other reads are, runs nothing but its own
// script, and is shown in no frame.
func TestPageGuards(t *testing.T) {
	stop, err := Start(Options{Socket: "-", Token: "secret"})
	require.NoError(t, err)
	defer stop()
	ask := func(host, origin string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "http://"+host+"/", nil)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		w := httptest.NewRecorder()
		Handler().ServeHTTP(w, r)
		return w
	}
	require.Equal(t, http.StatusMisdirectedRequest, ask("rebound.example", "").Code)
	require.Equal(t, http.StatusMisdirectedRequest, ask("rebound.example", "http://rebound.example").Code)
	require.Equal(t, http.StatusForbidden, ask("localhost", "http://evil.example").Code)
	require.Equal(t, http.StatusForbidden, ask("localhost", "null").Code)
	w := ask("localhost", "http://localhost")
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Body.String(), "<caption id=\"workers\">")
	require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
	require.Equal(t, "DENY", w.Header().Get("X-Frame-Options"))
	policy := w.Header().Get("Content-Security-Policy")
	nonce := regexp.MustCompile(`script-src 'nonce-([A-Z2-7]{26})';`).FindStringSubmatch(policy)
	require.Len(t, nonce, 2, policy)
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'", "style-src 'nonce-" + nonce[1] + "'"} {
		require.Contains(t, policy, want)
	}
	require.NotContains(t, policy, "unsafe")
	require.Equal(t, 2, strings.Count(w.Body.String(), `nonce="`+nonce[1]+`"`))
	require.NotContains(t, ask("localhost", "").Header().Get("Content-Security-Policy"), nonce[1])
}

// TestHostileView: what a worker says of itself reaches the page as text alone.
func TestHostileView(t *testing.T) {
	bad := "<script>alert(1)</script>\"'\x1b[2J\n\u009b\u202e"
	w := cluster.WorkerStats{ID: 1, State: "ready", Check: bad, Status: bad, LastExit: bad, Version: bad, Revision: bad, GoVersion: bad}
	named := &service{o: Options{Name: bad}}
	v := view{Program: named.name(), Title: named.name(), Reload: viewReload(cluster.Snapshot{Reload: cluster.ReloadStats{Error: bad}})}
	v.Workers = append(v.Workers, viewWorker(w, rate{}, time.Now()))
	v.Listeners = append(v.Listeners, viewListener(cluster.ListenerStats{Network: "unix", Address: bad, Fallback: bad}))
	j := newJournal()
	j.add(Event{Event: "error", Text: bad, Address: bad})
	list, _ := j.after(0)
	v.Events = append(v.Events, viewEvent(list[0]))
	var b bytes.Buffer
	require.NoError(t, pageTemplate.ExecuteTemplate(&b, "part", v))
	require.NotContains(t, b.String(), "<script>")
	require.NotContains(t, b.String(), `)</script>"`)
	require.False(t, strings.ContainsAny(b.String(), "\x1b\u009b\u202e"))
	require.GreaterOrEqual(t, strings.Count(b.String(), `alert(1)&lt;/script&gt;&#34;&#39;\x1b[2J\n\u009b\u202e`), 10)
}

// TestRates: what happens in a second is known from the second look on, of a worker that
// has come meanwhile too.
func TestRates(t *testing.T) {
	var r rates
	at := time.Now()
	look := func(after time.Duration, accepted ...int64) map[int]rate {
		var list []cluster.WorkerStats
		for i, n := range accepted {
			list = append(list, cluster.WorkerStats{ID: i + 1, Accepted: n, CPU: cluster.Seconds(n) * cluster.Seconds(time.Millisecond)})
		}
		at = at.Add(after)
		return r.look(list, at)
	}
	require.Empty(t, look(0, 100))
	require.Empty(t, look(sampleEvery/2, 110), "too soon")
	all := look(sampleEvery/2, 120, 7)
	require.InDelta(t, 20, all[1].accepted, 1e-9)
	require.InDelta(t, 0.02, all[1].cpu, 1e-9)
	require.NotContains(t, all, 2)
	all = look(2*time.Second, 120, 17)
	require.InDelta(t, 20.0/3, all[1].accepted, 1e-9)
	require.InDelta(t, 5, all[2].accepted, 1e-9)
	require.Equal(t, "6.7", all[1].perSecond())
	for range 200 {
		look(sampleEvery, 120, 17)
	}
	require.LessOrEqual(t, len(r.samples), int(sampleAge/sampleEvery)+1)
	require.Zero(t, look(0, 120, 17)[1].accepted)
	require.Len(t, look(sampleAge/2, 150), 1)
	require.Empty(t, look(2*sampleAge, 150), "nobody has looked for long")
	require.Empty(t, r.samples[0].counts[2])
}

// TestNothingIsRegistered: a program that serves http.DefaultServeMux does not
// publish profiles because of this package.
func TestNothingIsRegistered(t *testing.T) {
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/profile", "/debug/vars"} {
		_, pattern := http.DefaultServeMux.Handler(httptest.NewRequest("GET", path, nil))
		require.Empty(t, pattern, path)
	}
}

// TestJournal: the last events are kept, and whoever comes back gets what he missed,
// or all of it if the number is none of ours.
func TestJournal(t *testing.T) {
	j := newJournal()
	_, more := j.after(0)
	j.add(Event{Event: "scale", Text: "a\x1b[2J\u009b\nb"})
	<-more
	list, _ := j.after(0)
	require.Equal(t, `a\x1b[2J\u009b\nb`, list[0].Text)
	for range kept + 10 {
		j.add(Event{Event: "scale"})
	}
	list, _ = j.after(0)
	require.Len(t, list, kept)
	require.EqualValues(t, kept+11, list[kept-1].N)
	list, _ = j.after(kept + 9)
	require.Len(t, list, 2)
	list, more = j.after(kept + 11)
	require.Empty(t, list)
	select {
	case <-more:
		t.Fatal("nothing is new")
	default:
	}
	for _, odd := range []int64{-1, kept + 12, 1 << 60} {
		list, _ = j.after(odd)
		require.Len(t, list, kept)
	}
}

// TestStallBook: what is kept is bounded, in number and in bytes, and a terminal is safe
// from what a worker wrote.
func TestStallBook(t *testing.T) {
	b := newStallBook()
	b.output(1, 0, "stderr", []byte("of nobody"))
	for i := range 20 {
		b.add(&keptStall{Stall: Stall{ID: i + 1}})
	}
	all := b.all()
	require.Len(t, all, maxStalls)
	require.EqualValues(t, 20, all[maxStalls-1].N)
	for range 40 {
		b.output(20, 0, "stderr", bytes.Repeat([]byte("\x1b[2J\n"), 10<<10))
	}
	b.output(20, 0, "stdout", []byte("no"))
	b.output(1, 0, "stderr", []byte("dropped"))
	k, ok := b.find("20")
	require.True(t, ok)
	require.Equal(t, "output", k.From)
	require.Len(t, k.stacks, stallStacks)
	b.died(20, cluster.Exit{Code: 2})
	_, ok = b.find("1")
	require.False(t, ok)
	s := &service{stalls: b}
	r := httptest.NewRequest("GET", "/stalls/20", nil)
	r.SetPathValue("n", "20")
	w := httptest.NewRecorder()
	s.stallOf(w, r)
	require.NotContains(t, w.Body.String(), "\x1b")
	require.Contains(t, w.Body.String(), "=== ended: exit status 2 after ")
	for i := range 6 {
		b.add(&keptStall{Stall: Stall{ID: 30 + i}, trace: make([]byte, stallTrace)})
	}
	require.LessOrEqual(t, len(b.all()), stallBytes/stallTrace)
	require.EqualValues(t, 26, b.all()[len(b.all())-1].N)
}
