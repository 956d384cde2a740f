package upgrade_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// activated starts version one with arguments, and with a socket as a service manager
// gives it.
func (s *site) activated(env ...string) (p *clustertest.Proc, address string) {
	s.t.Helper()
	s.deploy("one")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(s.t, err)
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	require.NoError(s.t, err)
	defer f.Close()
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" serve -v`, s.path)
	cmd.ExtraFiles = []*os.File{f}
	p = clustertest.StartCmd(s.t, cmd, server, env...)
	return p, p.All("address ", "ready ", "ready ")[0]
}

// tricky is a server whose OnUpgrade does what a file beside the program says.
var tricky = clustertest.Program("upgrade tricky", func() {
	if cluster.IsWorker() {
		serve()
		return
	}
	fmt.Println("main", version, os.Getpid())
	ends, next := os.Args[0]+".ends", os.Args[0]+".next"
	cluster.OnUpgrade("trouble", func() (any, error) {
		switch {
		case exists(ends):
			clustertest.Must(os.Remove(ends))
			runtime.Goexit()
		case exists(next):
			return nil, os.Rename(next, os.Args[0])
		}
		return nil, nil
	})
	printEvents()
	poke()
	clustertest.Must(cluster.SetupMaster(options()))
	clustertest.Must(cluster.Run(context.Background()))
})

// TestReplacedMeanwhile: a program that is put there after the check is checked as well, and
// is what comes. An OnUpgrade that does not return calls the upgrade off.
func TestReplacedMeanwhile(t *testing.T) {
	s := newSite(t)
	p, address := s.begin(tricky)
	s.deploy("two")
	require.NoError(t, os.WriteFile(s.path+".ends", nil, 0o600))
	require.Contains(t, upgrade(p, clustertest.SigPoke), "ended its goroutine")
	next := &site{t, s.path + ".next"}
	next.put([]byte("no program"))
	require.Contains(t, upgrade(p, clustertest.SigPoke), "exec format error")
	next.deploy("three")
	s.deploy("two")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	require.Contains(t, p.Output(), "main three ")
	require.NotContains(t, p.Output(), "main two ")
	require.Equal(t, "one", serves(t, address))
	p.Terminate()
}

// TestFileLimit: a state that cannot be written, here since it is larger than files may be,
// is an error and no end of the master.
func TestFileLimit(t *testing.T) {
	s := newSite(t)
	s.deploy("one")
	p := clustertest.StartCmd(t, exec.Command("/bin/sh", "-c", `ulimit -f 8; exec "$0"`, s.path), server) // 4 KiB: the page of a worker's counters
	address := p.All("address ", "ready ", "ready ")[0]
	s.deploy("two")
	require.Contains(t, upgrade(p, clustertest.SigPoke), "file too large")
	require.Equal(t, "one", serves(t, address))
	p.Terminate()
}

// third is what the process has as the first descriptor that a service manager gives.
func third(t *testing.T, p *clustertest.Proc) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/3", p.Cmd.Process.Pid))
	require.NoError(t, err)
	return link
}

// outputLine is the rest of the first line with that prefix.
func outputLine(p *clustertest.Proc, prefix string) string {
	_, rest, _ := strings.Cut("\n"+p.Output(), "\n"+prefix)
	rest, _, _ = strings.Cut(rest, "\n")
	return rest
}

// TestStart: an upgrade, and one that is rolled back, leave the program what it was started
// with: the arguments, whatever main does to os.Args, and a service manager's sockets, those
// too that nobody has asked for. Its own children are waited for when they end.
func TestStart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p, address := s.activated("HANGS=1", "CHILD=1")
	socket := third(t, p)
	require.Contains(t, socket, "socket:")
	s.deploy("hangs")
	require.Contains(t, upgrade(p, clustertest.SigPoke), "did not come to AutoFork")
	require.Equal(t, socket, third(t, p))
	s.deploy("two")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	require.Equal(t, socket, third(t, p))
	require.Equal(t, 4, strings.Count(p.Output(), "arguments [serve -v]\n"), "one, hangs, one again, two")
	require.Equal(t, "one", serves(t, address))
	child, err := strconv.Atoi(outputLine(p, "child "))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(child, syscall.SIGKILL))
	clustertest.Eventually(t, func() bool { return zombies(p.Cmd.Process.Pid) == 0 && syscall.Kill(child, 0) != nil }, "no zombie")
	p.Terminate()
}

// TestLimitAfterFailedExec: the runtime forgets in an exec that fails how many files
// this program might have open when it was started. New workers begin with that limit all the
// same, as do their children, and so does the next program.
func TestLimitAfterFailedExec(t *testing.T) {
	s := newSite(t)
	s.deploy("one")
	cmd := exec.Command("/bin/sh", "-c", `ulimit -Sn 500 && exec "$0"`, s.path)
	p := clustertest.StartCmd(t, cmd, holder)
	address := p.All("address ", "ready ", "ready ")[0]
	files := serves(t, address+"/files")
	require.Regexp(t, `^\d{4,} 500\n$`, files)
	limits := func() string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.Cmd.Process.Pid))
		require.NoError(t, err)
		return string(b)
	}
	before := limits()
	reload := func() {
		p.Signal(syscall.SIGHUP)
		require.Equal(t, "2 <nil>", p.Expect("reload "))
		require.Equal(t, files, serves(t, address+"/files"))
		require.Equal(t, before, limits())
	}
	s.deploy("two")
	require.Contains(t, upgrade(p, clustertest.SigPoke), "text file busy")
	reload()
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	reload()
	p.Terminate()
}
