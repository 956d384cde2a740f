//go:build unix

package cluster_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// activatedBy is the command that a service manager would run with sockets: the
// variable holds the pid of the program itself.
func activatedBy(sockets ...*os.File) *exec.Cmd {
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=`+strconv.Itoa(len(sockets))+` exec "$0"`, os.Args[0])
	cmd.ExtraFiles = sockets
	return cmd
}

// inherited is a listening socket to hand to a program. It is blocking, as those
// of systemd are.
func inherited(t *testing.T, network, address string) (f *os.File, fd int, addr net.Addr) {
	t.Helper()
	ln, err := net.Listen(network, address)
	require.NoError(t, err)
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	f, err = ln.(interface{ File() (*os.File, error) }).File()
	require.NoError(t, err)
	fd = int(f.Fd()) // which makes it blocking: once only
	t.Cleanup(func() { f.Close() })
	ln.Close()
	return f, fd, ln.Addr()
}

// TestSocketActivation: a worker that asks for the address of a socket that the
// service manager opened gets that socket, non-blocking; it survives all
// workers, and a unix socket's file the master. One that nobody asks for is
// named in the log.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "socket")
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": path} {
		f, fd, addr := inherited(t, network, address)
		unused, _, unusedAddr := inherited(t, "tcp", "127.0.0.1:0")
		s := clustertest.Supervision{Workers: 2, Env: []string{"ADDRESS=" + network + " " + addr.String()}}
		p := clustertest.StartCmd(t, activatedBy(unused, f), clustertest.Supervisor, clustertest.SuperviseEnv(t, &s, nil)...)
		p.Ups(2)
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		require.NoError(t, err)
		require.NotZero(t, flags&unix.O_NONBLOCK, "shared with this process")
		clustertest.Eventually(t, func() bool { return strings.Contains(p.Output(), unusedAddr.String()) }, "the log of the socket that is not used")
		require.NotContains(t, p.Output(), "address="+addr.String())
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial(network, addr.String())
		}}}
		resp, err := client.Get("http://cluster/")
		require.NoError(t, err)
		_, err = io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		p.Terminate()
		c, err := net.Dial(network, addr.String())
		require.NoError(t, err, "the socket is the manager's, and listens on")
		c.Close()
	}
	_, err := os.Stat(path)
	require.NoError(t, err)
}

// activatedTwice is a master that ends its cluster and begins it again.
var activatedTwice = clustertest.Program("activated-twice", func() {
	refused := make(chan error, 1)
	o := cluster.Options{Workers: 1, Env: []string{clustertest.ProgramEnv + "=" + clustertest.Troublemaker},
		AllowListen: func(_ *cluster.Process, network, address string) error {
			io.WriteString(os.Stdout, "asked "+address+"\n")
			return nil
		}}
	clustertest.Must(cluster.SetupMaster(o))
	cluster.OnDeath(func(_ *cluster.Process, e cluster.Exit) {
		if !e.Voluntary {
			refused <- fmt.Errorf("worker: %v", e)
		}
	})
	for range 2 {
		listening := make(chan string, 1)
		stop := cluster.OnListening(func(_ *cluster.Process, a net.Addr) { listening <- a.String() })
		clustertest.Must(cluster.AutoFork())
		select {
		case a := <-listening:
			io.WriteString(os.Stdout, "listening "+a+"\n")
		case err := <-refused:
			clustertest.Must(err)
		}
		stop()
		clustertest.Must(cluster.Disconnect(context.Background()))
	}
})

// TestActivatedSocketOutlivesDisconnect: the socket is used again by the next
// AutoFork, though it was closed; AllowListen is asked as for any other.
func TestActivatedSocketOutlivesDisconnect(t *testing.T) {
	t.Parallel()
	f, _, addr := inherited(t, "tcp", "127.0.0.1:0")
	p := clustertest.StartCmd(t, activatedBy(f), activatedTwice, "ADDRESS="+addr.String())
	for range 2 {
		require.Equal(t, addr.String(), p.Expect("asked"))
		require.Equal(t, addr.String(), p.Expect("listening"))
	}
	require.Zero(t, p.Exit())
}

// TestSocketsOfAnotherProcess: a LISTEN_PID that is not the master's own is
// another's: the socket is not touched, and the address is in use.
func TestSocketsOfAnotherProcess(t *testing.T) {
	t.Parallel()
	f, fd, addr := inherited(t, "tcp", "127.0.0.1:0")
	cmd := exec.Command(os.Args[0])
	cmd.ExtraFiles = []*os.File{f}
	p := clustertest.StartCmd(t, cmd, activatedTwice, "ADDRESS="+addr.String(), "LISTEN_FDS=1", "LISTEN_PID=1")
	require.Contains(t, p.Expect("FATAL cluster: listen"), "address already in use")
	require.Equal(t, 1, p.Exit())
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	require.NoError(t, err)
	require.Zero(t, flags&unix.O_NONBLOCK)
}
