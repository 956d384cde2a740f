//go:build unix

package bench_test

// How long one message takes, and its answer.

import (
	"context"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// BenchmarkRoundTrip is the time of one Request, answered by Respond, both
// decoded into structs. The baseline plays ping-pong with the same bytes
// between two processes, without looking at them. The ratio is what the package
// and JSON add to the system calls and wake-ups: 1.3 at most.
func BenchmarkRoundTrip(b *testing.B) {
	const trips = 3000
	compare(b, "us", benchTrips(b, forkBench(b, benchPeer), trips), basePingPong(b, trips))
}

// BenchmarkRoundTripByHand is the same, and the baseline what one would write by
// hand: bufio and encoding/json on both sides. The ratio is 1.05 at most.
func BenchmarkRoundTripByHand(b *testing.B) {
	const trips = 3000
	compare(b, "us", benchTrips(b, forkBench(b, benchPeer), trips), baseEcho(b, trips))
}

// benchTrips is the time of a Request to w, in microseconds.
func benchTrips(b *testing.B, w *cluster.Process, trips int) func() float64 {
	return benchEach(trips, func(i int) {
		var reply count
		if err := w.Request(context.Background(), benchCount(i), &reply); err != nil || reply != benchCount(i) {
			b.Fatal(reply, err)
		}
	})
}

// benchEach is the time of one call of do, in microseconds.
func benchEach(trips int, do func(i int)) func() float64 {
	return func() float64 {
		begun := time.Now()
		for i := range trips {
			do(i)
		}
		return time.Since(begun).Seconds() * 1e6 / float64(trips)
	}
}

// BenchmarkSendContext is the time until the worker has a message, and the
// baseline that of a Request to it. The ratio is 1.1 at most.
func BenchmarkSendContext(b *testing.B) {
	const trips = 3000
	w := forkBench(b, benchPeer)
	compare(b, "us", benchEach(trips, func(i int) {
		require.NoError(b, w.SendContext(context.Background(), benchCount(i)))
	}), benchTrips(b, w, trips))
}

// benchAsked answers at once, except "wait", which it answers at its end.
var benchAsked = clustertest.Program("bench asked", func() {
	cluster.Respond("count", func(_ *cluster.Process, c count) (count, error) { return c, nil })
	cluster.Respond("wait", func(*cluster.Process, count) (count, error) {
		<-cluster.Context().Done()
		return count{}, nil
	})
	<-cluster.Context().Done()
	select {}
})

// BenchmarkReadTurn is a Request whose caller reads the answer itself. In the baseline the
// reader wakes the caller: another call is under way, so the caller does not get the turn to
// read. The ratio is what the readTurn of package link saves.
func BenchmarkReadTurn(b *testing.B) {
	const trips = 3000
	w := forkBench(b, benchAsked)
	alone := benchTrips(b, w, trips)
	compare(b, "us", alone, func() float64 {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			w.Request(ctx, count{"wait", 0}, nil)
		}()
		defer func() {
			cancel()
			<-ended
		}()
		return alone()
	})
}

// benchAsks asks the master when it is told to, and answers how long that took.
var benchAsks = clustertest.Program("bench asks", func() {
	cluster.Respond("asks", func(_ *cluster.Process, c count) (count, error) {
		begun := time.Now()
		for i := range c.N {
			var reply count
			if err := cluster.Worker.Request(context.Background(), benchCount(i), &reply); err != nil {
				return c, err
			}
		}
		return count{"took", int(time.Since(begun).Nanoseconds())}, nil
	})
	<-cluster.Context().Done()
	select {}
})

// BenchmarkAskMaster is a Request of the worker's, which the master answers at once.
// The baseline is the same exchange by hand: bufio and encoding/json on both sides.
func BenchmarkAskMaster(b *testing.B) {
	const trips = 3000
	w := forkBench(b, benchAsks)
	b.Cleanup(cluster.Respond("count", func(_ *cluster.Process, c count) (count, error) { return c, nil }))
	compare(b, "us", func() float64 {
		var took count
		require.NoError(b, w.Request(context.Background(), count{"asks", trips}, &took))
		return float64(took.N) / 1e3 / trips
	}, baseEcho(b, trips))
}
