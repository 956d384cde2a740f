package hostile_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// activatedEarly listens before it forks, if it does.
var activatedEarly = clustertest.Program("activated-early", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 1}))
	ln, err := cluster.Listen("tcp", os.Getenv("ADDRESS"))
	clustertest.Must(err)
	if os.Getenv("FORKS") != "" {
		clustertest.Must(cluster.AutoFork())
		if cluster.IsMaster() {
			clustertest.Must(cluster.Run(context.Background()))
			return
		}
	}
	fmt.Println("serves")
	clustertest.AnswerConns(ln)
})

// TestActivatedEarly: a Listen before the fork, or in a program that does not fork, gets the
// sockets that the service manager opened for the address, of both families, as workers do.
func TestActivatedEarly(t *testing.T) {
	t.Parallel()
	for name, forks := range map[string]string{"before the fork": "1", "alone": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var files []*os.File
			var dials []string
			lc := net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) (err error) {
				c.Control(func(fd uintptr) {
					if network == "tcp6" {
						err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 1)
					}
				})
				return err
			}}
			port := clustertest.FreePort(t)
			for network, host := range map[string]string{"tcp4": "0.0.0.0", "tcp6": "[::]"} {
				ln, err := lc.Listen(context.Background(), network, fmt.Sprintf("%s:%d", host, port))
				if network == "tcp6" && err != nil {
					t.Skip("no IPv6: ", err)
				}
				require.NoError(t, err)
				f, err := ln.(*net.TCPListener).File()
				require.NoError(t, err)
				defer f.Close()
				ln.Close()
				files = append(files, f)
			}
			for _, host := range []string{"127.0.0.1", "[::1]"} {
				dials = append(dials, fmt.Sprintf("%s:%d", host, port))
			}
			cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=2 exec "$0"`, os.Args[0])
			cmd.ExtraFiles = files
			p := clustertest.StartCmd(t, cmd, activatedEarly, fmt.Sprintf("ADDRESS=:%d", port), "FORKS="+forks)
			p.Expect("serves")
			for _, address := range dials {
				c, err := net.Dial("tcp", address)
				require.NoError(t, err)
				defer c.Close()
				clustertest.Greeting(t, c)
			}
		})
	}
}
