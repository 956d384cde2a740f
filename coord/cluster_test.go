package coord_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// silent is the output of workers that panic.
func silent(*cluster.Process) (stdout, stderr io.Writer) { return io.Discard, io.Discard }

// TestLeadPanics: a panic of what leads ends its process, and that is a failure of the
// name; so does the panic of a subscriber.
func TestLeadPanics(t *testing.T) {
	clustertest.WithMaster(t, coordWorker, cluster.Options{Output: silent})
	name, said, dead := unique(t), words(t), clustertest.Deaths(t)
	w := forkAll(t, 3)
	ask(t, w[1], "panicker", name)
	require.NoError(t, coord.Publish(name, "to all"))
	require.Same(t, w[1], clustertest.Await(t, dead, "death").Worker)

	ask(t, w[0], "leadpanic", name)
	require.Same(t, w[0], await(t, said, "leads "+name))
	if _, err := tryAsk(t, w[0], "end", name, key("now")); err != nil { // it may not live to answer
		require.ErrorIs(t, err, cluster.ErrClosed)
	}
	death := clustertest.Await(t, dead, "death")
	require.Same(t, w[0], death.Worker)
	require.Equal(t, 2, death.Exit.Code)
	require.Equal(t, cluster.LeadStats{Name: name, Worker: -1, Failures: 1}, leadOf(name))
	ask(t, w[2], "lead", name)
	require.Same(t, w[2], await(t, said, "leads "+name))
}

// TestDrainWaitsForLead: it waits for what leads as for a request, and nobody else
// leads meanwhile.
func TestDrainWaitsForLead(t *testing.T) {
	clustertest.WithMaster(t, coordWorker, cluster.Options{})
	name, said := unique(t), words(t)
	w := forkAll(t, 2)
	ask(t, w[0], "leadslow", name)
	clustertest.Eventually(t, func() bool { return leads(name) == w[0].ID() }, "it leads")
	ask(t, w[1], "lead", name)
	drained := make(chan error, 1)
	go func() { drained <- w[0].Disconnect(t.Context()) }()
	require.Same(t, w[0], await(t, said, "ending "+name))
	require.Equal(t, cluster.Draining, w[0].State())
	require.Equal(t, w[0].ID(), leads(name))
	require.Empty(t, said)
	require.Empty(t, drained)
	ask(t, w[0], "end", name, key("release"))
	handsOver(t, said, name, w[0], w[1])
	require.NoError(t, clustertest.Await(t, drained, "end of the drain"))
	require.Zero(t, leadOf(name).Failures)
}

// TestLeadInside: the function that leads cannot call Lead for that name, in whatever
// role; OnError is told.
func TestLeadInside(t *testing.T) {
	clustertest.CheckLeaks(t)
	errs := make(chan error, 10)
	defer cluster.OnError(func(_ *cluster.Process, err error) { errs <- err })()
	name := unique(t)
	stop := coord.Lead(name, func(ctx context.Context) error {
		coord.Lead(name, func(context.Context) error { panic("it runs") })
		<-ctx.Done()
		return nil
	})
	require.ErrorContains(t, clustertest.Await(t, errs, "error"), "it is called by the function that leads this name")
	require.Equal(t, 1, leadOf(name).Candidates)
	stop()
	clustertest.Eventually(t, func() bool { return leads(name) == -1 }, "nobody leads")
}

// TestLeadsAgainAlone: a master whose workers are gone, and that is to have none, is an
// ordinary process again.
func TestLeadsAgainAlone(t *testing.T) {
	clustertest.WithMaster(t, coordWorker, cluster.Options{})
	forkAll(t, 1)
	began := make(chan string, 10)
	fn := func(who string) func(context.Context) error {
		return func(ctx context.Context) error { began <- who; <-ctx.Done(); return nil }
	}
	coord.Lead(unique(t), fn("while it has one"))
	clustertest.StopAll(t)
	name := unique(t)
	stop := coord.Lead(name, fn("alone"))
	require.Equal(t, "alone", clustertest.Await(t, began, "begin"))
	stop()
	clustertest.Eventually(t, func() bool { return leads(name) == -1 }, "nobody leads")
	require.Empty(t, began)
}

