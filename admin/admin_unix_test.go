//go:build unix

package admin_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/admin"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestLastEvents: who follows the events of a master that is stopped gets all of them.
func TestLastEvents(t *testing.T) {
	t.Parallel()
	s := run(t)
	events := s.follow("/events")
	until(t, events, "ready", whichever)
	until(t, events, "ready", whichever)
	s.Signal(syscall.SIGTERM)
	until(t, events, "death", whichever)
	until(t, events, "death", whichever)
	require.Zero(t, s.Exit())
}

// TestLife: what the operator sees and orders, over the socket, from the start to the
// stop, which leaves no file.
func TestLife(t *testing.T) {
	t.Parallel()
	s := run(t)
	events := s.follow("/events")
	require.Equal(t, "ok", s.get("/healthz"))
	require.Equal(t, "2 of 2 workers are up", s.get("/readyz"))
	st := s.stats()
	require.Len(t, st.Workers, 2)
	var one cluster.WorkerStats
	require.NoError(t, json.Unmarshal([]byte(s.get("/stats/1")), &one))
	require.Equal(t, st.Workers[1].PID, one.PID)
	require.NoError(t, json.Unmarshal([]byte(s.get(fmt.Sprintf("/stats/id%d", one.ID))), &one))
	require.Equal(t, 1, one.Slot)

	// The past comes first, in order.
	e := until(t, events, "fork", whichever)
	require.EqualValues(t, 1, e.N)
	require.Equal(t, 1, e.Generation)
	require.NotNil(t, e.Slot)
	until(t, events, "listening", func(e admin.Event) bool { return e.Address == "tcp "+s.listen })
	until(t, events, "ready", whichever)

	// A browser that comes back has its first address, and the number of what it had last.
	r, err := http.NewRequest("GET", "http://cluster/events?follow=0&after=0", nil)
	require.NoError(t, err)
	r.Header.Set("Last-Event-ID", "2")
	answer, err := do(s.client, r)
	require.NoError(t, err)
	require.Contains(t, answer, "id: 3\n")
	require.NotContains(t, answer, "id: 2\n")

	past := s.follow("/events?follow=0")
	until(t, past, "ready", whichever)
	for range past { // which end by themselves
	}

	s.post("/reload", "200")
	e = until(t, events, "reload", whichever)
	require.Empty(t, e.Result)
	e = until(t, events, "death", whichever)
	require.Equal(t, "reload", e.Reason)
	e = until(t, events, "reload", whichever)
	require.Equal(t, "success", e.Result)

	s.post("/scale?n=3", "200")
	require.Equal(t, "3", until(t, events, "scale", whichever).Text)
	require.Equal(t, "3 of 3 workers are up", s.get("/readyz"))
	s.post("/scale?n=2", "200")
	require.Len(t, s.stats().Workers, 2)

	before := s.stats().Workers
	s.post("/workers/0/restart", "200")
	s.post("/workers/1/kill", "200")
	after := s.stats().Workers
	for slot := range 2 {
		require.Greater(t, after[slot].ID, before[slot].ID)
	}
	s.post("/workers/1/drain", "200")
	require.Equal(t, "off", s.stats().Workers[1].State)
	require.Contains(t, s.post("/workers/1/kill", "409"), "empty")
	s.post("/workers/1/restart", "200")
	require.Equal(t, "1", s.stats().Workers[1].Name)

	s.post("/stop", "200")
	require.Zero(t, s.Exit())
	_, err = os.Lstat(s.socket)
	require.ErrorIs(t, err, os.ErrNotExist)
	for range events { // which end
	}
}

// TestRefusals: what is wrong in an order is said, and nothing is done.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := run(t)
	for path, want := range map[string]string{
		"/scale": "400", "/scale?n=-1": "400", "/scale?n=x": "400", "/scale?n=1e9": "400", "/scale?n=99999999": "400",
		"/workers/2/drain": "404", "/workers/x/kill": "404", "/workers/id99/restart": "404", "/workers/-1/kill": "404", "/workers/00/kill": "404",
	} {
		answer, err := post(s.client, path)
		require.NoError(t, err)
		require.Equal(t, want, answer[:3], "%s: %s", path, answer)
	}
	for _, path := range []string{"/reload", "/scale?n=1", "/stop", "/workers/0/kill"} {
		for method, want := range map[string]string{"GET": "405", "POST": "403"} {
			r, err := http.NewRequest(method, "http://cluster"+path, nil)
			require.NoError(t, err)
			answer, err := do(s.client, r) // without X-Cluster
			require.NoError(t, err)
			require.Equal(t, want, answer[:3], path)
		}
	}
	st := s.stats()
	require.Len(t, st.Workers, 2)
	require.Zero(t, st.Workers[0].Restarts)
}

