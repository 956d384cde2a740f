package fleet

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// lostQuestions hears the questions to JetStream that a proxy has lost.
func lostQuestions(t *testing.T, s *natsServer) <-chan string {
	nc, err := nats.Connect(s.URL)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	c := make(chan string, 10)
	_, err = nc.Subscribe(string(rune(lostSubject))+"JS.API.>", func(m *nats.Msg) { c <- m.Subject })
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	return c
}

// TestUnansweredQuestion: a question that the server does not answer stops its own call
// and no other one, and that call ends with its ctx.
func TestUnansweredQuestion(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	lost := lostQuestions(t, s)
	bucket := "cluster-" + fleetName(t)
	ctx := long(t)
	set := func(ctx context.Context, f *Fleet) error { return f.KV("x").Set(ctx, "stopped", nil, 0) }
	epoch := func(ctx context.Context, f *Fleet) error {
		_, err := f.epoch.get(ctx)
		return err
	}
	for i, step := range []struct {
		question string
		call     func(context.Context, *Fleet) error
	}{
		{"$JS.API.STREAM.CREATE.KV_" + bucket, set}, // first, while there is none
		{"$JS.API.STREAM.INFO.KV_" + bucket, set},
		{"$JS.API.DIRECT.GET.KV_" + bucket + ".$KV." + bucket + ".epoch", epoch},
	} {
		p := startProxy(t, s)
		f := member(t, quickly, Options{URL: p.URL, Node: strconv.Itoa(i)})
		p.Lose(step.question)
		stopped, stop := context.WithCancel(ctx)
		result := make(chan error, 1)
		go func() { result <- step.call(stopped, f) }()
		require.Equal(t, step.question[1:], clustertest.Await(t, lost, step.question)[1:])

		require.NoError(t, f.KV("x").Set(ctx, "k", []byte("v"), 0))
		val, _, err := f.KV("x").Get(ctx, "k")
		require.NoError(t, err)
		require.Equal(t, "v", string(val))
		require.NoError(t, epoch(ctx, f))
		require.Empty(t, result, "the call that is stopped")
		stop()
		require.ErrorIs(t, clustertest.Await(t, result, "the end of the call"), context.Canceled)
	}
}

// TestSilentJetStream: a call whose ctx has time says that JetStream does not answer.
func TestSilentJetStream(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	set := quickly
	set.call = time.Second
	f := member(t, set, Options{URL: p.URL, Node: "a"})
	lostQuestions(t, s) // or nobody is there, which the server says
	p.Lose("$JS.API.STREAM.INFO.KV_")
	err := f.KV("x").Set(long(t), "k", nil, 0)
	require.ErrorContains(t, err, "JetStream, which keeps leases and values, does not answer within 1s")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	eventually(t, func() bool { return f.KV("x").Set(long(t), "k", nil, 0) == nil }, "the next answer")
}

// TestStalledServer: while the server says nothing each call ends with its own ctx, and
// goes on when the server does.
func TestStalledServer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	f := member(t, quickly, Options{URL: p.URL, Node: "a"})
	p.Cut()
	calls := []func(context.Context) error{
		func(ctx context.Context) error { return f.KV("x").Set(ctx, "k", nil, 0) },
		func(ctx context.Context) error { _, err := f.KV("x").Keys(ctx, ""); return err },
		func(ctx context.Context) error { return f.Once(ctx, "o", func(context.Context) error { return nil }) },
		func(ctx context.Context) error { _, _, err := f.Lock(ctx, "l"); return err },
		func(ctx context.Context) error { _, err := f.epoch.get(ctx); return err },
	}
	waits := make(chan error, 1)
	go func() { waits <- f.KV("x").Set(long(t), "other", nil, 0) }()
	results := make(chan error, len(calls))
	ctx, cancel := context.WithCancel(t.Context())
	for _, call := range calls {
		go func() { results <- call(ctx) }()
	}
	cancel()
	for range calls {
		require.ErrorIs(t, clustertest.Await(t, results, "the end of a call"), context.Canceled)
	}
	require.Empty(t, waits)
	p.Heal()
	require.NoError(t, clustertest.Await(t, waits, "the call that goes on"))
}
