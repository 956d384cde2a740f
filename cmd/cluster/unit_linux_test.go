package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestPlain: what a terminal may obey is escaped, and the rest is as it was.
func TestPlain(t *testing.T) {
	for text, want := range map[string]string{
		"héllo  wörld 👩‍💻\u00a0": "héllo  wörld 👩‍💻\u00a0",
		"\x1b[2J\n\t\u009b\x7f":  `\x1b[2J\n\x09\u009b\u007f`,
		"\xff\ufffd\u202e":       `\xff` + "\ufffd" + `\u202e`,
		"\U000e0001":             `\udb40\udc01`,
	} {
		require.Equal(t, want, plain(text))
	}
	require.Equal(t, "a\tb\n\\x1b", plainText("a\tb\n\x1b"))
	var s string
	require.NoError(t, json.Unmarshal([]byte(plainLine("\"\u009b\x7f\U000e0001\"")), &s))
	require.Equal(t, "\u009b\x7f\U000e0001", s)
}

// TestObject: a line of JSON gets the members that it lacks, and keeps its own.
func TestObject(t *testing.T) {
	l := &lines{worker: "2"}
	at := time.Unix(1e9, 0).UTC()
	for line, want := range map[string]string{
		`{"a":1}`:                       `{"time":"2001-09-09T01:46:40Z","worker":"2","a":1}`,
		` {} `:                          `{"time":"2001-09-09T01:46:40Z","worker":"2"}`,
		`{"time":"x","worker":5}`:       `{"time":"x","worker":5}`,
		`{"time":7, "n":12345678901.0}`: `{"worker":"2","time":7, "n":12345678901.0}`,
	} {
		require.Equal(t, want, string(l.object([]byte(line), at)))
	}
	for _, line := range []string{"", "[1]", "{", `{"a":1}{"b":2}`, "null"} {
		require.Nil(t, l.object([]byte(line), at), line)
	}
}

// TestFlood: what a worker writes beyond its budget of a second is counted, and told in
// the next.
func TestFlood(t *testing.T) {
	l := new(lines)
	at := time.Unix(1e9, 0)
	require.Zero(t, l.spend(maxPerSecond, at))
	for range 3 {
		require.Equal(t, -1, l.spend(1, at))
	}
	require.Equal(t, 3, l.spend(1, at.Add(time.Second)))
	require.Zero(t, l.spend(1, at.Add(time.Second)))
}

// TestFormats: durations, sizes and numbers keep to their columns.
func TestFormats(t *testing.T) {
	for d := time.Millisecond; d < 20000*24*time.Hour; d = d*5/4 + 1 {
		require.LessOrEqual(t, len(short(d)), 6, d)
		require.LessOrEqual(t, len(size(int64(d))), 6, d)
		require.LessOrEqual(t, len(count(int64(d))), 6, d)
	}
	require.Equal(t, "1.5s", short(1500*time.Millisecond))
	require.Equal(t, "2d01h", short(49*time.Hour))
	require.Equal(t, "1.5M", size(3<<19))
	wide := strings.Repeat("x", 300)
	s := cluster.Snapshot{Workers: []cluster.WorkerStats{{ID: 123456, PID: 4194304, Slot: 1, Name: "id123456", State: "disconnected", Generation: 9999,
		Started: 1, Restarts: 99999, Active: 1e12, RSS: 1 << 50, CPU: 1 << 60, LastExit: wide, Status: wide}}}
	for line := range strings.Lines(statusText("web", s, time.Now())) {
		require.LessOrEqual(t, len([]rune(line)), width+1, line)
	}
}

// TestOnlyWorker: of metrics what has the worker's label itself stays, with its head.
func TestOnlyWorker(t *testing.T) {
	const text = "# HELP a help\n# TYPE a gauge\na{worker=\"1\"} 1\na{x=\"y\",worker=\"2\"} 2\n" +
		"# HELP b help\n# TYPE b gauge\nb{x=\",worker=\\\"2\\\"\",worker=\"1\"} 3\nb{exported_worker=\"2\"} 4\nb 5\n"
	require.Equal(t, "# HELP a help\n# TYPE a gauge\na{x=\"y\",worker=\"2\"} 2\n", onlyWorker(text, "2"))
	require.Equal(t, "# HELP a help\n# TYPE a gauge\na{worker=\"1\"} 1\n# HELP b help\n# TYPE b gauge\nb{x=\",worker=\\\"2\\\"\",worker=\"1\"} 3\n", onlyWorker(text, "1"))
	require.Empty(t, onlyWorker(text, `2\`))
}

// TestNames: a cluster is called by its program, or by its script.
func TestNames(t *testing.T) {
	script := filepath.Join(clustertest.TempDir(t), "my server.py")
	require.NoError(t, os.WriteFile(script, []byte("#!/usr/bin/env -S node --x\n"), 0o700))
	require.Equal(t, "my_server", nameOf([]string{"/usr/bin/python3", "-u", script}))
	require.Equal(t, "gunicorn", nameOf([]string{"gunicorn", "app:app"}))
	require.Equal(t, "program", nameOf([]string{"..."}))
	require.True(t, isOwn(script))
	require.False(t, isOwn("/bin/sh"))
	for text, want := range map[string]cluster.Socket{
		"tcp://:8000": {Network: "tcp", Address: ":8000"}, "[::1]:80": {Network: "tcp", Address: "[::1]:80"},
		"/run/x.sock": {Network: "unix", Address: "/run/x.sock"}, "web=udp://1.2.3.4:5": {Network: "udp", Address: "1.2.3.4:5", Name: "web"},
		"unix:///a=b": {Network: "unix", Address: "/a=b"},
	} {
		s, err := parseListen(text)
		require.NoError(t, err)
		require.Equal(t, want, s)
	}
}

// TestFullQueue: a master to which nobody can connect any more is busy.
func TestFullQueue(t *testing.T) {
	dir := filepath.Join(clustertest.TempDir(t), "cluster")
	require.NoError(t, os.Mkdir(dir, 0o700))
	defer os.RemoveAll(dir)
	s := socket{name: "web", pid: "1", path: filepath.Join(dir, "web.1.sock")}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: s.path}))
	require.NoError(t, unix.Listen(fd, 0))
	c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(c)
	require.NoError(t, unix.Connect(c, &unix.SockaddrUnix{Name: s.path}))
	err = newMaster(s).alive()
	require.ErrorContains(t, err, "the master (pid 1) does not answer: it is busy")
	require.True(t, answers(s.path))
}
