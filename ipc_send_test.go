package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

type talk struct {
	Cmd string `json:"cmd"`
	N   int    `json:"n"`
	Pad string `json:"pad,omitempty"`
}

// talker sends back what it gets, answers requests, and does what it is asked.
var talker = clustertest.Program("talker", func() {
	var early sync.Mutex
	var got []int
	cluster.OnMessage(func(w *cluster.Process, m cluster.Message) {
		if m.Cmd() != "late" && w == cluster.Worker {
			err := w.Send(m)
			for ; errors.Is(err, cluster.ErrBacklog); err = w.Send(m) {
				time.Sleep(time.Millisecond) // a test that sends much may be slow to take it back
			}
			clustertest.Must(err)
		}
	})
	cluster.Respond("count", func(_ *cluster.Process, q talk) (int, error) {
		// n messages for the master.
		for n := range q.N {
			clustertest.Must(cluster.Worker.Send(talk{Cmd: "counted", N: n, Pad: q.Pad}))
		}
		return q.N, nil
	})
	cluster.Respond("register", func(*cluster.Process, any) (any, error) {
		cluster.Handle("other", func(*cluster.Process, talk) {})
		cluster.Handle("late", func(_ *cluster.Process, v talk) {
			early.Lock()
			defer early.Unlock()
			got = append(got, v.N)
		})
		return nil, nil
	})
	cluster.Respond("got", func(*cluster.Process, any) ([]int, error) {
		early.Lock()
		defer early.Unlock()
		return got, nil
	})
	cluster.Respond("pad", func(_ *cluster.Process, q talk) (string, error) { return strings.Repeat("x", q.N), nil })
	cluster.Respond("sendPad", func(w *cluster.Process, q talk) (bool, error) {
		pad := talk{Cmd: "late", Pad: strings.Repeat("x", q.N)}
		err := w.Send(pad)
		if again := w.Request(context.Background(), pad, nil); !errors.Is(again, cluster.ErrMessageTooLong) {
			return false, fmt.Errorf("the request: %v", again)
		}
		return errors.Is(err, cluster.ErrMessageTooLong), err
	})
	respondToTests()
	<-cluster.Context().Done()
	select {}
})

// forkOnline forks a worker and waits until it is online.
func forkOnline(t *testing.T) *cluster.Process {
	t.Helper()
	up := make(chan *cluster.Process, 1)
	stop := cluster.OnOnline(func(w *cluster.Process) { up <- w })
	defer stop()
	w, err := cluster.Fork()
	require.NoError(t, err)
	require.Equal(t, w, clustertest.Await(t, up, "online"))
	return w
}

// TestMessageTooLong: a message that the other side would drop is an error for the sender, on
// either side and for every kind of message, and nobody waits. One that just fits arrives.
func TestMessageTooLong(t *testing.T) {
	const most = 2000
	clustertest.WithMaster(t, talker, cluster.Options{MaxMessage: most})
	failed := make(chan error, 10)
	t.Cleanup(cluster.OnError(func(_ *cluster.Process, err error) { failed <- err }))
	echoed := make(chan string, 1)
	t.Cleanup(cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) { echoed <- m.String() }))
	long := strings.Repeat("x", most)
	ctx := clustertest.Within(t, clustertest.Patience)

	early, err := cluster.Fork()
	require.NoError(t, err)
	told := make(chan error, 1)
	if err = early.Send(long, func(err error) { told <- err }); err == nil {
		err = clustertest.Await(t, told, "receipt") // it was not online yet
	}
	require.ErrorIs(t, err, cluster.ErrMessageTooLong)
	require.ErrorIs(t, early.Request(ctx, talk{Cmd: "add", Pad: long}, nil), cluster.ErrMessageTooLong)

	w := forkOnline(t)
	require.ErrorIs(t, w.Send(long), cluster.ErrMessageTooLong)
	require.ErrorIs(t, w.SendContext(ctx, long), cluster.ErrMessageTooLong)
	require.ErrorIs(t, w.Request(ctx, talk{Cmd: "add", Pad: long}, nil), cluster.ErrMessageTooLong)
	require.ErrorIs(t, w.Request(ctx, talk{Cmd: "pad", N: most}, nil), cluster.ErrMessageTooLong)
	fits := long[len(`""`):]
	require.NoError(t, w.Send(fits))
	require.Equal(t, `"`+fits+`"`, clustertest.Await(t, echoed, "what just fits"))
	var refused bool
	require.ErrorContains(t, w.Request(ctx, talk{Cmd: "sendPad", N: most}, &refused), cluster.ErrMessageTooLong.Error())
	var n int
	require.NoError(t, w.Request(ctx, talk{Cmd: "add", N: 1}, &n), "and all goes on")
	require.Empty(t, failed)
}

