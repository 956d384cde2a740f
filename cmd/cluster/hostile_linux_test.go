package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// A real worker that wants a hand on the operator's terminal.

// hostileGuest prints what is in its environment, says it as its status, and fails in the
// same words once there is a file called bad.
const hostileGuest = `#!/usr/bin/env python3
import os, signal, socket, sys
nasty = os.environb[b"NASTY"]
os.write(1, b"out " + nasty + b"\n")
os.write(2, b"err " + nasty + b"\n")
if os.path.exists(os.environ["BAD"]):
    sys.exit(3)
at = os.environ["NOTIFY_SOCKET"]
says = b"READY=1\nSTATUS=says " + nasty.replace(b"\n", b"")
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(says, "\0" + at[1:] if at[0] == "@" else at)
signal.pause()
`

// testHostileGuest: nothing of a worker's reaches the terminal or the log raw: its program's
// name, its output, its status, and its last words where a reload fails.
func testHostileGuest(c *cli) {
	c.needs("python3")
	t, log, bad := c.t, filepath.Join(c.dir, "log"), filepath.Join(c.dir, "bad")
	program := filepath.Join(c.dir, "guest \x1b[31m\u009b2J")
	clustertest.WriteProgram(t, program, []byte(hostileGuest))
	c.env = append(c.env, "NASTY="+nasty, "BAD="+bad)
	p := c.start("-n", "1", "--log", log, "--ready-notify", "--", program)
	clustertest.Eventually(t, func() bool { return strings.Contains(c.call("status", "-c", c.name).out, "1 of 1 workers ready") }, "a worker that is ready")
	shows := func(text, want string) {
		t.Helper()
		harmless(t, text)
		require.Contains(t, text, want)
	}
	clustertest.Eventually(t, func() bool { return strings.Contains(c.ok("logs"), "err ") && strings.Contains(c.ok("logs"), "out ") }, "its lines")
	shows(c.ok("logs"), `out \x1b[2J`)
	shows(c.ok("logs", "-j"), `"text":"out \u001b[2J`)
	shows(c.ok("status"), `0: says says \x1b[2J`)
	shows(c.ok("status", "-j"), `"says \\x1b[2J`) // the master has escaped it

	require.NoError(t, os.WriteFile(bad, nil, 0o600))
	for _, args := range [][]string{{"reload"}, {"reload", "-j"}} {
		r := c.call(append(args, "-c", c.name)...)
		require.Equal(t, exitFailed, r.code, r.out)
		shows(r.err, "exit status 3")
		shows(r.err, `err \x1b[2J`)
		harmless(t, r.out)
	}
	shows(c.ok("status"), "last reload failed: ")
	shows(c.ok("events"), " death ")
	shows(c.ok("events", "-j"), `"failure"`)
	c.topAfterReload()
	p.Terminate()
	require.Empty(t, p.Output())
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	shows(string(text), `.0 | err \x1b[2J`)
	shows(string(text), `1 workers of `+filepath.Dir(program)+`/guest \x1b[31m\u009b2J; `)
}

// topAfterReload has top order a reload that fails in words that would clear the screen.
func (c *cli) topAfterReload() {
	c.needs("tmux")
	s := &screen{c}
	defer s.tmux("kill-server")
	s.tmux("new-session", "-d", "-x", "400", "-y", "24", c.programs["cluster"]+" -c "+c.name+" top")
	s.shows(`1 of 1 workers ready(?s:.*)q quit`)
	s.press("r")
	s.shows(`reload all workers\? `)
	s.press("y")
	s.shows(`1 of 1 workers ready(?s:.*)exit status 3.*err \\x1b\[2J`)
}

// testColours: on a terminal each slot's lines have a colour before them, and what a worker
// prints has none.
func testColours(c *cli) {
	c.needs("tmux")
	s := &screen{c}
	defer s.tmux("kill-server")
	file := filepath.Join(c.dir, "nasty")
	require.NoError(c.t, os.WriteFile(file, []byte("here \x1b[2J\x1b[7m it is"), 0o600))
	s.tmux("new-session", "-d", "-x", "200", "-y", "24", "NO_COLOR= "+c.programs["cluster"]+" run -n 2 --ready-after 1ms --name "+c.name+" -- sh -c \"cat '"+file+"'; echo; exec sleep 1000\"")
	s.shows(c.name + `\.1 \| here \\x1b\[2J\\x1b\[7m it is`)
	s.shows(c.name + ` \| worker 1 is ready`)
	screen := s.tmux("capture-pane", "-e", "-p")
	require.Contains(c.t, screen, "\x1b[31m"+c.name+".0 | ")
	require.Contains(c.t, screen, "\x1b[32m"+c.name+".1 | ")
	require.NotContains(c.t, screen, "\x1b[7m")
	workers := c.pids()
	c.ok("stop")
	for _, pid := range workers {
		clustertest.Eventually(c.t, func() bool { return !runs(pid) }, "the end of the worker")
	}
}
