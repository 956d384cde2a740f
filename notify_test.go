//go:build unix

package cluster_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// manager is a service manager's end of sd_notify: each datagram as it comes.
func manager(t *testing.T) (socket string, datagrams chan string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // short: sun_path has little room
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	datagrams = make(chan string, 10000)
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			datagrams <- string(b[:n])
		}
	}()
	return socket, datagrams
}

// next is the next datagram that is no WATCHDOG=1.
func next(t *testing.T, datagrams <-chan string) string {
	t.Helper()
	for {
		if d := clustertest.Await(t, datagrams, "datagram"); d != "WATCHDOG=1" {
			return d
		}
	}
}

// isReloading checks what systemd asks for: both in one datagram.
func isReloading(t *testing.T, d string) {
	t.Helper()
	require.Regexp(t, `(?m)^RELOADING=1$`, d)
	require.Regexp(t, `(?m)^MONOTONIC_USEC=[1-9][0-9]*$`, d)
}

func isReady(t *testing.T, d string) {
	t.Helper()
	require.Regexp(t, `(?m)^READY=1$`, d)
}

// TestNotify: the service manager hears of the start, of each reload, whether it
// succeeds or not, and of the stop; it hears that all is well as often as it
// wants to.
func TestNotify(t *testing.T) {
	t.Parallel()
	socket, datagrams := manager(t)
	broken := filepath.Join(t.TempDir(), "broken")
	p, _ := clustertest.Supervise(t, clustertest.Supervision{Workers: 2, Env: []string{"FAIL=" + broken}}, "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=200000")
	isReady(t, next(t, datagrams))
	for range 3 {
		for clustertest.Await(t, datagrams, "datagram") != "WATCHDOG=1" {
		}
	}
	p.Signal(syscall.SIGHUP)
	isReloading(t, next(t, datagrams))
	d := next(t, datagrams)
	isReady(t, d)
	require.Contains(t, d, "STATUS=generation 2")
	p.Expect("reload 2 2 <nil>")

	require.NoError(t, os.WriteFile(broken, nil, 0o644))
	p.Signal(syscall.SIGHUP)
	isReloading(t, next(t, datagrams))
	d = next(t, datagrams)
	isReady(t, d)
	require.Contains(t, d, "no database", "why it failed")
	require.Equal(t, 2, strings.Count(d, "\n")+1, "%q", d)

	p.Terminate()
	require.Contains(t, next(t, datagrams), "STOPPING=1")
	require.Empty(t, datagrams, "nothing after it")
}

// TestNotifyOnlyWhenUp: READY=1 waits until MinReady workers are up, and
// WATCHDOG=1 for one.
func TestNotifyOnlyWhenUp(t *testing.T) {
	t.Parallel()
	for need, min := range map[int]int{2: 0, 1: 1} {
		socket, datagrams := manager(t)
		s := clustertest.Supervision{Program: gated, Workers: 2, MinReady: min, Env: []string{"GATE=" + filepath.Join(t.TempDir(), "gate")}}
		p := clustertest.Start(t, clustertest.Supervisor, clustertest.SuperviseEnv(t, &s, []string{"NOTIFY_SOCKET=" + socket})...)
		for i := range 2 {
			if i == need {
				isReady(t, next(t, datagrams))
			}
			require.Empty(t, datagrams)
			require.NoError(t, os.WriteFile(s.Env[len(s.Env)-1][5:]+strconv.Itoa(i), nil, 0o644))
			p.Event("up")
		}
		if need == 2 {
			isReady(t, next(t, datagrams))
		}
		p.Terminate()
	}
}

// TestNotifyForThoseWhoNeverListen: workers that are online and never listen,
// as consumers of a queue, are up as well.
func TestNotifyForThoseWhoNeverListen(t *testing.T) {
	t.Parallel()
	socket, datagrams := manager(t)
	s := clustertest.Supervision{Program: clustertest.CommandWorker, Workers: 2}
	p := clustertest.Start(t, clustertest.Supervisor, clustertest.SuperviseEnv(t, &s, []string{"NOTIFY_SOCKET=" + socket})...)
	isReady(t, next(t, datagrams))
	p.Terminate()
}

// TestNotifyIsForTheMaster: workers do not inherit what was addressed to it.
func TestNotifyIsForTheMaster(t *testing.T) {
	for _, k := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		t.Setenv(k, "1")
	}
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{})
	w := clustertest.Fork(t)
	require.Empty(t, clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about", Env: []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}}).Env)
}

// gated is a troublemaker that waits for the file of its slot.
var gated = clustertest.Program("gated", func() {
	gate := os.Getenv("GATE") + strconv.Itoa(cluster.Worker.Slot())
	for {
		if _, err := os.Stat(gate); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	clustertest.RunProgram(clustertest.Troublemaker)
})