// TestMessagesBothWays: messages arrive in the order in which they were sent,
// at everything that takes them, from the right worker; w in a worker's callback
// is its Worker.
func TestMessagesBothWays(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{})
	w := forkOnline(t)
	const count = 2000
	own, all, handled := make(chan int, count), make(chan int, count), make(chan int, count)
	t.Cleanup(w.OnMessage(func(from *cluster.Process, m cluster.Message) {
		var v talk
		if from == w && m.Decode(&v) == nil {
			own <- v.N
		}
	}))
	t.Cleanup(cluster.OnMessage(func(from *cluster.Process, m cluster.Message) {
		var v talk
		if from == w && m.Decode(&v) == nil {
			all <- v.N
		}
	}))
	t.Cleanup(cluster.Handle("echo", func(from *cluster.Process, v talk) {
		if from == w {
			handled <- v.N
		}
	}))
	for n := range count {
		require.NoError(t, w.Send(talk{Cmd: "echo", N: n}))
	}
	for n := range count {
		require.Equal(t, n, clustertest.Await(t, own, "message"))
		require.Equal(t, n, clustertest.Await(t, all, "message"))
		require.Equal(t, n, clustertest.Await(t, handled, "message"))
	}
}

// TestKeptMessages: what a callback keeps of a message stays as it came, whoever delivered it
// and whatever else took it.
func TestKeptMessages(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{})
	w := forkOnline(t)
	const count = 300
	var kept []cluster.Message
	var raw []json.RawMessage
	taken := make(chan struct{}, count)
	t.Cleanup(cluster.Handle("echo", func(_ *cluster.Process, v json.RawMessage) { raw = append(raw, v) }))
	t.Cleanup(w.OnMessage(func(_ *cluster.Process, m cluster.Message) { kept = append(kept, m) }))
	t.Cleanup(cluster.Handle("echo", func(*cluster.Process, talk) { taken <- struct{}{} }))
	for n := range count {
		require.NoError(t, w.Send(talk{Cmd: "echo", N: n}))
		clustertest.Await(t, taken, "message") // the next one comes to the same memory
	}
	for n := range count {
		want := fmt.Sprintf(`{"cmd":"echo","n":%d}`, n)
		require.Equal(t, want, kept[n].String())
		require.Equal(t, want, string(raw[n]))
	}
}

// TestUndecodableMessage: one that Handle cannot decode is an error, and taken.
func TestUndecodableMessage(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{})
	w := forkOnline(t)
	failed := make(chan error, 1)
	t.Cleanup(w.OnError(func(_ *cluster.Process, err error) { failed <- err }))
	t.Cleanup(cluster.Handle("echo", func(*cluster.Process, struct{ N []string }) { t.Error("decoded") }))
	require.NoError(t, w.Send(talk{Cmd: "echo", N: 1}))
	require.ErrorContains(t, clustertest.Await(t, failed, "error"), "echo")
}

// TestEarlyMessagesOfAWorker: what a worker sends before the master has a
// handler waits for one; a handler for something else does not take it, and what
// waited goes before what is new.
func TestEarlyMessagesOfAWorker(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{})
	w := forkOnline(t)
	t.Cleanup(cluster.Handle("something else", func(*cluster.Process, any) { t.Error("taken") }))
	var n int
	require.NoError(t, w.Request(t.Context(), talk{Cmd: "count", N: 100}, &n))
	got := make(chan int, 1000)
	require.NoError(t, w.Request(t.Context(), talk{Cmd: "count", N: 100}, &n))
	t.Cleanup(cluster.Handle("counted", func(_ *cluster.Process, v talk) { got <- v.N }))
	require.NoError(t, w.Request(t.Context(), talk{Cmd: "count", N: 100}, &n))
	for i := range 300 {
		require.Equal(t, i%100, clustertest.Await(t, got, "message"))
	}
}

