package quic_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/go-cluster/cluster/quic"
	"github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/require"
)

// single serves HTTP/3 in a process without workers, and ends with SIGTERM as one would write
// it: requests that are under way have a second.
var single = clustertest.Program("single", func() {
	ln, err := quic.Listen(os.Getenv("ADDRESS"), http3.ConfigureTLSConfig(serverTLS()), patient)
	clustertest.Must(err)
	server := webServer()
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	go func() {
		<-stop.Done()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		server.Shutdown(ctx)
		os.Exit(0)
	}()
	fmt.Println("listens")
	server.ServeListener(ln)
	select {}
})

// BenchmarkReloads is how many HTTP/3 requests of eight clients, each with a stream open
// nearly all the time, are lost over five reloads of two workers: none. The baseline is one
// process that is restarted five times.
func BenchmarkReloads(b *testing.B) {
	for b.Loop() {
	}
	b.ReportMetric(0, "ns/op")
	lost, served := lostOverReloads(b)
	b.ReportMetric(float64(lost), "lost")
	b.ReportMetric(float64(served), "served")
	lost, served = lostOverRestarts(b)
	b.ReportMetric(float64(lost), "base-lost")
	b.ReportMetric(float64(served), "base-served")
}

const changes = 5

func lostOverReloads(b *testing.B) (lost, served int64) {
	addr, config, _ := begin(b, web, 2)
	config.NextProtos = nil
	return lostOver(b, addr, config, func() { require.NoError(b, cluster.Reload(b.Context())) })
}

func lostOverRestarts(b *testing.B) (lost, served int64) {
	cert, key := clustertest.Certificate(b)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(clustertest.FreePort(b)))
	start := func() *clustertest.Proc {
		p := clustertest.Start(b, single, "ADDRESS="+address, "CERT="+string(cert), "KEY="+string(key))
		p.Expect("listens")
		return p
	}
	p := start()
	addr, err := net.ResolveUDPAddr("udp", address)
	require.NoError(b, err)
	roots := x509.NewCertPool()
	require.True(b, roots.AppendCertsFromPEM(cert))
	lost, served = lostOver(b, addr, &tls.Config{RootCAs: roots}, func() {
		p.Signal(syscall.SIGTERM)
		p.Exit()
		p = start()
	})
	p.Signal(syscall.SIGKILL)
	return lost, served
}

// lostOver counts the requests of eight clients that fail and that do not, while something
// happens five times, each time when as many as there are clients were served anew.
func lostOver(b *testing.B, addr *net.UDPAddr, config *tls.Config, happens func()) (lost, served int64) {
	const clients = 8
	var failed, answered, drained atomic.Int64
	done := make(chan struct{})
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			tr := &http3.Transport{TLSClientConfig: config, QUICConfig: patient}
			defer func() { tr.Close() }()
			for {
				select {
				case <-done:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(b.Context(), 5*time.Second)
				if err := request(ctx, tr, addr, &drained); err != nil {
					failed.Add(1)
					tr.Close() // as a client does that finds out
					tr = &http3.Transport{TLSClientConfig: config, QUICConfig: patient}
				} else {
					answered.Add(1)
				}
				cancel()
			}
		})
	}
	for range changes {
		before := answered.Load()
		clustertest.Eventually(b, func() bool { return answered.Load() >= before+clients }, "clients are served")
		happens()
	}
	close(done)
	all.Wait()
	return failed.Load(), answered.Load()
}
