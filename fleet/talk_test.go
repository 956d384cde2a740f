package fleet

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// TestPublish: all members hear a topic, each message of one publisher in its turn.
func TestPublish(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	a := member(t, quick, Options{URL: s.URL, Node: "a"})
	b := member(t, quick, Options{URL: s.URL, Node: "b"})
	const n = 1000
	heard := []<-chan int{collect[int](t, a, "numbers.even"), collect[int](t, b, "numbers.*"), collect[int](t, b, ">")}
	for i := range n {
		require.NoError(t, a.Publish("numbers.even", i))
	}
	for _, c := range heard {
		for i := range n {
			require.Equal(t, i, clustertest.Await(t, c, "a number"))
		}
	}
	require.Error(t, a.Publish("numbers.*", 1))
	require.Error(t, a.Publish("x", make(chan int)))
	require.ErrorIs(t, a.Publish("x", strings.Repeat("x", 2<<20)), cluster.ErrTooLarge)
}

// TestSubscriberTrouble: what a subscriber cannot have or decode is reported, what
// ends its goroutine ends only that call, and after stop nothing is heard.
func TestSubscriberTrouble(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	f := member(t, quick, Options{URL: s.URL, Node: "a"})
	errs := errorsOf(t)
	Subscribe(f, "no topic", func(int) {})
	awaitError(t, errs, nil, "no topic")
	heard := make(chan struct{}, 1)
	var late atomic.Bool
	stop := Subscribe(f, "n", func(n int) {
		switch n {
		case 1:
			runtime.Goexit()
		case 2:
			select {
			case heard <- struct{}{}:
			default:
			}
		case 3:
			late.Store(true)
		}
	})
	require.NoError(t, f.Publish("n", "text"))
	awaitError(t, errs, nil, `topic "n"`)
	require.NoError(t, f.Publish("n", 1))
	clustertest.Eventually(t, func() bool {
		require.NoError(t, f.Publish("n", 2))
		return len(heard) > 0
	}, "the subscription that begins anew")
	stop() // a call for a 2 may be under way, and goes on
	other := collect[int](t, f, "n")
	require.NoError(t, f.Publish("n", 3))
	require.Equal(t, 3, clustertest.Await(t, other, "3"))
	require.False(t, late.Load())
}

// question is what tests ask.
type question struct{ What string }

// TestRequest: one process answers, of the member that is asked for or of any.
func TestRequest(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ctx := long(t)
	members := map[string]*Fleet{}
	for _, node := range []string{"a", "b. c"} {
		f := member(t, quick, Options{URL: s.URL, Node: node})
		members[node] = f
		Respond(f, "who", func(q question) (string, error) {
			switch q.What {
			case "fail":
				return "", errors.New("it is\nso")
			case "exit":
				runtime.Goexit()
			case "much":
				return strings.Repeat("x", 2<<20), nil
			}
			return node + q.What, nil
		})
	}
	a := members["a"]
	var answer string
	for node := range members {
		require.NoError(t, a.Request(ctx, node, "who", question{"!"}, &answer))
		require.Equal(t, node+"!", answer)
	}
	seen := map[string]bool{}
	for len(seen) < 2 {
		require.NoError(t, a.Request(ctx, "", "who", question{}, &answer))
		seen[answer] = true
	}
	require.ErrorContains(t, a.Request(ctx, "b. c", "who", question{"fail"}, nil), "it is so")
	require.ErrorContains(t, a.Request(ctx, "", "who", question{"exit"}, nil), "Goexit")
	require.ErrorContains(t, a.Request(ctx, "", "who", question{"much"}, nil), "too long")
	require.ErrorContains(t, a.Request(ctx, "", "who", 7, nil), "cannot unmarshal")
	require.ErrorIs(t, a.Request(ctx, "c", "who", question{}, nil), nats.ErrNoResponders)
	require.ErrorIs(t, a.Request(ctx, "", "what", question{}, nil), nats.ErrNoResponders)
}