// TestEarlyMessagesToAWorker, sent before it is online, wait for the handler
// that it registers late; so does what is sent later.
func TestEarlyMessagesToAWorker(t *testing.T) {
	clustertest.WithMaster(t, lateTalker, cluster.Options{})
	w, err := cluster.Fork()
	require.NoError(t, err)
	for n := range 50 {
		require.NoError(t, w.Send(talk{Cmd: "late", N: n}))
	}
	require.NoError(t, w.Request(t.Context(), talk{Cmd: "register"}, nil))
	for n := 50; n < 100; n++ {
		require.NoError(t, w.SendContext(t.Context(), talk{Cmd: "late", N: n}))
	}
	want := make([]int, 100)
	for n := range want {
		want[n] = n
	}
	var got []int
	clustertest.Eventually(t, func() bool {
		require.NoError(t, w.Request(t.Context(), talk{Cmd: "got"}, &got))
		return len(got) >= len(want)
	}, "all messages handled")
	require.Equal(t, want, got)
}

// lateTalker registers its only handler for messages when it is told to.
var lateTalker = clustertest.Program("late talker", func() {
	var mu sync.Mutex
	var got []int
	cluster.Respond("register", func(*cluster.Process, any) (any, error) {
		cluster.Handle("other", func(*cluster.Process, talk) { os.Exit(7) })
		cluster.Handle("late", func(_ *cluster.Process, v talk) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, v.N)
		})
		return nil, nil
	})
	cluster.Respond("got", func(*cluster.Process, any) ([]int, error) {
		mu.Lock()
		defer mu.Unlock()
		return got, nil
	})
	<-cluster.Context().Done()
	select {}
})

// TestUnclaimedAtDeath: messages and requests for which no handler came are
// dropped when their worker is dead, with an error before the death is reported.
func TestUnclaimedAtDeath(t *testing.T) {
	clustertest.WithMaster(t, unclaimed, cluster.Options{})
	rec := clustertest.NewRecorder()
	t.Cleanup(cluster.OnError(func(_ *cluster.Process, err error) { rec.Add("error %v", err) }))
	t.Cleanup(cluster.OnDeath(func(*cluster.Process, cluster.Exit) { rec.Add("death") }))
	_, err := cluster.Fork()
	require.NoError(t, err)
	rec.Until(t, "death")
	lines := rec.All()
	require.Len(t, lines, 3)
	require.Contains(t, lines[0], "1 of its requests")
	require.Contains(t, lines[1], "3 of its messages")
	require.Contains(t, lines[1], "first")
}

var unclaimed = clustertest.Program("unclaimed", func() {
	for _, s := range []string{"first", "second", "third"} {
		clustertest.Must(cluster.Worker.Send(s))
	}
	// It is sent before the wait, which nobody ends.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := cluster.Worker.Request(ctx, "question", nil); !errors.Is(err, context.DeadlineExceeded) {
		clustertest.Must(err)
	}
	os.Exit(0)
})

// TestLargeMessages: 4 MiB arrive both ways, also one that is larger than
// MaxQueue when nothing else is queued.
func TestLargeMessages(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	clustertest.WithMaster(t, talker, cluster.Options{MaxQueue: 1 << 20})
	w := forkOnline(t)
	got := make(chan cluster.Message, 1)
	t.Cleanup(w.OnMessage(func(_ *cluster.Process, m cluster.Message) { got <- m }))
	big := strings.Repeat("x", 4<<20-2)
	require.NoError(t, w.SendContext(t.Context(), big))
	var back string
	require.NoError(t, clustertest.Await(t, got, "message").Decode(&back))
	require.True(t, back == big)
}

