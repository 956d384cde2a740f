package bench_test

// What the package costs on Windows. There is no baseline: under Wine, where
// these run, the figures are for the record and compare with nothing else.

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// tally is the request and the reply.
type tally struct {
	Cmd string `json:"cmd"`
	N   int    `json:"n"`
}

var benchEcho = clustertest.Program("bench echo", func() {
	cluster.Respond("count", func(_ *cluster.Process, c tally) (tally, error) { return c, nil })
	select {}
})

// BenchmarkRoundTrip is one Request, answered by Respond.
func BenchmarkRoundTrip(b *testing.B) {
	clustertest.WithMaster(b, benchEcho, cluster.Options{})
	w, err := cluster.Fork()
	require.NoError(b, err)
	ctx := context.Background()
	require.NoError(b, w.Request(ctx, tally{"count", 0}, nil))
	n := 0
	for b.Loop() {
		var reply tally
		if err := w.Request(ctx, tally{"count", n}, &reply); err != nil || reply.N != n {
			b.Fatal(reply, err)
		}
		n++
	}
}

// BenchmarkForkOnline is the time from Fork to OnOnline.
func BenchmarkForkOnline(b *testing.B) {
	clustertest.WithMaster(b, benchEcho, cluster.Options{})
	online, dead := make(chan struct{}, 1), make(chan struct{}, 1)
	b.Cleanup(cluster.OnOnline(func(*cluster.Process) { online <- struct{}{} }))
	b.Cleanup(cluster.OnDeath(func(*cluster.Process, cluster.Exit) { dead <- struct{}{} }))
	for b.Loop() {
		w, err := cluster.Fork()
		require.NoError(b, err)
		clustertest.Await(b, online, "online")
		b.StopTimer()
		require.NoError(b, w.Kill())
		clustertest.Await(b, dead, "death")
		b.StartTimer()
	}
}

var benchAccept = clustertest.Program("bench accept", func() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	for {
		c, err := ln.Accept()
		clustertest.Must(err)
		go func() {
			c.Write([]byte("!"))
			c.Close()
		}()
	}
})

// BenchmarkConnections is a new connection, accepted by one of two workers, which
// writes a byte and closes it; eight clients at once.
func BenchmarkConnections(b *testing.B) {
	for _, s := range []cluster.Scheduling{cluster.Shared, cluster.RoundRobin} {
		b.Run(s.String(), func(b *testing.B) {
			clustertest.WithMaster(b, benchAccept, cluster.Options{Workers: 2, Scheduling: s})
			listening := make(chan string, 2)
			b.Cleanup(cluster.OnListening(func(_ *cluster.Process, addr net.Addr) { listening <- addr.String() }))
			require.NoError(b, cluster.AutoFork())
			addr := clustertest.Await(b, listening, "listening")
			clustertest.Await(b, listening, "listening")
			var clients sync.WaitGroup
			b.ResetTimer()
			next := make(chan struct{}, b.N)
			for range b.N {
				next <- struct{}{}
			}
			close(next)
			for range 8 {
				clients.Go(func() {
					for range next {
						c, err := net.Dial("tcp", addr)
						if err != nil {
							b.Error(err)
							return
						}
						if _, err := c.Read(make([]byte, 1)); err != nil {
							b.Error(err)
						}
						c.Close()
					}
				})
			}
			clients.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "conn/s")
		})
	}
}
