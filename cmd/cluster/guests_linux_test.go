package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// Programs of others under cluster run, reloaded while they are asked.

// testExamplePython: the script of examples/foreign. By the time it is ready it has begun
// to serve, or the connections wait.
func testExamplePython(c *cli) {
	c.needs("python3")
	at := c.address()
	p := c.start("-n", "2", "--listen", "tcp://"+at, "--", clustertest.Path("..", "..", "examples", "foreign", "server.py"))
	c.reloadedUnderLoad(p, at, func(int) {})
}

// testExampleGo: the program of examples/foreign in Go, which says when it is ready.
func testExampleGo(c *cli) {
	at := c.address()
	p := c.start("-n", "2", "--listen", "tcp://"+at, "--ready-notify", "--", c.programs["foreign"])
	c.reloadedUnderLoad(p, at, func(int) {})
}

// testExampleC: the one in C, which has no library for any of this.
func testExampleC(c *cli) {
	at := c.address()
	p := c.start("-n", "2", "--listen", "tcp://"+at, "--ready-notify", "--", c.compiled())
	c.reloadedUnderLoad(p, at, func(int) {})
}

// compiled is the program in C of examples/foreign.
func (c *cli) compiled() string {
	c.t.Helper()
	cc, err := exec.Command("go", "env", "CC").Output()
	require.NoError(c.t, err)
	compiler, program := c.needs(strings.Fields(string(cc))[0]), filepath.Join(c.dir, "server")
	out, err := exec.Command(compiler, "-Wall", "-Werror", "-o", program, clustertest.Path("..", "..", "examples", "foreign", "c", "server.c")).CombinedOutput()
	require.NoError(c.t, err, "%s", out)
	return program
}

// testGunicorn: it is a master with workers itself, and says when it is ready. That is
// before its worker handles signals, so this waits for the workers.
func testGunicorn(c *cli) {
	gunicorn, booted := c.needs("gunicorn"), filepath.Join(c.dir, "booted")
	require.NoError(c.t, os.Mkdir(booted, 0o755))
	require.NoError(c.t, os.CopyFS(filepath.Join(c.dir, "app"), os.DirFS(clustertest.Path("..", "..", "test", "foreign", "testdata"))))
	c.env = append(c.env, "BOOTED="+booted, "PYTHONDONTWRITEBYTECODE=1")
	at := c.address()
	p := c.start("-n", "2", "--listen", "tcp://"+at, "--ready-notify", "--", gunicorn, "--chdir", filepath.Join(c.dir, "app"), "--config", filepath.Join(c.dir, "app", "gunicorn.conf.py"), "wsgi:app")
	c.reloadedUnderLoad(p, at, func(workers int) {
		clustertest.Eventually(c.t, func() bool {
			files, err := os.ReadDir(booted)
			return err == nil && len(files) >= workers // more, if it has replaced one that was slow
		}, "gunicorn's workers")
	})
}

// testNodeReload: node has a channel, and listens through that.
func testNodeReload(c *cli) {
	node, script := c.needs("node"), filepath.Join(c.dir, "server.js")
	require.NoError(c.t, os.WriteFile(script, []byte("const [host, port] = process.argv[2].split(':');\n"+
		`require("http").createServer((q, a) => a.end("hello from pid " + process.pid + "\n")).listen(port, host)`), 0o600))
	at := c.address()
	p := c.start("-n", "2", "--", node, script, at)
	c.reloadedUnderLoad(p, at, func(int) {})
}

// testSystemdNotify: a script says by systemd's tool that it is ready, and how it is.
func testSystemdNotify(c *cli) {
	tool, err := exec.LookPath("systemd-notify")
	if err != nil {
		c.t.Skip("no systemd-notify here")
	}
	p := c.start(append([]string{"-n", "1", "--ready-notify", "--"}, forever(tool+" --ready --status='all is well'")...)...)
	c.ready(p, 1)
	clustertest.Eventually(c.t, func() bool { return strings.Contains(c.ok("status"), "\n0: says all is well\n") }, "what it says")
	p.Terminate()
}

// reloadedUnderLoad is the day of a cluster of two at the address: it is asked without a
// pause while it is reloaded, loses nothing, and is stopped. It calls booted before each of
// the two with the number of workers that have begun until then.
func (c *cli) reloadedUnderLoad(p *clustertest.Proc, at string, booted func(workers int)) {
	c.t.Helper()
	c.ready(p, 2)
	booted(2)
	before := c.pids()
	require.Len(c.t, before, 2)
	stop := ask(at)
	require.Contains(c.t, c.ok("reload"), "reloaded in ")
	require.Empty(c.t, stop())
	workers := c.pids()
	require.Len(c.t, workers, 2)
	for _, pid := range workers {
		require.NotContains(c.t, before, pid)
		require.Contains(c.t, c.ok("status"), " ready ")
	}
	booted(4)
	require.Contains(c.t, c.ok("stop"), "stopped in ")
	c.ended(p, append(before, workers...))
}

// ask asks an address by two clients, without a pause, until the returned func is called.
// That returns what each has got that was no greeting, after which it has asked no more.
func ask(at string) (stop func() []string) {
	end, others := make(chan bool), make(chan string, 2)
	var clients sync.WaitGroup
	for range cap(others) {
		clients.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				if text, err := clustertest.Get("http://" + at); err != nil || !strings.HasPrefix(text, "hello from pid ") {
					others <- fmt.Sprintf("%q, %v", text, err)
					return
				}
			}
		})
	}
	return sync.OnceValue(func() (all []string) {
		close(end)
		clients.Wait()
		close(others)
		for answer := range others {
			all = append(all, answer)
		}
		return all
	})
}