// TestStoppedWorker: Send to a worker that is stopped returns at once, with
// ErrBacklog when the queue is full; nothing of what was accepted is received
// before the worker goes on, and then all of it arrives, in order.
func TestStoppedWorker(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{MaxQueue: 1 << 20})
	w, other := forkOnline(t), forkOnline(t)
	got, received := make(chan int, 100000), make(chan error, 1)
	t.Cleanup(w.OnMessage(func(_ *cluster.Process, m cluster.Message) {
		var v talk
		m.Decode(&v)
		got <- v.N
	}))
	clustertest.Pause(t, w.PID())
	require.NoError(t, w.Send(talk{N: 0}, func(err error) { received <- err }))
	accepted, pad, begun := 1, strings.Repeat("x", 1000), time.Now()
	for ; ; accepted++ {
		if err := w.Send(talk{N: accepted, Pad: pad}); err != nil {
			require.ErrorIs(t, err, cluster.ErrBacklog)
			require.ErrorContains(t, err, "cluster: Send to worker "+strconv.Itoa(w.ID()))
			break
		}
		require.Less(t, accepted, 100000)
	}
	require.Less(t, time.Since(begun), clustertest.Patience/2)
	require.Greater(t, accepted, 1000)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, w.SendContext(ctx, pad+pad), cluster.ErrBacklog)
	require.NoError(t, other.Request(t.Context(), talk{Cmd: "add"}, nil))
	require.Empty(t, received)
	require.Empty(t, got)

	clustertest.Kill(t, w.PID(), clustertest.SigCont)
	for n := range accepted {
		require.Equal(t, n, clustertest.Await(t, got, "message"))
	}
	require.NoError(t, clustertest.Await(t, received, "receipt"))
}

// TestSendContextEnds with its context while the worker is stopped; the message
// arrives all the same.
func TestSendContextEnds(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{})
	w := forkOnline(t)
	got := make(chan string, 2)
	t.Cleanup(w.OnMessage(func(_ *cluster.Process, m cluster.Message) { got <- m.String() }))
	clustertest.Pause(t, w.PID())
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	require.ErrorIs(t, w.SendContext(ctx, 1), context.Canceled)
	require.Empty(t, got)
	clustertest.Kill(t, w.PID(), clustertest.SigCont)
	require.Equal(t, "1", clustertest.Await(t, got, "message"))
	require.NoError(t, w.SendContext(t.Context(), 2))
}

// TestSendToTheDead: what is sent to a worker that is gone, or was on its way,
// ends with ErrClosed, in the error or in the received callback.
func TestSendToTheDead(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{})
	w := forkOnline(t)
	dead, received := make(chan struct{}), make(chan error, 1)
	t.Cleanup(w.OnExit(func(*cluster.Process, cluster.Exit) { close(dead) }))
	clustertest.Pause(t, w.PID())
	require.NoError(t, w.Send(1, func(err error) { received <- err }))
	waiting := make(chan error, 2)
	go func() { waiting <- w.Request(context.Background(), 1, nil) }()
	go func() { waiting <- w.SendContext(context.Background(), 1) }()
	require.NoError(t, w.Kill())
	clustertest.Await(t, dead, "death")
	require.ErrorIs(t, clustertest.Await(t, received, "received callback"), cluster.ErrClosed)
	for range 2 {
		require.ErrorIs(t, clustertest.Await(t, waiting, "end of a call"), cluster.ErrClosed)
	}
	for _, err := range []error{w.Send(1), w.SendContext(t.Context(), 1), w.Request(t.Context(), 1, nil)} {
		require.ErrorIs(t, err, cluster.ErrClosed)
		require.ErrorContains(t, err, "worker "+strconv.Itoa(w.ID()))
	}
}

// TestWorkerIsNilInTheMaster, and its methods say so.
func TestWorkerIsNilInTheMaster(t *testing.T) {
	require.Nil(t, cluster.Worker)
	for _, err := range []error{
		cluster.Worker.Send(1), cluster.Worker.SendContext(t.Context(), 1), cluster.Worker.Request(t.Context(), 1, nil),
	} {
		require.ErrorIs(t, err, cluster.ErrNotWorker)
	}
}

// TestReservedCmdIsNotSent, neither way.
func TestReservedCmdIsNotSent(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{})
	w := forkOnline(t)
	bad := map[string]string{"cmd": "NODE_CLUSTER"}
	require.ErrorContains(t, w.Send(bad), "NODE_")
	require.ErrorContains(t, w.SendContext(t.Context(), bad), "NODE_")
	require.ErrorContains(t, w.Request(t.Context(), bad, nil), "NODE_")
	var text string
	require.NoError(t, w.Request(t.Context(), talk{Cmd: "sendReserved"}, &text))
	require.Contains(t, text, "NODE_")
}

