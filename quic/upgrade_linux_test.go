package quic_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	quicgo "github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
)

// upgradable is a master of workers that echo, which SIGUSR1 only upgrades.
var upgradable = clustertest.Program("upgradable", func() {
	if cluster.IsWorker() {
		serveEcho()
		return
	}
	cluster.OnReady(func(w *cluster.Process) { fmt.Println("ready", w.Slot(), w.PID()) })
	cluster.OnUpgraded(func(err error) { fmt.Println("upgraded", err) })
	cluster.OnReload(func(r cluster.ReloadResult) { fmt.Println("reload", r.Replaced, r.Err) })
	poked := make(chan os.Signal, 10)
	clustertest.Notify(poked)
	go func() {
		for range poked {
			go cluster.Upgrade(context.Background()) // whose error OnUpgraded prints
		}
	}()
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2, ShutdownTimeout: clustertest.Patience, StartTimeout: clustertest.Patience, ReadyFor: -1}))
	clustertest.Must(cluster.Run(context.Background()))
})

// TestOverUpgrades: what is connected goes on over upgrades of the master, and so do the
// clients that come; the new master deals the sockets out as the old one did, over a reload
// and when a worker dies, whose clients are told.
func TestOverUpgrades(t *testing.T) {
	cert, key := clustertest.Certificate(t)
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(clustertest.FreePort(t)))
	p := clustertest.Start(t, upgradable, "ADDRESS="+at, "CERT="+string(cert), "KEY="+string(key))
	p.Expect("ready")
	p.Expect("ready")
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(cert))
	config := &tls.Config{RootCAs: roots, NextProtos: []string{"echo"}}
	addr, err := net.ResolveUDPAddr("udp", at)
	require.NoError(t, err)

	old := dial(t, addr, config)
	home, _ := old.ask(t)
	var drained atomic.Int64
	once := func(int) error { return dialAndTalk(t, addr, config, &drained) }
	over(t, 3, func() {
		p.Signal(clustertest.SigPoke)
		require.Equal(t, "<nil>", p.Expect("upgraded "))
	}, once)
	require.Zero(t, drained.Load())
	pid, phase := old.ask(t)
	require.Equal(t, []any{home, "serves"}, []any{pid, phase})
	over(t, 1, func() {
		p.Signal(syscall.SIGUSR2)
		require.Equal(t, "<nil>", p.Expect("upgraded "))
		old.ask(t)
		old.CloseWithError(0, "") // else its worker would not end
		require.Equal(t, "2 <nil>", p.Expect("reload "))
	}, once)

	victim := dial(t, addr, config)
	pid, _ = victim.ask(t)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	p.Expect("ready ") // its successor has its socket
	for err = nil; err == nil; {
		_, _, err = exchange(victim.stream, victim.lines, answered)
	}
	var reset *quicgo.StatelessResetError
	require.ErrorAs(t, err, &reset)
	require.NoError(t, once(0))
	p.Terminate()
}
