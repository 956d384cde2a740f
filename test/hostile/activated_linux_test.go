package hostile_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

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
			lc := net.ListenConfig{Control: v6Only}
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

// v6Only makes a socket of IPv6 take nothing else, as service managers do for two sockets of
// one port.
func v6Only(network, _ string, c syscall.RawConn) (err error) {
	c.Control(func(fd uintptr) {
		if network[3:] == "6" {
			err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 1)
		}
	})
	return err
}

// activatedPackets answers datagrams, in a worker if it forks. A second worker reads nothing.
var activatedPackets = clustertest.Program("activated-packets", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2}))
	forks := os.Getenv("FORKS") != ""
	if forks && cluster.IsMaster() {
		clustertest.Must(cluster.Run(context.Background()))
		return
	}
	c, err := cluster.ListenPacket("udp", os.Getenv("ADDRESS"))
	clustertest.Must(err)
	if forks && cluster.Worker.Slot() == 1 {
		select {}
	}
	c.SetReadDeadline(time.Unix(1, 0))
	if _, _, err := c.ReadFrom(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		clustertest.Must(fmt.Errorf("after the deadline: %v", err))
	}
	c.SetReadDeadline(time.Time{})
	fmt.Println("serves")
	b := make([]byte, 100)
	for {
		n, from, err := c.ReadFrom(b)
		clustertest.Must(err)
		_, err = c.WriteTo(b[:n], from)
		clustertest.Must(err)
	}
})

// TestActivatedPackets: "udp" reads from both sockets that the service manager opened for a
// port, and answers by that of the client's family.
func TestActivatedPackets(t *testing.T) {
	t.Parallel()
	for name, forks := range map[string]string{"worker": "1", "alone": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := clustertest.FreePort(t)
			lc := net.ListenConfig{Control: v6Only}
			var files []*os.File
			for _, l := range [][]string{{"udp6", "[::]"}, {"udp4", "0.0.0.0"}} {
				c, err := lc.ListenPacket(context.Background(), l[0], fmt.Sprintf("%s:%d", l[1], port))
				if l[0] == "udp6" && err != nil {
					t.Skip("no IPv6: ", err)
				}
				require.NoError(t, err)
				f, err := c.(*net.UDPConn).File()
				require.NoError(t, err)
				defer f.Close()
				c.Close()
				files = append(files, f)
			}
			cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=2 exec "$0"`, os.Args[0])
			cmd.ExtraFiles = files
			p := clustertest.StartCmd(t, cmd, activatedPackets, fmt.Sprintf("ADDRESS=:%d", port), "FORKS="+forks)
			p.Expect("serves")
			for _, host := range []string{"127.0.0.1", "[::1]"} {
				address := host + ":" + strconv.Itoa(port)
				c, err := net.Dial("udp", address) // it hears that address only
				require.NoError(t, err)
				defer c.Close()
				c.SetDeadline(time.Now().Add(clustertest.Patience))
				_, err = c.Write([]byte(host))
				require.NoError(t, err)
				b := make([]byte, 100)
				n, err := c.Read(b)
				require.NoError(t, err)
				require.Equal(t, host, string(b[:n]))
			}
		})
	}
}