// TestRequestWaits: it waits until its ctx ends; a nested one is answered meanwhile.
func TestRequestWaits(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	a := member(t, quick, Options{URL: s.URL, Node: "a"})
	begun, end := make(chan struct{}), make(chan struct{})
	Respond(a, "slow", func(int) (int, error) {
		begun <- struct{}{}
		<-end
		return 0, nil
	})
	Respond(a, "quick", func(n int) (int, error) { return n + 1, nil })
	Respond(a, "nested", func(n int) (m int, err error) {
		err = a.Request(context.Background(), "", "quick", n, &m)
		return m, err
	})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- a.Request(ctx, "", "slow", 0, nil) }()
	clustertest.Await(t, begun, "the handler")
	var n int
	require.NoError(t, a.Request(long(t), "a", "nested", 1, &n))
	require.Equal(t, 2, n)
	cancel()
	require.ErrorIs(t, clustertest.Await(t, result, "the request's end"), context.Canceled)
	close(end)
}

// TestClose: who leaves answers what has begun, and sends what was published.
func TestClose(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	a := member(t, quick, Options{URL: s.URL, Node: "a"})
	b := member(t, quick, Options{URL: s.URL, Node: "b"})
	awaitNodes(t, a, "a", "b")
	begun, end := make(chan struct{}), make(chan struct{})
	Respond(b, "slow", func(int) (int, error) {
		close(begun)
		<-end
		return 7, nil
	})
	Respond(b, "ping", func(int) (int, error) { return 0, nil })
	answer := make(chan int)
	go func() {
		var n int
		err := a.Request(long(t), "b", "slow", 0, &n)
		if err != nil {
			t.Error(err)
		}
		answer <- n
	}()
	clustertest.Await(t, begun, "the handler")
	heard := collect[int](t, a, "last")
	closed := make(chan error)
	go func() { closed <- b.Close() }()
	clustertest.Eventually(t, func() bool {
		err := a.Request(long(t), "b", "ping", 0, nil)
		return errors.Is(err, nats.ErrNoResponders)
	}, "the end of new requests")
	for i := range 100 {
		require.NoError(t, b.Publish("last", i))
	}
	close(end)
	require.Equal(t, 7, clustertest.Await(t, answer, "the answer"))
	require.NoError(t, clustertest.Await(t, closed, "the end"))
	for i := range 100 {
		require.Equal(t, i, clustertest.Await(t, heard, "what was published"))
	}
	require.ErrorIs(t, b.Publish("last", 1), ErrNoFleet)
	require.ErrorIs(t, b.Request(t.Context(), "", "slow", 0, nil), ErrNoFleet)
	awaitNodes(t, a, "a")
	require.NoError(t, b.Close())
}

// TestForeignClient: whoever speaks NATS takes part: the subject is the topic's, the
// body is JSON.
func TestForeignClient(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	f := member(t, quick, Options{URL: s.URL, Node: "a"})
	nc, err := nats.Connect(s.URL)
	require.NoError(t, err)
	defer nc.Close()
	heard := collect[map[string]any](t, f, "prices")
	there, err := nc.SubscribeSync("cluster." + f.Name() + ".topic.prices")
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	require.NoError(t, nc.Publish("cluster."+f.Name()+".topic.prices", []byte(`{"x":1}`)))
	require.Equal(t, map[string]any{"x": 1.0}, clustertest.Await(t, heard, "its message"))
	require.NoError(t, f.Publish("prices", []int{1, 2}))
	for _, want := range []string{`{"x":1}`, `[1,2]`} {
		m, err := there.NextMsg(clustertest.Patience)
		require.NoError(t, err)
		require.Equal(t, want, string(m.Data))
	}
	Respond(f, "sum", func(all []int) (sum int, err error) {
		for _, n := range all {
			sum += n
		}
		return sum, nil
	})
	m, err := nc.Request("cluster."+f.Name()+".request.sum", []byte("[1,2,3]"), clustertest.Patience)
	require.NoError(t, err)
	require.Equal(t, "6", string(m.Data), fmt.Sprint(m.Header))
}
