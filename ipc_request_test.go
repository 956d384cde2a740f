package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// respondToTests answers what the tests of requests and messages ask a talker.
func respondToTests() {
	cluster.Respond("add", func(_ *cluster.Process, v talk) (int, error) { return v.N + 1, nil })
	cluster.Respond("fail", func(*cluster.Process, any) (any, error) { return nil, errors.New("no luck: <today>") })
	cluster.Respond("unencodable", func(*cluster.Process, any) (any, error) { return make(chan int), nil })
	cluster.Respond("nested", nest)
	cluster.Respond("never", func(*cluster.Process, any) (any, error) { select {} })
	cluster.Respond("askMaster", func(w *cluster.Process, v talk) (int, error) {
		var n int
		err := w.Request(context.Background(), talk{Cmd: "ofMaster", N: v.N}, &n)
		return n, err
	})
	cluster.Respond("sendReserved", func(w *cluster.Process, _ any) (string, error) {
		return w.Send(map[string]string{"cmd": "NODE_X"}).Error(), nil
	})
	cluster.Respond("countAtEnd", func(_ *cluster.Process, v talk) (any, error) {
		arrived := make(chan struct{}, v.N)
		cluster.Handle("late", func(*cluster.Process, talk) { arrived <- struct{}{} })
		cluster.OnShutdown(func(ctx context.Context) error {
			total := 0
			for total < v.N {
				select {
				case <-arrived: // the drain itself does not wait for callbacks
					total++
				case <-ctx.Done():
					return cluster.Worker.Send(talk{Cmd: "total", N: total})
				}
			}
			return cluster.Worker.Send(talk{Cmd: "total", N: total})
		})
		return nil, nil
	})
	cluster.Handle("askFromCallback", func(w *cluster.Process, v talk) {
		var n int
		clustertest.Must(w.Request(context.Background(), talk{Cmd: "ofMaster", N: v.N}, &n))
		clustertest.Must(w.Send(talk{Cmd: "asked", N: n}))
	})
	var both sync.WaitGroup
	both.Add(2)
	cluster.Respond("together", func(*cluster.Process, any) (any, error) {
		both.Done()
		both.Wait() // until the other one runs as well
		return nil, nil
	})
}

// nest asks the other side for one less, until nothing is left.
func nest(w *cluster.Process, v talk) (int, error) {
	if v.N == 0 {
		return 0, nil
	}
	var n int
	err := w.Request(context.Background(), talk{Cmd: "nested", N: v.N - 1}, &n)
	return n + 1, err
}

// TestRequestBothWays: the master asks a worker, and a worker the master.
func TestRequestBothWays(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{})
	t.Cleanup(cluster.OnRequest(func(w *cluster.Process, m cluster.Message) (any, error) {
		var v talk
		err := m.Decode(&v)
		return v.N + w.ID(), err
	}))
	w := forkOnline(t)
	var n int
	require.NoError(t, w.Request(t.Context(), talk{Cmd: "add", N: 1}, &n))
	require.Equal(t, 2, n)
	require.NoError(t, w.Request(t.Context(), talk{Cmd: "askMaster", N: 10}, &n))
	require.Equal(t, 10+w.ID(), n)
	require.NoError(t, w.Request(t.Context(), talk{Cmd: "add", N: 1}, nil))
}

// TestRequestBeforeOnline waits for the worker.
func TestRequestBeforeOnline(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{})
	w, err := cluster.Fork()
	require.NoError(t, err)
	var n int
	require.NoError(t, w.Request(t.Context(), talk{Cmd: "add", N: 1}, &n))
	require.Equal(t, 2, n)
}

// TestRequestBeforeItsHandler waits for it, and for no other.
func TestRequestBeforeItsHandler(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{})
	w := forkOnline(t)
	t.Cleanup(cluster.Respond("other", func(*cluster.Process, any) (int, error) { return 0, errors.New("wrong one") }))
	result := make(chan error, 1)
	var n int
	go func() { result <- w.Request(context.Background(), talk{Cmd: "askMaster", N: 1}, &n) }()
	require.NoError(t, w.Request(t.Context(), talk{Cmd: "add"}, nil))
	require.Empty(t, result)
	t.Cleanup(cluster.Respond("ofMaster", func(_ *cluster.Process, v talk) (int, error) { return v.N + 5, nil }))
	require.NoError(t, clustertest.Await(t, result, "answer"))
	require.Equal(t, 6, n)
}

// TestNestedRequests do not deadlock, however deep, from a request handler and
// from a message callback on either side.
func TestNestedRequests(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{})
	w := forkOnline(t)
	t.Cleanup(cluster.Respond("nested", nest))
	t.Cleanup(cluster.Respond("ofMaster", func(_ *cluster.Process, v talk) (int, error) { return v.N + 1, nil }))
	n, err := nest(w, talk{N: 100})
	require.NoError(t, err)
	require.Equal(t, 100, n)

	result := make(chan int, 1)
	t.Cleanup(w.OnMessage(func(w *cluster.Process, m cluster.Message) {
		if m.Cmd() == "asked" { // the worker's callback got its answer
			n, err := nest(w, talk{N: 5})
			require.NoError(t, err)
			result <- n
		}
	}))
	require.NoError(t, w.Send(talk{Cmd: "askFromCallback", N: 1}))
	require.Equal(t, 5, clustertest.Await(t, result, "answer in a callback"))
}