// TestReloadThatFails is told with the new worker's last words; the progress as JSON
// lines, of which the last is the outcome.
func TestReloadThatFails(t *testing.T) {
	t.Parallel()
	broken := filepath.Join(clustertest.TempDir(t), "broken")
	s := run(t, "BROKEN="+broken)
	require.NoError(t, os.WriteFile(broken, nil, 0o600))
	require.Contains(t, s.post("/reload", "409"), "no certificate")

	r, err := http.NewRequest("POST", "http://cluster/reload", nil)
	require.NoError(t, err)
	r.Header.Set("X-Cluster", "1")
	r.Header.Set("Accept", "application/x-ndjson")
	a, err := s.client.Do(r)
	require.NoError(t, err)
	defer a.Body.Close()
	var lines []string
	for sc := bufio.NewScanner(a.Body); sc.Scan(); {
		lines = append(lines, sc.Text())
	}
	require.Contains(t, lines[0], `"event":"reload"`)
	require.Contains(t, strings.Join(lines, ""), `"event":"fork"`)
	require.Contains(t, lines[len(lines)-1], `"ok":false`)
	require.Contains(t, lines[len(lines)-1], "no certificate")
	require.Contains(t, lines[len(lines)-1], `"status":409`)
}

// TestReboundSocket: a port that leads to the socket (ssh -L) gives a page of a stranger's
// name nothing, which could order there.
func TestReboundSocket(t *testing.T) {
	t.Parallel()
	s := run(t)
	for host, want := range map[string]string{"rebound.example": "421", "rebound.example:9090": "421", "localhost:9090": "200", "127.0.0.1:9090": "200"} {
		r, err := http.NewRequest("GET", "http://"+host+"/stats", nil)
		require.NoError(t, err)
		answer, err := do(s.client, r)
		require.NoError(t, err)
		require.Equal(t, want, answer[:3], host)
		r, err = http.NewRequest("POST", "http://"+host+"/scale?n=x", nil)
		require.NoError(t, err)
		r.Header.Set("Origin", "http://"+host)
		r.Header.Set("X-Cluster", "1")
		answer, err = do(s.client, r)
		require.NoError(t, err)
		require.Equal(t, map[string]string{"421": "421", "200": "400"}[want], answer[:3], host)
	}
}

// TestNoOrderOfAWorker: neither a worker nor what it has started orders anything,
// though they run as the same user.
func TestNoOrderOfAWorker(t *testing.T) {
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		t.Skip("who asks has no number here")
	}
	t.Parallel()
	s := run(t)
	answer, err := clustertest.Get("http://" + s.listen + "/order")
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(answer, "403 a worker, and what it has started, may order nothing"), answer)
	require.Equal(t, 2, s.stats().Target)
}

// TestHostileText: what a worker says reaches neither a terminal nor another line.
func TestHostileText(t *testing.T) {
	t.Parallel()
	s := run(t)
	events := s.follow("/events")
	_, err := clustertest.Get("http://" + s.listen + "/complain")
	require.NoError(t, err)
	e := until(t, events, "error", whichever)
	require.NotContains(t, e.Text, "\x1b")
	r, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("http://cluster/events?after=%d", e.N-1), nil)
	require.NoError(t, err)
	a, err := s.client.Do(r)
	require.NoError(t, err)
	defer a.Body.Close()
	sc := bufio.NewScanner(a.Body)
	for i, want := range []string{fmt.Sprintf("id: %d", e.N), "data: {", ""} {
		require.True(t, sc.Scan())
		require.True(t, strings.HasPrefix(sc.Text(), want), "line %d: %q", i, sc.Text())
		require.NotContains(t, sc.Text(), "\x1b")
		require.NotContains(t, sc.Text(), "\u009b")
	}
}

// TestHostileDebug: what a worker answers does nothing in the operator's browser or
// terminal.
func TestHostileDebug(t *testing.T) {
	t.Parallel()
	s := run(t, "HOSTILE=1")
	r, err := http.NewRequest("GET", "http://cluster/workers/0/debug/page", nil)
	require.NoError(t, err)
	a, err := s.client.Do(r)
	require.NoError(t, err)
	a.Body.Close()
	require.Equal(t, "text/html", a.Header.Get("Content-Type"))
	require.Contains(t, a.Header.Get("Content-Security-Policy"), "sandbox;")
	require.Equal(t, "nosniff", a.Header.Get("X-Content-Type-Options"))
	require.Empty(t, a.Header.Get("Set-Cookie"))
	require.Empty(t, a.Header.Get("Refresh"))
	stacks := s.get("/workers/all/debug/stacks")
	require.NotContains(t, stacks, "\x1b")
	require.Contains(t, stacks, `</script>\x1b[2J`+"\n\tindented\n")
	require.Contains(t, stacks, "()\n\t") // the master's own are as they are
}

// TestWorkerThatDoesNotAnswer: one that is stopped costs its own answer only.
func TestWorkerThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	s := run(t)
	stopped := s.stats().Workers[1]
	clustertest.Pause(t, stopped.PID)
	stacks := s.get("/workers/all/debug/stacks")
	require.Contains(t, stacks, "worker 1 (pid ")
	require.Contains(t, stacks, "has not answered for 5s")
	require.Contains(t, stacks, "=== worker 0 (pid ")
	a, err := s.client.Get("http://cluster/workers/1/debug/stacks")
	require.NoError(t, err)
	text, err := io.ReadAll(a.Body)
	require.NoError(t, err)
	a.Body.Close()
	require.Equal(t, http.StatusGatewayTimeout, a.StatusCode)
	require.Contains(t, string(text), "has not answered for 5s")
	require.Equal(t, "ok", s.get("/healthz"))
	s.post("/workers/1/kill", "200")
	require.Greater(t, s.stats().Workers[1].ID, stopped.ID)
}