// TestSentBeforeTheEndArrives: what a worker sends before a managed end arrives
// before its death is reported, however much it is: from OnShutdown, in a
// request that the drain lets finish, after Serve has returned what was sent
// before.
func TestSentBeforeTheEndArrives(t *testing.T) {
	const count = 2000
	clustertest.WithMaster(t, lastWords, cluster.Options{})
	hows := []string{"disconnect", "self"}
	if clustertest.System.Term {
		hows = append(hows, "term")
	}
	for _, how := range hows {
		t.Run(how, func(t *testing.T) {
			rec := clustertest.NewRecorder()
			t.Cleanup(cluster.Handle("last", func(_ *cluster.Process, v talk) { rec.Add("last %d", v.N) }))
			t.Cleanup(cluster.OnDeath(func(_ *cluster.Process, e cluster.Exit) { rec.Add("death %d", e.Code) }))
			listening := make(chan struct{}, 1)
			t.Cleanup(cluster.OnListening(func(*cluster.Process, net.Addr) { listening <- struct{}{} }))
			w, err := cluster.Fork()
			require.NoError(t, err)
			clustertest.Await(t, listening, "listening")
			switch how {
			case "disconnect":
				require.NoError(t, w.Disconnect(t.Context()))
			case "term":
				clustertest.Kill(t, w.PID(), syscall.SIGTERM)
			case "self":
				require.NoError(t, w.Send("leave"))
			}
			rec.Until(t, "death")
			lines := rec.All()
			require.Len(t, lines, count+1)
			for n := range count {
				require.Equal(t, fmt.Sprint("last ", n), lines[n])
			}
			require.Equal(t, "death 0", lines[count])
		})
	}
}

// lastWords says 2 MB in its OnShutdown hook.
var lastWords = clustertest.Program("last words", func() {
	cluster.OnMessage(func(w *cluster.Process, _ cluster.Message) { go w.Disconnect(context.Background()) })
	cluster.OnShutdown(func(context.Context) error {
		for n := range 2000 {
			clustertest.Must(cluster.Worker.Send(talk{Cmd: "last", N: n, Pad: strings.Repeat("x", 1000)}))
		}
		return nil
	})
	clustertest.Must(cluster.ListenAndServe("127.0.0.1:0", http.NotFoundHandler()))
	os.Exit(0) // main goes on once Serve has returned
})

// TestSentToAWorkerBeforeItsEndArrives: messages sent before Disconnect arrive
// in spite of it, and callbacks go on during the drain.
func TestSentToAWorkerBeforeItsEndArrives(t *testing.T) {
	clustertest.WithMaster(t, talker, cluster.Options{})
	w := forkOnline(t)
	require.NoError(t, w.Request(t.Context(), talk{Cmd: "countAtEnd", N: 1000}, nil))
	total := make(chan int, 1)
	t.Cleanup(cluster.Handle("total", func(_ *cluster.Process, v talk) { total <- v.N }))
	for n := range 1000 {
		require.NoError(t, w.Send(talk{Cmd: "late", N: n}))
	}
	require.NoError(t, w.Disconnect(t.Context()))
	require.Equal(t, 1000, clustertest.Await(t, total, "count"))
}

// TestSentToAWorkerThatStarts: it is told to have arrived, even if the worker is
// told to stop before it is online and says what it understands.
func TestSentToAWorkerThatStarts(t *testing.T) {
	clustertest.WithMaster(t, clustertest.SocketWorker, cluster.Options{})
	for starting := false; !starting; { // on a busy machine it may be online by then
		w := clustertest.Fork(t)
		received := make(chan error, 1)
		require.NoError(t, w.Send(clustertest.Order{Cmd: "nobody"}, func(err error) { received <- err }))
		starting = w.State() == cluster.Starting
		require.NoError(t, w.Disconnect(t.Context()))
		require.NoError(t, clustertest.Await(t, received, "receipt"))
	}
}