// TestRequestBehindAFlood: a Request from a message callback is answered though
// its answer lies behind more messages than MaxQueue holds.
func TestRequestBehindAFlood(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{MaxQueue: 100 << 10})
	w := forkOnline(t)
	const count = 1000
	got := make(chan int, count)
	t.Cleanup(cluster.Handle("counted", func(w *cluster.Process, v talk) {
		if v.N%100 == 0 {
			var n int
			require.NoError(t, w.Request(context.Background(), talk{Cmd: "add", N: v.N}, &n))
			require.Equal(t, v.N+1, n)
		}
		got <- v.N
	}))
	var sent int
	// In the worker the flood meets ErrBacklog, and die, unless the master reads on.
	for i := 0; i < count; i += 50 {
		require.NoError(t, w.Request(t.Context(), talk{Cmd: "count", N: 50, Pad: strings.Repeat("x", 400)}, &sent))
	}
	for i := range count {
		require.Equal(t, i%50, clustertest.Await(t, got, "message"))
	}
}

// TestRequestsRunAtOnce: the handler of one does not wait for another.
func TestRequestsRunAtOnce(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{})
	w := forkOnline(t)
	results := make(chan error, 2)
	for range 2 {
		go func() { results <- w.Request(context.Background(), talk{Cmd: "together"}, nil) }()
	}
	for range 2 {
		require.NoError(t, clustertest.Await(t, results, "answer"))
	}
}

// TestManyRequestsAtOnce each get their own answer.
func TestManyRequestsAtOnce(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{})
	w := forkOnline(t)
	results := make(chan error, 500)
	for i := range cap(results) {
		go func() {
			var n int
			err := w.Request(context.Background(), talk{Cmd: "add", N: i}, &n)
			if err == nil && n != i+1 {
				err = fmt.Errorf("%d answered with %d", i, n)
			}
			results <- err
		}()
	}
	for range cap(results) {
		require.NoError(t, clustertest.Await(t, results, "answer"))
	}
}

// TestTheLatestHandlerAnswers, until it is unregistered.
func TestTheLatestHandlerAnswers(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{})
	w := forkOnline(t)
	ask := func() (n int) {
		t.Helper()
		require.NoError(t, w.Request(t.Context(), talk{Cmd: "askMaster"}, &n))
		return n
	}
	answering := func(n int) func(*cluster.Process, cluster.Message) (any, error) {
		return func(*cluster.Process, cluster.Message) (any, error) { return n, nil }
	}
	t.Cleanup(cluster.OnRequest(answering(1)))
	require.Equal(t, 1, ask())
	stop := cluster.Respond("ofMaster", func(*cluster.Process, any) (int, error) { return 2, nil })
	require.Equal(t, 2, ask())
	t.Cleanup(cluster.Respond("other", func(*cluster.Process, any) (int, error) { return 3, nil }))
	require.Equal(t, 2, ask())
	stopAny := cluster.OnRequest(answering(4))
	require.Equal(t, 4, ask())
	stopAny()
	require.Equal(t, 2, ask())
	stop()
	require.Equal(t, 1, ask())
}

// TestErrorsOfARequest come back as text, and are no error of the channel.
func TestErrorsOfARequest(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{})
	w := forkOnline(t)
	err := w.Request(t.Context(), talk{Cmd: "fail"}, nil)
	require.EqualError(t, err, "no luck: <today>")
	require.NotErrorIs(t, err, cluster.ErrClosed)
	require.ErrorContains(t, w.Request(t.Context(), talk{Cmd: "unencodable"}, nil), "chan int")
	require.ErrorContains(t, w.Request(t.Context(), map[string]any{"cmd": "add", "n": "x"}, nil), `request "add"`)
	require.Error(t, w.Request(t.Context(), make(chan int), nil))
	t.Cleanup(cluster.Respond("ofMaster", func(*cluster.Process, any) (int, error) { return 0, cluster.ErrClosed }))
	require.EqualError(t, w.Request(t.Context(), talk{Cmd: "askMaster"}, nil), cluster.ErrClosed.Error())
}

// TestRequestEndsWithItsContext; the worker goes on to answer others, and the
// answer that comes too late disturbs nobody.
func TestRequestEndsWithItsContext(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	clustertest.WithMaster(t, talker, cluster.Options{ShutdownTimeout: time.Second}) // "never" holds up the drain
	w := forkOnline(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, w.Request(ctx, talk{Cmd: "never"}, nil), context.DeadlineExceeded)
	clustertest.Pause(t, w.PID())
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, w.Request(ctx, talk{Cmd: "add", N: 1}, nil), context.DeadlineExceeded)
	clustertest.Kill(t, w.PID(), clustertest.SigCont)
	var n int
	require.NoError(t, w.Request(t.Context(), talk{Cmd: "add", N: 41}, &n))
	require.Equal(t, 42, n)
}
