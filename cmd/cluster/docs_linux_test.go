package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// shown is what each line of the documents prints, by its command. One that is not here
// is not shown by any document.
var shown = map[string]string{
	"cluster":                  `(?m)^web +\d+ .* of . ready$`,
	"cluster status":           `workers ready\n`,
	"cluster events":           ` fork +0 id1 `,
	"cluster events -f":        ` fork +0 id1 `,
	"cluster reload":           `slot 0: worker .* is ready\n(.*\n)*web: reloaded in `,
	"cluster logs -f":          `^web\.\d \| serving\n`,
	"cluster scale 3":          `web: scaled to 3 in `,
	"cluster scale 4":          `web: scaled to 4 in `,
	"cluster worker 0 restart": `web: worker 0 restarted in `,
	"cluster worker 1 restart": `web: worker 1 restarted in `,
	"cluster worker 2 drain":   `web: worker 2 drained in `,
	"cluster worker 3 kill":    `web: worker 3 killed in `,
	"cluster stop":             `web: stopped in `,
}

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// documented are the lines with the command in a document, in their order.
func documented(t *testing.T, name string) (lines []string) {
	t.Helper()
	b, err := os.ReadFile(clustertest.Path("..", "..", name))
	require.NoError(t, err)
	for _, block := range shellBlock.FindAllStringSubmatch(string(b), -1) {
		for line := range strings.Lines(block[1]) {
			if line = strings.TrimSpace(line); line == "cluster" || strings.HasPrefix(line, "cluster ") {
				lines = append(lines, line)
			}
		}
	}
	require.NotEmpty(t, lines)
	return lines
}

// testDocs: the lines of the documents do what is said of them, in their order, on a port
// of the test's own. A user has no other cluster here.
func testDocs(c *cli) {
	t := c.t
	c.needs("python3")
	c.needs("gunicorn")
	if os.Getuid() != 0 {
		t.Skip("not root: this user may have other clusters")
	}
	script, err := os.ReadFile(clustertest.Path("..", "..", "examples", "foreign", "server.py"))
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Join(c.dir, "examples", "foreign"), 0o755))
	clustertest.WriteProgram(t, filepath.Join(c.dir, "examples", "foreign", "server.py"), script)
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, "server.js"), []byte(`require("http").createServer((q, a) => a.end("hello\n")).listen(`+strings.Split(c.address(), ":")[1]+`)`), 0o644))
	c.compiled() // ./server
	app, err := os.ReadFile(clustertest.Path("..", "..", "test", "foreign", "testdata", "wsgi.py"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, "app.py"), app, 0o644))
	c.another()
	// This user may not have what root has first in its path.
	c.env = append(c.env, "PATH="+filepath.Dir(c.programs["cluster"])+":/usr/bin:/bin:"+os.Getenv("PATH"), "HOME="+c.dir, "PYTHONDONTWRITEBYTECODE=1",
		"GUNICORN_CMD_ARGS=--graceful-timeout 1") // a SIGTERM before its worker handles signals is lost
	var ran []string
	for _, document := range []string{"README.md", "docs/run.md", "docs/operations.md"} {
		var p *clustertest.Proc
		end := func() {
			if p != nil {
				p.Terminate()
				p = nil
			}
		}
		for _, line := range documented(t, document) {
			ran = append(ran, line)
			if strings.HasPrefix(line, "cluster run ") {
				end()
				p = c.shell(line)
				continue
			}
			if p == nil { // a document that only asks
				p = c.shell("cluster run -n 2 --listen tcp://:8000 --name web -- examples/foreign/server.py")
			}
			c.line(line)
			if line == "cluster stop" {
				require.Zero(t, p.Exit())
				p = nil
			}
		}
		end()
	}
	for line := range shown {
		require.Contains(t, ran, line)
	}
}

// another makes the test another user, who has no cluster yet.
func (c *cli) another() {
	uid := 40000 + os.Getpid()%10000 + 10000*slices.Index([]string{"Several", "Docs"}, filepath.Base(c.t.Name()))
	c.user = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	require.NoError(c.t, os.Chown(c.dir, uid, uid))
	c.t.Cleanup(func() { os.Chown(c.dir, 0, 0) })
}

var runCount = regexp.MustCompile(`-n (\d)`)

// shell starts a line that runs a cluster, and waits for its workers. A cluster without a
// name is called as the documents call it.
func (c *cli) shell(line string) *clustertest.Proc {
	c.t.Helper()
	line = strings.ReplaceAll(line, ":8000", ":"+strings.Split(c.address(), ":")[1])
	cmd := exec.Command("sh", "-c", "exec "+line)
	cmd.Dir = c.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.user}
	p := clustertest.StartCmd(c.t, cmd, "", c.env...)
	ready := regexp.MustCompile(` \| worker \d is ready `)
	for n := clustertest.Atoi(runCount.FindStringSubmatch(line)[1]); n > 0; {
		if ready.MatchString(p.Expect("")) {
			n--
		}
	}
	return p
}

// line runs another line of a document.
func (c *cli) line(line string) {
	c.t.Helper()
	want, ok := shown[line]
	require.True(c.t, ok, "what does %q print?", line)
	var out []byte
	var err error
	for range 20 { // as call does
		if out, err = c.lineOnce(line); !strings.Contains(string(out), "does not answer: it is busy") {
			break
		}
	}
	require.NoError(c.t, err, "%s: %s", line, out)
	require.Regexp(c.t, strings.ReplaceAll(want, "web", `(web|server)`), string(out), line)
}

// lineOnce runs a line to its end; one that follows, to its first line.
func (c *cli) lineOnce(line string) ([]byte, error) {
	cmd := exec.Command("sh", "-c", "exec "+line)
	cmd.Dir, cmd.Env = c.dir, c.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.user}
	if !strings.HasSuffix(line, " -f") {
		return cmd.CombinedOutput()
	}
	r, w, err := os.Pipe()
	require.NoError(c.t, err)
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	require.NoError(c.t, err)
	defer cmd.Wait()
	defer cmd.Process.Kill()
	return bufio.NewReader(r).ReadBytes('\n')
}
