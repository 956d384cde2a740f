package upgrade_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// The service manager of these tests is the fake of package clustertest, which keeps
// descriptors as systemd does.

// stored is a server of ADDRESSES whose sockets a service manager keeps.
var stored = clustertest.Program("upgrade stored", func() {
	if cluster.IsMaster() {
		fmt.Println("main", version)
		if upgraded, _ := cluster.Upgraded("", nil); upgraded && version == "slow" {
			fmt.Println("waits")
			for _, err := os.Stat(os.Getenv("GATE")); err != nil; _, err = os.Stat(os.Getenv("GATE")) {
				time.Sleep(pace)
			}
		}
		printEvents()
		poke()
		o := options()
		o.FDStore = os.Getenv("FORGETS") == ""
		clustertest.Must(cluster.SetupMaster(o))
		clustertest.Must(cluster.Run(context.Background()))
		return
	}
	for i, address := range strings.Fields(os.Getenv("ADDRESSES")) {
		if version == "less" && i > 0 {
			break
		}
		ln, err := cluster.Listen(networkOf(address), address)
		clustertest.Must(err)
		fmt.Println("address", ln.Addr())
		go cluster.Serve(ln, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, version)
		})})
	}
	<-cluster.Context().Done()
	select {} // the drain ends this process
})

func networkOf(address string) string {
	if strings.HasPrefix(address, "/") {
		return "unix"
	}
	return "tcp"
}

// waiting is a client that has asked something and has no answer yet.
func waiting(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial(networkOf(address), address)
	require.NoError(t, err, "it waits, and is not refused")
	t.Cleanup(func() { c.Close() })
	_, err = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
	require.NoError(t, err)
	return c
}

// answered waits for the answer.
func answered(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(clustertest.Patience)))
	b, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Contains(t, string(b), "200 OK")
}

// keeping waits until the store has that, in any order.
func keeping(t *testing.T, m *clustertest.Manager, names ...string) {
	t.Helper()
	slices.Sort(names)
	clustertest.Eventually(t, func() bool {
		kept := m.Kept()
		slices.Sort(kept)
		return slices.Equal(names, kept)
	}, "that the store has "+strings.Join(names, " "))
}

// refused waits until nobody listens there.
func refused(t *testing.T, address string) {
	t.Helper()
	clustertest.Eventually(t, func() bool {
		c, err := net.Dial(networkOf(address), address)
		if err == nil {
			c.Close()
		}
		return err != nil
	}, "that "+address+" is refused")
}

// TestStore: with Options.FDStore a service manager has the sockets as well, so that
// clients wait for the next process, whether the master was killed or told to end. The
// next one finds them, a port too that the system has chosen. What it does not listen on,
// and what a reload gives up, is given up there.
func TestStore(t *testing.T) {
	for _, scheduling := range []string{"shared", "robin"} {
		t.Run(scheduling, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "store") // short: sun_path has little room
			require.NoError(t, err)
			t.Cleanup(func() { os.RemoveAll(dir) })
			path := filepath.Join(dir, "s")
			manager, s := clustertest.NewManager(t), newSite(t)
			env := []string{"ADDRESSES=127.0.0.1:0 " + path, "SCHEDULING=" + scheduling}
			tcp, unix := "cluster-tcp4-127.0.0.1%3A0#0", "cluster-unix-"+path

			s.deploy("one")
			p := manager.Start(s.path, stored, env...)
			address := p.Expect("address 127.0.0.1:")
			address = "127.0.0.1:" + address
			manager.InRun()
			keeping(t, manager, tcp, unix)

			p.Signal(syscall.SIGKILL)
			p.GroupEmpty()
			first, second := waiting(t, address), waiting(t, path)
			p = manager.Start(s.path, stored, env...)
			answered(t, first)
			answered(t, second)
			manager.InRun()
			keeping(t, manager, tcp, unix)

			s.deploy("two")
			require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
			manager.InRun()
			keeping(t, manager, tcp, unix)

			p.Terminate()
			first, second = waiting(t, address), waiting(t, path)
			p = manager.Start(s.path, stored, env...)
			answered(t, first)
			answered(t, second)
			manager.InRun()

			s.deploy("less")
			p.Signal(syscall.SIGHUP)
			require.Equal(t, "2 <nil>", p.Expect("reload "))
			keeping(t, manager, tcp)
			refused(t, path)
			require.NoFileExists(t, path)
			answered(t, waiting(t, address))

			p.Terminate()
			p = manager.Start(s.path, stored, append(env, "ADDRESSES="+path)...)
			manager.InRun()
			keeping(t, manager, unix)
			refused(t, address)

			p.Terminate()
			p = manager.Start(s.path, stored, append(env, "ADDRESSES="+path, "FORGETS=1")...)
			answered(t, waiting(t, path))
			manager.InRun()
			keeping(t, manager)
			p.Terminate()
			refused(t, path)
			require.NoFileExists(t, path)
		})
	}
}

// TestManager: a service manager of Type=notify-reload with ReloadSignal=SIGUSR2 hears that
// a reload has begun, and READY=1 when all is over, whether it succeeds or not. The watchdog
// is fed as long as the new program needs to come to Run.
func TestManager(t *testing.T) {
	t.Parallel()
	manager, s := clustertest.NewManager(t), newSite(t)
	gate := filepath.Join(t.TempDir(), "gate")
	s.deploy("one")
	p := manager.Start(s.path, stored, "ADDRESSES=127.0.0.1:0", "WATCHDOG_USEC=200000", "GATE="+gate)
	manager.InRun()

	s.put([]byte("#!/bin/sh\n"))
	p.Signal(syscall.SIGUSR2)
	require.Regexp(t, `^RELOADING=1\nMONOTONIC_USEC=\d+\n`, manager.Next())
	require.Regexp(t, `^READY=1\nSTATUS=.*is a script`, manager.Next())

	s.deploy("slow")
	p.Signal(syscall.SIGUSR2)
	p.Expect("waits")
	for len(manager.Datagrams) > 0 {
		<-manager.Datagrams
	}
	for range 3 {
		require.Equal(t, "WATCHDOG=1", clustertest.Await(t, manager.Datagrams, "datagram"))
	}
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	require.Regexp(t, `^RELOADING=1\n`, manager.Next(), "by the reload that follows")
	require.Regexp(t, `^READY=1\nSTATUS=generation 2`, manager.Next(), "when that is over")
	for range 3 {
		for clustertest.Await(t, manager.Datagrams, "datagram") != "WATCHDOG=1" {
		}
	}
	p.Terminate()
}
