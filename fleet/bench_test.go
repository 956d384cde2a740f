package fleet

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// rounds measures ours and theirs in turn, and tells how much longer ours takes: the
// median of the turns, since each of them has the same machine for both.
func rounds(b *testing.B, ours, theirs func(n int)) {
	const turns = 51
	var took time.Duration
	var ratios []float64
	n := max(1, b.N/turns)
	for range turns {
		begin := time.Now()
		theirs(n)
		bare := time.Since(begin)
		begin = time.Now()
		ours(n)
		one := time.Since(begin)
		took += one
		ratios = append(ratios, float64(one)/float64(bare))
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[turns/2], "ratio")
	b.ReportMetric(float64(took.Nanoseconds())/float64(n*turns), "ours-ns/op")
	b.ReportMetric(float64(n*turns)/took.Seconds(), "ours/s")
	b.ReportMetric(0, "ns/op")
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

// BenchmarkRequest compares Request with that of nats.go, between ends that encode and
// decode as well. Each handler of ours may wait without another request waiting for it. So
// may one of theirs that is called on a goroutine of its own, as one has to write it. One
// that must not wait is called as nats.go does it, one after another.
func BenchmarkRequest(b *testing.B) {
	b.Run("waiting", func(b *testing.B) { benchRequest(b, func(call func()) { go call() }) })
	b.Run("inline", func(b *testing.B) { benchRequest(b, func(call func()) { call() }) })
}

func benchRequest(b *testing.B, run func(call func())) {
	f := benchFleet(b)
	echo := func(n int) (int, error) { return n, nil }
	Respond(f, "echo", echo)
	_, err := f.Conn().QueueSubscribe("bare", "responders", func(m *nats.Msg) {
		run(func() {
			var n int
			if json.Unmarshal(m.Data, &n) != nil {
				return
			}
			n, _ = echo(n)
			body, _ := json.Marshal(n)
			m.Respond(body)
		})
	})
	require.NoError(b, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	times := func(request func() (int, error)) func(n int) {
		return func(n int) {
			for range n {
				if answer, err := request(); err != nil || answer != 7 {
					b.Fatal(answer, err)
				}
			}
		}
	}
	rounds(b, times(func() (answer int, err error) {
		err = f.Request(ctx, "", "echo", 7, &answer)
		return answer, err
	}), times(func() (answer int, err error) {
		body, err := json.Marshal(7)
		if err != nil {
			return 0, err
		}
		m, err := f.Conn().RequestWithContext(ctx, "bare", body)
		if err != nil {
			return 0, err
		}
		err = json.Unmarshal(m.Data, &answer)
		return answer, err
	}))
}
