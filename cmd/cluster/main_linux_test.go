package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// TestCommand: the built command as a user runs it. The parts are side by side.
func TestCommand(t *testing.T) {
	dir := clustertest.TempDir(t)
	require.NoError(t, os.Chmod(dir, 0o755))                           // for another user too
	install := exec.Command("go", "-C", "cmd/cluster", "install", ".") // the README's line
	install.Dir, install.Env = clustertest.Path("..", ".."), append(os.Environ(), "GOBIN="+dir)
	out, err := install.CombinedOutput()
	require.NoError(t, err, "%s", out)
	programs := map[string]string{"foreign": clustertest.Path("..", "..", "examples", "foreign"), "hello": clustertest.Path("..", "..", "examples", "hello")}
	for name, from := range programs {
		programs[name] = filepath.Join(dir, name)
		build := exec.Command("go", "build", "-o", programs[name], ".")
		build.Dir = from
		out, err := build.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	programs["cluster"] = filepath.Join(dir, "cluster")
	for name, test := range map[string]func(c *cli){
		"Python": testPython, "GoForeign": testGoForeign, "Own": testOwn, "Node": testNode, "Worker": testWorker,
		"Usage": testUsage, "Stopped": testStopped, "Killed": testKilled, "Hostile": testHostile, "HostileWorker": testHostileWorker, "HostileGuest": testHostileGuest, "Colours": testColours,
		"Log": testLog, "ReadyURL": testReadyURL, "ReloadOnChange": testReloadOnChange, "Several": testSeveral,
		"BootLoop": testBootLoop, "Completion": testCompletion, "Docs": testDocs, "Profiles": testProfiles, "Top": testTop, "Logs": testLogs,
		"ExamplePython": testExamplePython, "ExampleGo": testExampleGo, "ExampleC": testExampleC, "Gunicorn": testGunicorn,
		"NodeReload": testNodeReload, "SystemdNotify": testSystemdNotify, "Upgrade": testUpgrade, "UpgradeRun": testUpgradeRun, "UpgradeDuringReload": testUpgradeDuringReload, "Rollback": testRollback, "UpgradeDies": testUpgradeDies,
		"FollowOverUpgrade": testFollowOverUpgrade, "FollowKilled": testFollowKilled,
		"Fleet": testFleet, "FleetTrouble": testFleetTrouble,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &cli{t: t, programs: programs, dir: clustertest.TempDir(t), name: fmt.Sprintf("t%d", rand.Uint64())}
			t.Cleanup(func() { os.RemoveAll(c.dir) })
			c.env = append(os.Environ(), "XDG_RUNTIME_DIR="+c.dir, "RUNTIME_DIRECTORY=", "TMPDIR="+c.dir)
			test(c)
		})
	}
}

// cli is the command, with a directory and a name for a cluster that no other test has.
type cli struct {
	t        *testing.T
	programs map[string]string
	dir      string
	name     string
	env      []string
	user     *syscall.Credential
}

// result is what one run of the command has done.
type result struct {
	out, err string
	code     int
}

// call runs the command to its end, for the cluster of the test unless args name one. A
// master that this machine gives no turn for 1.5 s is called busy, and has heard nothing:
// it is asked again.
func (c *cli) call(args ...string) (r result) {
	c.t.Helper()
	for range 20 {
		if r = c.callOnce(args...); !strings.Contains(r.err, "does not answer: it is busy") {
			break
		}
	}
	return r
}

func (c *cli) callOnce(args ...string) (r result) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*clustertest.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.programs["cluster"], args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.user}
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	cmd.Run()
	require.NoError(c.t, ctx.Err(), "cluster %v does not end", args)
	return result{out.String(), err.String(), cmd.ProcessState.ExitCode()}
}

// ok is call of a command that is for the test's cluster and succeeds.
func (c *cli) ok(args ...string) string {
	c.t.Helper()
	r := c.call(append([]string{"-c", c.name}, args...)...)
	require.Zero(c.t, r.code, "cluster %v: %s%s", args, r.out, r.err)
	require.Empty(c.t, r.err)
	return r.out
}

// no is call of a command that is for the test's cluster and fails so.
func (c *cli) no(code int, text string, args ...string) {
	c.t.Helper()
	r := c.call(append([]string{"-c", c.name}, args...)...)
	require.Equal(c.t, code, r.code, "cluster %v: %s%s", args, r.out, r.err)
	require.Contains(c.t, r.err, text)
}

// start is cluster run, of the name of the test.
func (c *cli) start(args ...string) *clustertest.Proc {
	c.t.Helper()
	cmd := exec.Command(c.programs["cluster"], append([]string{"run", "--name", c.name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.user}
	return clustertest.StartCmd(c.t, cmd, "", c.env...)
}

// ready waits for n workers to be ready.
func (c *cli) ready(p *clustertest.Proc, n int) {
	c.t.Helper()
	for range n {
		p.Expect(c.name + " | worker ")
	}
}

func (c *cli) stats() (s cluster.Snapshot) {
	c.t.Helper()
	require.NoError(c.t, json.Unmarshal([]byte(c.ok("status", "-j")), &s))
	return s
}

// pids are those of the workers.
func (c *cli) pids() (pids []int) {
	for _, w := range c.stats().Workers {
		if w.PID != 0 {
			pids = append(pids, w.PID)
		}
	}
	return pids
}

// ended checks that the master has ended well, and that nothing is left.
func (c *cli) ended(p *clustertest.Proc, workers []int) {
	c.t.Helper()
	require.Zero(c.t, p.Exit())
	p.GroupEmpty()
	for _, pid := range workers {
		require.NoDirExists(c.t, "/proc/"+strconv.Itoa(pid))
	}
	left, err := filepath.Glob(filepath.Join(c.dir, "cluster", "*"))
	require.NoError(c.t, err)
	require.Empty(c.t, left)
}

// needs is the path of a program that CI has.
func (c *cli) needs(program string) string {
	path, err := exec.LookPath(program)
	if err != nil {
		require.Empty(c.t, os.Getenv("CI"), "no %s, which CI has to install", program)
		c.t.Skipf("no %s here", program)
	}
	return path
}

// harmless checks that nothing in a text makes a terminal do anything but show it.
func harmless(t *testing.T, text string) {
	t.Helper()
	i := strings.IndexFunc(text, func(r rune) bool { return odd(r) && r != '\n' && r != '\t' })
	require.Negative(t, i, "%q", text)
}
