//go:build unix

package admin_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster/admin"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// say has a worker write.
func (s *running) say(out, err string, more ...string) {
	form := url.Values{"out": {out}, "err": {err}}
	for _, name := range more {
		form.Set(name, "1")
	}
	a, failed := http.PostForm("http://"+s.listen+"/say", form)
	if failed == nil {
		a.Body.Close()
	}
	if len(more) == 0 {
		require.NoError(s.t, failed)
	}
}

// followLogs follows the log as JSON lines.
func (s *running) followLogs(query string) <-chan admin.LogLine {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), "GET", "http://cluster/logs?follow=1&"+query, nil)
	require.NoError(s.t, err)
	r.Header.Set("Accept", "application/x-ndjson")
	a, err := s.client.Do(r)
	require.NoError(s.t, err)
	require.Equal(s.t, http.StatusOK, a.StatusCode)
	all := make(chan admin.LogLine, 1000)
	go func() {
		defer close(all)
		defer a.Body.Close()
		for lines := bufio.NewReader(a.Body); ; {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			var l admin.LogLine
			if strings.ContainsAny(string(line), "\x1b\u009b") || json.Unmarshal(line, &l) != nil {
				l.Text = "raw: " + string(line)
			}
			all <- l
		}
	}()
	return all
}

// line waits for one with the text.
func line(t *testing.T, all <-chan admin.LogLine, text string) admin.LogLine {
	t.Helper()
	for {
		l := clustertest.Await(t, all, "line "+text)
		require.NotEmpty(t, l.ID, "the log has ended, or is raw: %s", l.Text)
		if l.Text == text {
			return l
		}
	}
}

// TestLogs: what workers write is kept, with who wrote it, a dead worker's too, and
// goes on to where it went before.
func TestLogs(t *testing.T) {
	t.Parallel()
	s := run(t)
	all := s.followLogs("")
	s.say("one", "two")
	l := line(t, all, "one")
	require.Equal(t, "stdout", l.Stream)
	require.Contains(t, []string{"0", "1"}, l.Worker)
	require.False(t, l.Time.IsZero())
	s.say("three", "")
	line(t, all, "three")
	s.Expect("three") // in the master's own output as well

	s.say("last words", "", "exit")
	dead := line(t, all, "last words")
	s.post("/workers/"+dead.Worker+"/restart", "200") // a worker of the slot is up
	require.Contains(t, s.get(fmt.Sprintf("/logs?worker=id%d", dead.ID)), " stdout | last words")
	text := s.get("/logs?worker=" + dead.Worker)
	require.Contains(t, text, " "+dead.Worker+" stdout | last words")
	require.NotContains(t, text, " "+map[string]string{"0": "1", "1": "0"}[dead.Worker]+" std")
	require.Equal(t, 1, strings.Count(s.get("/logs?tail=1")+"\n", "\n"))
	require.Equal(t, "", s.get("/logs?tail=0"))
	require.Contains(t, s.get("/logs?since=1h"), "| last words")
	require.NotContains(t, s.get("/logs?since=2100-01-01T00:00:00Z"), "| last words")
	for path, want := range map[string]string{
		"/logs?tail=x": "400", "/logs?tail=-1": "400", "/logs?since=yesterday": "400", "/logs?follow=maybe": "400", "/logs?worker=99": "404",
	} {
		r, err := http.NewRequest("GET", "http://cluster"+path, nil)
		require.NoError(t, err)
		answer, err := do(s.client, r)
		require.NoError(t, err)
		require.Equal(t, want, answer[:3], path)
	}
	s.post("/stop", "200")
	require.Zero(t, s.Exit())
	for range all { // which ends
	}
}

// TestLogsHostile: a long line is cut and marked, and no control character reaches a
// terminal, while JSON keeps it.
func TestLogsHostile(t *testing.T) {
	t.Parallel()
	s := run(t)
	all := s.followLogs("")
	bad := "a\x1b[2J\u009b\tb\x7f"
	s.say(bad, strings.Repeat("é", 5000))
	require.Equal(t, "stdout", line(t, all, bad).Stream)
	require.Equal(t, "stderr", line(t, s.followLogs(""), strings.Repeat("é", 4096)+" [cut: a line of more than 8 KiB]").Stream)
	text := s.get("/logs")
	require.Contains(t, text, `| a\x1b[2J\u009b`+"\t"+`b\x7f`)
	require.NotContains(t, text, "\x1b")
	require.NotContains(t, text, "\u009b")
}

// TestLogsOnlyForTheTrusted: over the address they need the token.
func TestLogsOnlyForTheTrusted(t *testing.T) {
	t.Parallel()
	address := fmt.Sprintf("127.0.0.1:%d", clustertest.FreePort(t))
	run(t, "ADMIN="+address, "TOKEN=secret")
	for password, want := range map[string]string{"": "401", "wrong": "401", "secret": "200"} {
		r, err := http.NewRequest("GET", "http://"+address+"/logs", nil)
		require.NoError(t, err)
		r.SetBasicAuth("x", password)
		answer, err := do(http.DefaultClient, r)
		require.NoError(t, err)
		require.Equal(t, want, answer[:3])
	}
}

// TestLogsWithoutAMaster: a worker whose master is killed goes on writing to where the
// master wrote, and nobody dies of a broken pipe.
func TestLogsWithoutAMaster(t *testing.T) {
	t.Parallel()
	s := run(t)
	s.Signal(syscall.SIGKILL)
	s.Expect("stdout of the last moment")
	s.Expect("stdout of the last moment")
	clustertest.Eventually(t, func() bool { return strings.Count(s.Output(), "stderr of the last moment") == 2 }, "last word of each worker")
	s.Exit()
	s.GroupEmpty()
}

// TestLogsInherited: with -1 workers write to the master's own.
func TestLogsInherited(t *testing.T) {
	t.Parallel()
	s := run(t, "LOG=-1")
	s.say("one", "")
	s.Expect("one")
	r, err := http.NewRequest("GET", "http://cluster/logs", nil)
	require.NoError(t, err)
	answer, err := do(s.client, r)
	require.NoError(t, err)
	require.Equal(t, "501", answer[:3], answer)
}