// TestPprof: go tool pprof takes profiles of one worker, over the address with the
// token; without it nobody gets any.
func TestPprof(t *testing.T) {
	t.Parallel()
	address := fmt.Sprintf("127.0.0.1:%d", clustertest.FreePort(t))
	s := run(t, "ADMIN="+address, "TOKEN=secret")
	for _, path := range []string{"/workers/1/debug/pprof/heap", "/workers/1/debug/pprof/profile?seconds=1", "/workers/master/debug/pprof/goroutine"} {
		c := exec.Command("go", "tool", "pprof", "-top", "http://x:secret@"+address+path)
		c.Env = append(os.Environ(), "PPROF_TMPDIR="+clustertest.TempDir(t))
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "Showing nodes", path)
	}
	for _, path := range []string{"/workers/1/debug/pprof/heap", "/workers/1/debug/vars", "/workers/all/debug/stacks"} {
		a, err := http.Get("http://" + address + path)
		require.NoError(t, err)
		a.Body.Close()
		require.Equal(t, http.StatusUnauthorized, a.StatusCode)
	}
	st := s.stats()
	clustertest.Eventually(t, func() bool { // each has 5 s, which a slow machine may not give it
		stacks := s.get("/workers/all/debug/stacks")
		for _, w := range st.Workers {
			if !strings.Contains(stacks, fmt.Sprintf("=== worker %s (pid %d)\n\ngoroutine ", w.Name, w.PID)) {
				return false
			}
		}
		return true
	}, "the stacks of each worker")
	var vars struct{ Memstats struct{ HeapSys uint64 } }
	require.NoError(t, json.Unmarshal([]byte(s.get("/workers/0/debug/vars")), &vars))
	require.Positive(t, vars.Memstats.HeapSys)
	require.Contains(t, s.get("/workers/0/debug/pprof/cmdline"), filepath.Base(os.Args[0]))
	r, err := http.NewRequest("GET", "http://"+address+"/workers/1/debug/stacks", nil)
	require.NoError(t, err)
	r.SetBasicAuth("x", "secret")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	answer, err := do(http.DefaultClient, r)
	require.NoError(t, err)
	require.Equal(t, "403", answer[:3])
}

// TestAddress: it gives the state to everybody who asks by a good name, and orders to
// who has the token.
func TestAddress(t *testing.T) {
	t.Parallel()
	address := fmt.Sprintf("127.0.0.1:%d", clustertest.FreePort(t))
	s := run(t, "ADMIN="+address, "TOKEN=secret")
	ask := func(method, path string, change func(r *http.Request)) string {
		r, err := http.NewRequest(method, "http://"+address+path, nil)
		require.NoError(t, err)
		r.Header.Set("X-Cluster", "1")
		change(r)
		answer, err := do(http.DefaultClient, r)
		require.NoError(t, err)
		return answer[:3]
	}
	same := func(*http.Request) {}
	require.Equal(t, "200", ask("GET", "/stats", same))
	require.Equal(t, "421", ask("GET", "/stats", func(r *http.Request) { r.Host = "rebound.example" }))
	require.Equal(t, "403", ask("GET", "/stats", func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }))
	require.Equal(t, "401", ask("POST", "/scale?n=1", same))
	require.Equal(t, "401", ask("POST", "/scale?n=1", func(r *http.Request) { r.SetBasicAuth("x", "wrong") }))
	require.Equal(t, "403", ask("POST", "/scale?n=1", func(r *http.Request) {
		r.SetBasicAuth("x", "secret")
		r.Header.Del("X-Cluster")
	}))
	require.Equal(t, 2, s.stats().Target)
	require.Equal(t, "200", ask("POST", "/scale?n=1", func(r *http.Request) { r.Header.Set("Authorization", "Bearer secret") }))
	require.Equal(t, 1, s.stats().Target)
}

// TestStartTwice: there is one service in a process, and stop makes room for another.
func TestStartTwice(t *testing.T) {
	clustertest.CheckLeaks(t)
	asked := filepath.Join(clustertest.TempDir(t), "s")
	stop, err := admin.Start(admin.Options{Socket: asked})
	require.NoError(t, err)
	_, err = admin.Start(admin.Options{Socket: asked})
	require.ErrorIs(t, err, admin.ErrStarted)
	c := client(asked)
	r, err := http.NewRequest("GET", "http://cluster/readyz", nil)
	require.NoError(t, err)
	answer, err := do(c, r)
	require.NoError(t, err)
	require.Equal(t, "503 0 of 0 workers are up", answer)
	stop()
	stop()
	_, err = os.Lstat(asked)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = admin.Start(admin.Options{Socket: filepath.Join(asked, "not", "there")})
	require.Error(t, err)
	stop, err = admin.Start(admin.Options{Socket: "-"})
	require.NoError(t, err)
	stop()
}
