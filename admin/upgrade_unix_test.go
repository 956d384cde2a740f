//go:build unix

package admin_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster/admin"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// upgrade orders an upgrade, until it is not called off because this machine was slow.
func (s *running) upgrade() (answer string) {
	s.t.Helper()
	for range 5 {
		var err error
		answer, err = post(s.client, "/upgrade")
		require.NoError(s.t, err)
		if !strings.Contains(answer, "not within 5s") {
			break
		}
	}
	return answer
}

// past are the events so far.
func (s *running) past() (all []admin.Event) {
	for e := range s.follow("/events?follow=0") {
		all = append(all, e)
	}
	return all
}

// outcome waits for that of an upgrade, of whichever program tells it.
func (s *running) outcome(after int64) (end admin.Event) {
	s.t.Helper()
	clustertest.Eventually(s.t, func() bool {
		r, err := http.NewRequestWithContext(s.t.Context(), "GET", fmt.Sprintf("http://cluster/events?after=%d", after), nil)
		require.NoError(s.t, err)
		r.Header.Set("Accept", "application/x-ndjson")
		a, err := s.client.Do(r)
		if err != nil {
			return false // between the two programs
		}
		defer a.Body.Close()
		for lines := bufio.NewScanner(a.Body); lines.Scan(); {
			var e admin.Event
			if json.Unmarshal(lines.Bytes(), &e) == nil && e.Event == "upgrade" && e.Result != "" {
				end = e
				return true
			}
		}
		return false
	}, "the end of the upgrade")
	return end
}

// TestUpgrade: the answer says that the new program has passed its check, and an event of
// that one that it has taken the master's place. What it takes over it shows as before.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	refuse := filepath.Join(clustertest.TempDir(t), "refuse")
	address := fmt.Sprintf("127.0.0.1:%d", clustertest.FreePort(t))
	s := run(t, "REFUSE="+refuse, "ADMIN="+address)
	before, past := s.stats(), s.past()
	require.NoError(t, os.WriteFile(refuse, nil, 0o600))
	answer := s.upgrade()
	require.Equal(t, "409", answer[:3], answer)
	require.Contains(t, answer, "no configuration")
	e := s.outcome(past[len(past)-1].N)
	require.Equal(t, "failure", e.Result)
	require.Contains(t, e.Text, "no configuration")
	require.NoError(t, os.Remove(refuse))

	require.Equal(t, `202 {"ok":true,"status":202}`, s.upgrade())
	e = s.outcome(e.N)
	require.Equal(t, "success", e.Result, e.Text)
	require.Contains(t, e.Text, filepath.Base(os.Args[0]))
	after := s.stats()
	require.Equal(t, before.PID, after.PID)
	require.Len(t, after.Workers, 2)
	for slot := range 2 {
		require.Equal(t, before.Workers[slot].PID, after.Workers[slot].PID)
	}
	require.Equal(t, past[0], s.past()[0], "the events go on")

	// What the workers write passes through this program now.
	_, err := clustertest.Get("http://" + s.listen + "/say?out=" + url.QueryEscape("said after it"))
	require.NoError(t, err)
	clustertest.Eventually(t, func() bool { return strings.Contains(s.get("/logs"), "| said after it") }, "what a worker said")
	s.post("/workers/0/kill", "200")
	events := s.follow(fmt.Sprintf("/events?after=%d", e.N))
	require.Equal(t, 1, until(t, events, "death", whichever).Generation)
	_, err = clustertest.Get("http://" + address + "/healthz")
	require.NoError(t, err)
	s.post("/stop", "200")
	require.Zero(t, s.Exit())
}

// eventSource is what a browser does with /events: it comes back whenever the stream ends, and
// says what it had last.
func (s *running) eventSource() (events <-chan admin.Event, comes *atomic.Int64) {
	all := make(chan admin.Event, 1000)
	comes = new(atomic.Int64)
	go func() {
		defer close(all)
		for last := int64(0); s.t.Context().Err() == nil; {
			r, _ := http.NewRequestWithContext(s.t.Context(), "GET", "http://cluster/events", nil)
			r.Header.Set("Last-Event-ID", fmt.Sprint(last))
			a, err := s.client.Do(r)
			if err != nil {
				time.Sleep(clustertest.Tick) // between the two programs
				continue
			}
			comes.Add(1)
			for lines := bufio.NewScanner(a.Body); lines.Scan(); {
				var e admin.Event
				data, ok := strings.CutPrefix(lines.Text(), "data: ")
				if ok && json.Unmarshal([]byte(data), &e) == nil {
					last = e.N
					all <- e
				}
			}
			a.Body.Close()
		}
	}()
	return all, comes
}