// TestApplicationSeesNothing of what package coord says, in no handler.
func TestApplicationSeesNothing(t *testing.T) {
	clustertest.WithMaster(t, coordWorker, cluster.Options{})
	name, said := unique(t), words(t)
	seen := make(chan string, 100)
	t.Cleanup(cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) {
		if m.Cmd() != "said" {
			seen <- m.String()
		}
	}))
	t.Cleanup(cluster.OnRequest(func(_ *cluster.Process, m cluster.Message) (any, error) {
		seen <- m.String()
		return nil, nil
	}))
	w := forkAll(t, 1)[0]
	for _, verb := range []string{"subscribe", "publish", "get", "incr", "allow", "trylock", "once", "lead"} {
		ask(t, w, verb, name, key("k"))
	}
	got := map[string]bool{}
	for range 4 {
		got[strings.TrimSpace(clustertest.Await(t, said, "word").what)] = true
	}
	require.Equal(t, map[string]bool{"heard k": true, "runs " + name: true, "once <nil> " + name: true, "leads " + name: true}, got)
	ask(t, w, "get", name, key("k")) // what it has said before is here
	require.Empty(t, seen)
}

// TestSmallMessages: with a small Options.MaxMessage what does not fit is ErrTooLarge,
// on its way there and back, and Options.MaxStore bounds the store.
func TestSmallMessages(t *testing.T) {
	clustertest.WithMaster(t, coordWorker, cluster.Options{MaxMessage: 64 << 10, MaxStore: 1 << 20})
	name, ctx := unique(t), t.Context()
	s := coord.Open(name)
	defer s.DeletePrefix(ctx, "")
	w := forkAll(t, 1)[0]
	ask(t, w, "set", name, key("k"), count(40<<10, 0))
	_, err := tryAsk(t, w, "set", name, key("k"), count(60<<10, 0))
	require.ErrorContains(t, err, "too large: the message to the master has")
	require.NoError(t, s.Set(ctx, "k", make([]byte, 60<<10), 0))
	_, err = tryAsk(t, w, "get", name, key("k"))
	require.ErrorContains(t, err, "more than MaxMessage")
	require.Equal(t, 1<<20, cluster.Stats().Coord.MaxStore)
	require.ErrorIs(t, s.Set(ctx, "large", make([]byte, 1<<20), 0), coord.ErrTooLarge)
}

// spend takes all that a limiter gives, at full speed, and returns how much that was.
func spend(name string, rate float64, d time.Duration) (n int64, err error) {
	l := coord.NewLimiter(name, rate, int(2*rate))
	for end := time.Now().Add(d); time.Now().Before(end); {
		ok, _, err := l.Allow(context.Background(), "hot")
		if err != nil {
			return n, err
		}
		if ok {
			n++
		}
	}
	return n, nil
}

// TestLimiterIsExact: four workers at full speed get no more than burst + rate·t
// together. With CLUSTER_LONG=1 for a minute.
func TestLimiterIsExact(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	const rate = 1000
	d := 10 * time.Second
	if clustertest.Long() {
		d = time.Minute
	}
	clustertest.WithMaster(t, coordWorker, cluster.Options{MaxProcs: 1})
	w, name := forkAll(t, 4), unique(t)
	passed := make(chan int64, len(w))
	begun := time.Now()
	for _, one := range w {
		go func() {
			var r result
			err := one.Request(context.Background(), order{Cmd: "coord", Name: name, Val: []byte("spend"), N: rate, TTL: d}, &r)
			if err != nil {
				t.Error(err)
			}
			passed <- r.N
		}()
	}
	var all int64
	for range w {
		select {
		case n := <-passed:
			all += n
		case <-time.After(d + clustertest.Patience):
			t.Fatal("a worker does not end")
		}
	}
	took := time.Since(begun).Seconds()
	t.Logf("%d of %.0f in %.1f s", all, 2*rate+rate*took, took)
	require.LessOrEqual(t, float64(all), 2*rate+rate*took)
	// How much they ask for is the machine's: less than the burst has, under Wine beside others.
	require.Greater(t, all, int64(rate/10), "it gives what it has")
}
