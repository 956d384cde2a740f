package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// screen is a terminal of 80 by 24, in tmux, in which top runs.
type screen struct {
	c *cli
}

// tmux runs one command of tmux, whose server is the test's own.
func (s *screen) tmux(args ...string) string {
	cmd := exec.Command("tmux", append([]string{"-u", "-f", "/dev/null", "-S", filepath.Join(s.c.dir, "tmux")}, args...)...)
	cmd.Env = append(s.c.env, "TMUX=", "LC_ALL=C.UTF-8", "TERM=xterm-256color")
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// shows waits until the screen matches.
func (s *screen) shows(pattern string) string {
	s.c.t.Helper()
	re, text := regexp.MustCompile(pattern), ""
	defer func() {
		if s.c.t.Failed() {
			s.c.t.Logf("the screen:\n%s", text)
		}
	}()
	clustertest.Eventually(s.c.t, func() bool {
		text = s.tmux("capture-pane", "-p")
		return re.MatchString(text)
	}, "a screen with "+pattern)
	return text
}

func (s *screen) press(keys ...string) { s.tmux(append([]string{"send-keys"}, keys...)...) }

// testTop: what top shows follows the cluster, and its keys order what they say, if that is
// confirmed.
func testTop(c *cli) {
	c.needs("tmux")
	t := c.t
	at := c.address()
	p := clustertest.Start(t, service, append(c.env, "NAME="+c.name, "LISTEN="+at)...)
	c.ready(p, 2)
	s := &screen{c}
	t.Cleanup(func() { s.tmux("kill-server") })
	s.tmux("new-session", "-d", "-x", "80", "-y", "24", c.programs["cluster"]+" -c "+c.name+" top; echo status $?; exec sleep 1000")
	text := s.shows(`2 of 2 workers ready(?s:.*)WORKER +ID +PID +STATE(?s:.*)\n0 +id1 (?s:.*)\n1 +id2 (?s:.*)q quit`)
	for line := range strings.Lines(text) {
		require.LessOrEqual(t, utf8.RuneCountInString(line), 81, line)
	}

	s.press("k")
	s.shows(`kill worker 0\? \(y/n\)`)
	s.press("n")
	s.shows("not done")
	require.Equal(t, 1, c.stats().Workers[0].ID)
	s.press("Down", "k")
	s.shows(`kill worker 1\? \(y/n\)`)
	s.press("y")
	s.shows(`\n1 +id3 (?s:.*)worker 1 killed`)
	require.Equal(t, 1, c.stats().Workers[0].ID)
	s.press("+")
	s.shows(`scale to 3\? `)
	s.press("y")
	s.shows(`3 of 3 workers ready(?s:.*)scaled to 3`)
	stop := ask(at)
	t.Cleanup(func() { stop() })
	s.shows(`(?m)^\d +id\d+ +\d+ +ready +1 +\S+ +\d+ +\d+ +[1-9]\S* `) // accepted a second
	s.keepPicture("top")
	require.Empty(t, stop())
	s.press("r")
	s.shows(`reload all workers\? `)
	s.press("y")
	s.shows(`generation 2, 3 of 3(?s:.*)\nreloaded`)
	s.press("s")
	s.shows(`sorted by cpu`)
	s.press("Enter")
	s.shows(`stacks of worker \d(?s:.*)goroutine \d+ \[`)
	s.press("q")
	s.shows(`WORKER +ID`)

	clustertest.Pause(t, p.Cmd.Process.Pid)
	s.shows(`does not answer: it is stopped`)
	p.Signal(syscall.SIGCONT)
	s.shows(`\n\nWORKER +ID `)
	s.press("q")
	s.shows(`status 0`)
	r := c.call("-c", c.name, "top")
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.err, "needs a terminal")
	cmd := exec.Command("sh", "-c", c.programs["cluster"]+" -c "+c.name+" top -j | head -n 2")
	cmd.Env = c.env
	out, err := cmd.Output()
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(out), `{"pid":`), string(out))
	c.ok("stop")
	require.Zero(t, p.Exit())
}

// TestTopView: whatever a master says, top draws lines that fit, in any window, and nothing
// that a terminal obeys but its own colours.
func TestTopView(t *testing.T) {
	m := newTop(newMaster(socket{name: "web"}))
	wide := strings.Repeat("x", 200) + nasty
	for range 30 {
		m.state.Workers = append(m.state.Workers, cluster.WorkerStats{ID: 1 << 30, PID: 1 << 22, Name: wide, State: wide, Active: 1e12, RSS: 1 << 60, Restarts: 1 << 30})
		m.state.Listeners = append(m.state.Listeners, cluster.ListenerStats{Network: wide, Address: wide})
	}
	m.err, m.note = failed("%s", wide), plain(wide)
	for _, size := range [][2]int{{80, 24}, {20, 10}, {200, 60}, {1, 1}} {
		m.width, m.height = size[0], size[1]
		for _, stacks := range [][]string{nil, textLines(strings.Repeat(wide, 50))} {
			m.stacks = stacks
			m.cursor = 29
			lines := strings.Split(colours.ReplaceAllString(m.View(), ""), "\n")
			for _, line := range lines {
				require.LessOrEqual(t, utf8.RuneCountInString(line), max(1, size[0]))
				harmless(t, line)
			}
			require.LessOrEqual(t, len(lines), max(size[1], 11))
		}
	}
}

var colours = regexp.MustCompile(`\x1b\[[0-9;]*m`)
