package fleet

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// rounds measures ours and theirs in turn, and tells how much longer ours takes.
func rounds(b *testing.B, ours, theirs func(n int)) {
	const turns = 10
	var took, bare time.Duration
	n := max(1, b.N/turns)
	for range turns {
		begin := time.Now()
		theirs(n)
		bare += time.Since(begin)
		begin = time.Now()
		ours(n)
		took += time.Since(begin)
	}
	b.ReportMetric(float64(took)/float64(bare), "ratio")
	b.ReportMetric(float64(took.Nanoseconds())/float64(n*turns), "ours-ns/op")
	b.ReportMetric(float64(n*turns)/took.Seconds(), "ours/s")
}

// benchFleet is a fleet of one, with a server of its own.
func benchFleet(b *testing.B) *Fleet {
	f, err := Join(Options{Name: "bench"})
	require.NoError(b, err)
	b.Cleanup(func() { f.Close() })
	return f
}

// BenchmarkPublish compares Publish with a loop over nats.go that encodes as well.
func BenchmarkPublish(b *testing.B) {
	f := benchFleet(b)
	v := map[string]any{"symbol": "ABC", "price": 12.5}
	run := func(publish func() error) func(n int) {
		return func(n int) {
			for range n {
				if err := publish(); err != nil {
					b.Fatal(err)
				}
			}
			require.NoError(b, f.Conn().Flush())
		}
	}
	rounds(b, run(func() error { return f.Publish("prices", v) }), run(func() error {
		body, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return f.Conn().Publish("cluster.bench.topic.prices", body)
	}))
}

// BenchmarkRequest compares Request with that of nats.go.
func BenchmarkRequest(b *testing.B) {
	f := benchFleet(b)
	Respond(f, "echo", func(n int) (int, error) { return n, nil })
	_, err := f.Conn().Subscribe("bare", func(m *nats.Msg) { m.Respond(m.Data) })
	require.NoError(b, err)
	ctx, cancel := context.WithTimeout(context.Background(), 4*clustertest.Patience)
	defer cancel()
	rounds(b, func(n int) {
		for range n {
			var answer int
			require.NoError(b, f.Request(ctx, "", "echo", 7, &answer))
		}
	}, func(n int) {
		for range n {
			_, err := f.Conn().RequestWithContext(ctx, "bare", []byte("7"))
			require.NoError(b, err)
		}
	})
}
