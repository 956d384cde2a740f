package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// usage is what members and their server have, all in this process.
type usage struct {
	Goroutines, FDs, Clients, Streams, Consumers int
	Subscriptions                                uint32
	Keys                                         uint64
	Heap                                         uint64 // MiB, after a collection
}

// life is a fleet of which everything is used, again and again.
type life struct {
	t       *testing.T
	s       *natsServer
	link    *proxy // of b
	a, b    *Fleet
	current int // the cycle
}

func newLife(t *testing.T) *life {
	l := &life{t: t, s: startServer(t)}
	l.link = startProxy(t, l.s)
	l.a = member(t, quickly, Options{URL: l.s.URL, Node: "a"})
	l.b = member(t, quickly, Options{URL: l.link.URL, Node: "b"})
	for _, f := range []*Fleet{l.a, l.b} {
		Respond(f, "echo", func(n int) (int, error) { return n, nil })
	}
	return l
}

// usage is what there is when nothing is under way.
func (l *life) usage() (u usage) {
	l.t.Helper()
	ctx := l.t.Context()
	info, err := l.a.conn.js.AccountInfo(ctx)
	require.NoError(l.t, err)
	s, err := l.a.conn.js.Stream(ctx, "KV_"+l.a.store.name())
	require.NoError(l.t, err)
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	c := clustertest.Census()
	return usage{
		Goroutines: c.Goroutines, FDs: c.FDs, Clients: l.s.NumClients(), Streams: info.Streams, Consumers: info.Consumers,
		Subscriptions: l.s.NumSubscriptions(), Keys: s.CachedInfo().State.NumSubjects, Heap: m.HeapAlloc >> 20,
	}
}

// exceeds names what there is more of than there was. A few goroutines rest for a while, in
// this package, in nats.go and in its server, and a heap is never twice the same.
func (u usage) exceeds(was usage) string {
	was.Goroutines += 3 * maxResting
	was.Heap += 8
	for _, c := range []struct {
		what     string
		now, was uint64
	}{
		{"goroutines", uint64(u.Goroutines), uint64(was.Goroutines)}, {"descriptors", uint64(u.FDs), uint64(was.FDs)},
		{"clients", uint64(u.Clients), uint64(was.Clients)}, {"streams", uint64(u.Streams), uint64(was.Streams)},
		{"consumers", uint64(u.Consumers), uint64(was.Consumers)}, {"subscriptions", uint64(u.Subscriptions), uint64(was.Subscriptions)},
		{"keys", u.Keys, was.Keys}, {"MiB of heap", u.Heap, was.Heap},
	} {
		if c.now > c.was {
			return fmt.Sprintf("%d %s, and were %d", c.now, c.what, c.was)
		}
	}
	return ""
}

// cycle uses everything once. What is rare in life, and takes longer, comes in some cycles only.
func (l *life) cycle() {
	l.t.Helper()
	ctx := l.t.Context()
	l.talk(ctx)
	l.keep(ctx)
	if l.current%10 == 0 {
		l.lead(ctx)
	}
	switch l.current++; {
	case l.current%50 == 0:
		l.visit()
	case l.current%100 == 5: // what was led has been given back
		had := l.b.Conn().Stats().Reconnects
		l.link.Reset()
		clustertest.Eventually(l.t, func() bool { return l.b.Conn().Stats().Reconnects > had }, "the next connection")
	}
}

// talk publishes and asks.
func (l *life) talk(ctx context.Context) {
	heard := make(chan int, 1)
	topic := fmt.Sprint("topic", l.current%100)
	stop := Subscribe(l.a, topic, func(n int) { heard <- n })
	defer stop()
	require.NoError(l.t, l.b.Publish(topic, 7))
	clustertest.Await(l.t, heard, "a message")
	defer Respond(l.a, "once", func(int) (int, error) { return 0, errors.New("no") })()
	require.ErrorContains(l.t, l.b.Request(ctx, "", "once", 0, nil), "no")
	require.ErrorIs(l.t, l.b.Request(ctx, "", "nobody", 0, nil), nats.ErrNoResponders)
	for _, node := range []string{"", "a", "b"} {
		require.NoError(l.t, l.b.Request(ctx, node, "echo", 7, nil))
	}
}

// keep stores values, and removes them.
func (l *life) keep(ctx context.Context) {
	kv, key := l.a.KV("n"), fmt.Sprint("key", l.current%10)
	_, err := kv.Incr(ctx, key, 1, 0)
	require.NoError(l.t, err)
	require.NoError(l.t, kv.Set(ctx, "young", []byte("v"), time.Minute))
	if l.current%10 == 0 {
		_, err = kv.Keys(ctx, "")
		require.NoError(l.t, err)
		require.NoError(l.t, kv.DeletePrefix(ctx, "key"))
	}
}

// lead has a lease handed from one to the other, and a lock.
func (l *life) lead(ctx context.Context) {
	_, unlock, err := l.b.Lock(ctx, "lock")
	require.NoError(l.t, err)
	unlock()
	require.NoError(l.t, l.b.Once(ctx, "once", func(context.Context) error { return nil }))
	led := make(chan string, 2)
	for _, f := range []*Fleet{l.a, l.b} {
		stop := f.Lead("job", func(ctx context.Context) error {
			led <- f.Node()
			<-ctx.Done()
			return nil
		})
		require.Equal(l.t, f.Node(), clustertest.Await(l.t, led, "a leader"))
		stop()
	}
}

// visit is a member that joins and leaves.
func (l *life) visit() {
	f, err := joinAs(l.t, quickly, Options{URL: l.s.URL, Node: "visitor"})
	require.NoError(l.t, err)
	awaitNodes(l.t, l.a, "a", "b", "visitor")
	Subscribe(f, "x", func(int) {})
	_, unlock, err := f.Lock(l.t.Context(), "lock")
	require.NoError(l.t, err)
	unlock()
	require.NoError(l.t, f.Close())
	awaitNodes(l.t, l.a, "a", "b")
}

// TestNothingGrows: whatever is used, however often, there is as much of everything as at
// the beginning: of this package's, of nats.go's, of the server's.
func TestNothingGrows(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	l := newLife(t)
	for range 110 { // each key, topic and connection has been there once
		l.cycle()
	}
	begin, was := time.Now(), l.usage()
	enough := func() bool { return l.current >= 1000 }
	if os.Getenv("CLUSTER_LONG") != "" {
		enough = func() bool { return time.Since(begin) > 75*time.Second }
	}
	for !enough() {
		l.cycle()
	}
	var now usage
	end := time.Now().Add(clustertest.Patience)
	for now = l.usage(); now.exceeds(was) != "" && time.Now().Before(end); now = l.usage() {
		time.Sleep(100 * time.Millisecond)
	}
	require.Empty(t, now.exceeds(was))
	t.Logf("%d cycles in %v: %+v, and were %+v", l.current, time.Since(begin).Round(time.Second), now, was)
}
