package upgrade_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// The steps of an upgrade are seen from outside, by what the programs here do in them, and
// by which file the process executes.

// reached tells the test that a step has come, and waits in it for ever.
func reached(step string) {
	clustertest.Must(os.WriteFile(os.Getenv("STEPS")+step, nil, 0o600))
	select {}
}

// A version that hangs in its package initialisation, after that of package cluster.
func init() {
	if version == "init" && cluster.IsMaster() && !cluster.Checking() {
		reached("init")
	}
}

// victim is a server whose master hangs in the step that its version names.
var victim = clustertest.Program("upgrade victim", func() {
	if cluster.IsWorker() {
		serveSlowly()
		return
	}
	switch {
	case version == "check" && cluster.Checking(), version == "main" && !cluster.Checking():
		reached(version)
	}
	cluster.OnUpgrade("step", func() (any, error) {
		if _, err := os.Stat(os.Getenv("STEPS") + "hold"); err == nil {
			reached("quiet")
		}
		return nil, os.WriteFile(os.Getenv("STEPS")+"saved", nil, 0o600)
	})
	cluster.OnAdopt(func(*cluster.Process) {
		if version == "adopt" {
			reached("adopt")
		}
	})
	printEvents()
	poke()
	clustertest.Must(cluster.SetupMaster(options()))
	clustertest.Must(cluster.Run(context.Background()))
})

// serveSlowly serves ADDRESS and SOCKET. A request for /slow is answered when the step
// "answer" has come.
func serveSlowly() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			clustertest.Must(os.WriteFile(os.Getenv("STEPS")+"asked", nil, 0o600))
			for !exists(os.Getenv("STEPS") + "answer") {
				time.Sleep(pace)
			}
		}
		io.WriteString(w, version)
	})
	other, err := cluster.Listen("unix", os.Getenv("STEPS")+"socket")
	clustertest.Must(err)
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	fmt.Println("address", ln.Addr())
	go cluster.Serve(other, &http.Server{Handler: handler})
	clustertest.Must(cluster.Serve(ln, &http.Server{Handler: handler}))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// executed waits until the process executes what lies at path now.
func executed(t *testing.T, pid int, path string) {
	t.Helper()
	want, err := os.Stat(path)
	require.NoError(t, err)
	clustertest.Eventually(t, func() bool {
		is, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
		return err == nil && os.SameFile(is, want)
	}, "the exec")
}

// TestKilledMaster: whenever the master is killed in an upgrade, its workers finish what
// is in flight and end, no process is left, and what they listened on is free.
func TestKilledMaster(t *testing.T) {
	for _, step := range []string{"check", "quiet", "saved", "exec", "init", "main", "adopt"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "kill") // short: sun_path has little room
			require.NoError(t, err)
			t.Cleanup(func() { os.RemoveAll(dir) })
			steps := dir + string(filepath.Separator)
			s := newSite(t)
			p, address := s.begin(victim, "STEPS="+steps)
			pid := p.Cmd.Process.Pid
			c := asking(t, address, "/slow")
			clustertest.Eventually(t, func() bool { return exists(steps + "asked") }, "the request")
			if step == "quiet" {
				require.NoError(t, os.WriteFile(steps+"hold", nil, 0o600))
			}
			s.deploy(step)
			p.Signal(clustertest.SigPoke)
			if step == "exec" {
				executed(t, pid, s.path)
			} else {
				clustertest.Eventually(t, func() bool { return exists(steps + step) }, "the step")
			}
			p.Signal(syscall.SIGKILL)
			require.NoError(t, os.WriteFile(steps+"answer", nil, 0o600))
			answered(t, c)
			p.GroupEmpty()
			ln, err := net.Listen("tcp", address)
			require.NoError(t, err, "the port is free")
			ln.Close()
			ln, err = cluster.Listen("unix", steps+"socket")
			require.NoError(t, err, "and the path: a dead process's file is replaced")
			ln.Close()
		})
	}
}

// asking is a client that has asked for path.
func asking(t *testing.T, address, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	_, err = io.WriteString(c, "GET "+path+" HTTP/1.0\r\n\r\n")
	require.NoError(t, err)
	return c
}

// TestHangsInInit: a program that hangs before its main gives way as well.
func TestHangsInInit(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p, address := s.begin(server, "HANGS=1", "STEPS="+t.TempDir()+string(filepath.Separator))
	s.deploy("init")
	require.Contains(t, upgrade(p, clustertest.SigPoke), "did not come to AutoFork")
	require.Equal(t, "one", serves(t, address))
	p.Terminate()
}
