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