// TestEventsOverUpgrade: who follows the events as a master is replaced comes back to the new
// program, and misses none and gets none twice.
func TestEventsOverUpgrade(t *testing.T) {
	t.Parallel()
	s := run(t)
	all, comes := s.eventSource()
	var last int64
	next := func(is func(admin.Event) bool) (e admin.Event) {
		t.Helper()
		for {
			e = clustertest.Await(t, all, "event")
			last++
			require.Equal(t, last, e.N, "%+v", e)
			if is(e) {
				return e
			}
		}
	}
	ended := func(e admin.Event) bool { return e.Event == "upgrade" && e.Result != "" }
	for n := range 2 {
		for result := ""; result != "success"; { // a slow machine needs several
			require.Equal(t, `202 {"ok":true,"status":202}`, s.upgrade())
			result = next(ended).Result
		}
		require.GreaterOrEqual(t, comes.Load(), int64(n+2), "it came back")
		s.post("/workers/0/kill", "200")
		next(func(e admin.Event) bool { return e.Event == "death" })
	}
	s.post("/stop", "200")
	require.Zero(t, s.Exit())
}

// knock connects to a socket again and again until stop, which returns the first error.
func knock(network, address string) (stop func() error) {
	end, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-end:
				ended <- nil
				return
			case <-time.After(2 * time.Millisecond):
			}
			c, err := net.Dial(network, address)
			if err != nil {
				ended <- err
				return
			}
			if tcp, ok := c.(*net.TCPConn); ok {
				tcp.SetLinger(0) // no port of many is left in TIME_WAIT
			}
			c.Close()
		}
	}()
	return func() error { close(end); return <-ended }
}

// TestKeptOverUpgrade: lines with their numbers, stalls and counts are in the new program what
// they were, and nobody who asks at the socket or the address meanwhile is refused.
func TestKeptOverUpgrade(t *testing.T) {
	t.Parallel()
	address := fmt.Sprintf("127.0.0.1:%d", clustertest.FreePort(t))
	s := run(t, "HANG=A=B", "ADMIN="+address)
	s.say("said before", "on stderr\twith a tab")
	_, err := clustertest.Get("http://" + s.listen + "/hang")
	require.NoError(t, err)
	stall := s.stall(func(k admin.Stall) bool { return k.Exit != "" })
	counted := fmt.Sprintf(`cluster_worker_restarts_total{reason="stall",worker="%d"} 1`, *stall.Slot)
	clustertest.Eventually(t, func() bool { return strings.Contains(s.get("/metrics"), counted) }, counted)
	past := s.past()
	paths := []string{"/stalls", "/stalls/1", "/stalls/1/trace"}
	var before []string
	for _, path := range paths {
		before = append(before, s.get(path))
	}
	lines := s.logLines("")
	require.ElementsMatch(t, []string{"said before", "on stderr\twith a tab"}, []string{lines[0].Text, lines[1].Text})

	for range 2 { // what has come goes over again
		stop, stopAddress := knock("unix", s.socket), knock("tcp", address)
		for n, result := past[len(past)-1].N, ""; result != "success"; { // a slow machine needs several
			require.Equal(t, `202 {"ok":true,"status":202}`, s.upgrade())
			e := s.outcome(n)
			n, result = e.N, e.Result
		}
		require.NoError(t, stop())
		require.NoError(t, stopAddress())
		for i, path := range paths {
			require.Equal(t, before[i], s.get(path), path)
		}
		require.Contains(t, s.get("/metrics"), counted)
		past = s.past()
		now := s.logLines("")
		require.Equal(t, lines, now[:len(lines)])
		last := now[len(now)-1].N
		s.say("said after", "")
		var added []admin.LogLine
		clustertest.Eventually(t, func() bool {
			added = s.logLines(fmt.Sprintf("&after=%d", last))
			return len(added) > 0
		}, "the line")
		require.Len(t, added, 1)
		require.Equal(t, last+1, added[0].N)
		require.Equal(t, "said after", added[0].Text)
		lines = s.logLines("")
	}
	require.Equal(t, "400", s.status("GET", "/logs?after=x")[:3])
	require.Len(t, s.logLines("&after=99999"), len(lines), "of another master")
	s.post("/stop", "200")
	require.Zero(t, s.Exit())
	require.NoFileExists(t, s.socket)
}

// logLines are the lines that are kept.
func (s *running) logLines(query string) (all []admin.LogLine) {
	s.t.Helper()
	r, err := http.NewRequest("GET", "http://cluster/logs?follow=0"+query, nil)
	require.NoError(s.t, err)
	r.Header.Set("Accept", "application/x-ndjson")
	a, err := s.client.Do(r)
	require.NoError(s.t, err)
	defer a.Body.Close()
	for d := json.NewDecoder(a.Body); d.More(); {
		var l admin.LogLine
		require.NoError(s.t, d.Decode(&l))
		all = append(all, l)
	}
	return all
}
