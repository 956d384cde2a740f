package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// chatty listens, says how far it can count, and exits.
var chatty = clustertest.Program("chatty", func() {
	_, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	for i := range chatter - 1 {
		clustertest.Must(cluster.Worker.Send(i))
	}
	clustertest.Must(cluster.Worker.SendContext(cluster.Context(), chatter-1))
})

const chatter = 200

// TestOrderOfEvents: everything about one worker is reported in the order in
// which it happened, one callback at a time, exactly one fork and one death
// each; to those who registered for the cluster and for the worker alike.
func TestOrderOfEvents(t *testing.T) {
	clustertest.WithMaster(t, chatty, cluster.Options{})
	const workers = 8
	want := []string{"fork", "online", "listening"}
	for i := range chatter {
		want = append(want, strconv.Itoa(i))
	}
	want = append(want, "disconnect", "death 0")

	type diary struct {
		lines []string // no lock: the callbacks of one worker must not overlap
		busy  atomic.Int32
	}
	var mu sync.Mutex
	whole, own := make(map[int]*diary), make(map[int]*diary)
	note := func(of map[int]*diary, w *cluster.Process, line string) {
		mu.Lock()
		d := of[w.ID()]
		if d == nil && line == "fork" {
			d = new(diary)
			of[w.ID()] = d
		}
		mu.Unlock()
		if d == nil {
			return // the last word on a worker of an earlier test
		}
		if d.busy.Add(1) != 1 {
			t.Errorf("two callbacks of worker %d at once", w.ID())
		}
		d.lines = append(d.lines, line)
		d.busy.Add(-1)
	}
	all := func(line string) func(*cluster.Process) {
		return func(w *cluster.Process) { note(whole, w, line) }
	}
	t.Cleanup(cluster.OnFork(func(w *cluster.Process) {
		all("fork")(w)
		note(own, w, "fork")
		mine := func(line string) func(*cluster.Process) {
			return func(same *cluster.Process) {
				if same != w {
					t.Errorf("worker %d was told of worker %d", w.ID(), same.ID())
				}
				note(own, w, line)
			}
		}
		w.OnOnline(mine("online"))
		w.OnListening(func(w *cluster.Process, _ net.Addr) { mine("listening")(w) })
		w.OnMessage(func(w *cluster.Process, m cluster.Message) { mine(m.String())(w) })
		w.OnDisconnect(mine("disconnect"))
		w.OnExit(func(w *cluster.Process, e cluster.Exit) { mine(fmt.Sprint("death ", e.Code))(w) })
	}))
	t.Cleanup(cluster.OnOnline(all("online")))
	t.Cleanup(cluster.OnListening(func(w *cluster.Process, _ net.Addr) { all("listening")(w) }))
	t.Cleanup(cluster.OnMessage(func(w *cluster.Process, m cluster.Message) { all(m.String())(w) }))
	t.Cleanup(cluster.OnDisconnect(all("disconnect")))
	dead := make(chan struct{}, workers)
	t.Cleanup(cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) {
		all(fmt.Sprint("death ", e.Code))(w)
		mu.Lock()
		defer mu.Unlock()
		if whole[w.ID()] != nil {
			dead <- struct{}{}
		}
	}))
	for range workers {
		clustertest.Fork(t)
	}
	for range workers {
		clustertest.Await(t, dead, "death")
	}
	clustertest.StopAll(t)
	require.Len(t, whole, workers)
	for id := range whole {
		require.Equal(t, want, whole[id].lines)
		require.Equal(t, want, own[id].lines)
	}
}

// TestWorkersDoNotWaitForEachOther: a callback about one worker that blocks
// holds up neither those about another nor any call.
func TestWorkersDoNotWaitForEachOther(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{})
	first := clustertest.Fork(t)
	entered, release := make(chan struct{}), make(chan struct{})
	first.OnOnline(func(*cluster.Process) {
		close(entered)
		<-release
	})
	clustertest.Await(t, entered, "first worker's callback")
	clustertest.Ask[clustertest.About](t, first, clustertest.Order{Cmd: "about"})
	online, dead := clustertest.Onlines(t), clustertest.Deaths(t)
	second := clustertest.Fork(t)
	require.Same(t, second, clustertest.Await(t, online, "second worker's callback"))
	require.NoError(t, second.Disconnect(clustertest.Within(t, clustertest.Patience)))
	require.Same(t, second, clustertest.Await(t, dead, "second worker's death").Worker)
	require.NoError(t, first.Disconnect(clustertest.Within(t, clustertest.Patience)), "it waits for the process, not for the callback")
	require.Empty(t, dead)
	close(release)
	require.Same(t, first, clustertest.Await(t, dead, "first worker's death").Worker)
}

// TestUnregister: a callback that was unregistered is not called, the others
// are, and unregistering twice is harmless.
func TestUnregister(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{})
	rec := clustertest.NewRecorder()
	stop := cluster.OnOnline(func(*cluster.Process) { rec.Add("first") })
	t.Cleanup(cluster.OnOnline(func(*cluster.Process) { rec.Add("second") }))
	stop()
	stop()
	clustertest.Fork(t)
	rec.Until(t, "second")
	require.Equal(t, []string{"second"}, rec.All())
}

// provoker makes every kind of event happen, once; what it is asked it answers.
var provoker = clustertest.Program("provoker", func() {
	cluster.OnRequest(func(*cluster.Process, cluster.Message) (any, error) { return "yes", nil })
	cluster.OnMessage(func(*cluster.Process, cluster.Message) {})
	_, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	cluster.Worker.Send("message")
	cluster.Worker.Send(map[string]any{"cmd": "handled", "n": 1})
	cluster.Worker.Send(map[string]any{"cmd": "handled", "n": "not a number"})
	go cluster.Worker.Request(context.Background(), "request", nil)
	go cluster.Worker.Request(context.Background(), map[string]any{"cmd": "respond"}, nil)
	select {}
})

// numbered is what provoker sends to a Handle.
type numbered struct {
	N int `json:"n"`
}

// everyCall makes, in a callback about w, every call of the package. alive says
// that w is up, so that what concerns it must succeed.
func everyCall(w *cluster.Process, alive bool) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), clustertest.Patience)
	defer cancel()
	check := func(what string, e error, must bool) {
		if e != nil && (must || !errors.Is(e, cluster.ErrClosed)) {
			err = errors.Join(err, fmt.Errorf("%s: %w", what, e))
		}
	}
	use := func(p *cluster.Process, must bool) {
		_ = fmt.Sprint(p.ID(), p.Slot(), p.PID(), p.OSProcess() != nil, p.State(), p.IsConnected(), p.IsDead(), p.ExitedAfterDisconnect())
		for _, stop := range []func(){
			p.OnOnline(func(*cluster.Process) {}), p.OnListening(func(*cluster.Process, net.Addr) {}),
			p.OnDisconnect(func(*cluster.Process) {}), p.OnExit(func(*cluster.Process, cluster.Exit) {}),
			p.OnError(func(*cluster.Process, error) {}), p.OnMessage(func(*cluster.Process, cluster.Message) {}),
		} {
			stop()
		}
		told := make(chan error, 1)
		check("Send", p.Send("hello", func(err error) { told <- err }), must)
		check("SendContext", p.SendContext(ctx, "hello"), must)
		var answer string
		check("Request", p.Request(ctx, "question", &answer), must)
		if must && answer != "yes" {
			check("Request", fmt.Errorf("answer %q", answer), must)
		}
		if !errors.Is(p.Ready(), cluster.ErrNotWorker) {
			check("Ready", errors.New("no error"), true)
		}
	}
	for _, stop := range []func(){
		cluster.OnFork(func(*cluster.Process) {}), cluster.OnOnline(func(*cluster.Process) {}),
		cluster.OnListening(func(*cluster.Process, net.Addr) {}), cluster.OnMessage(func(*cluster.Process, cluster.Message) {}),
		cluster.OnDisconnect(func(*cluster.Process) {}), cluster.OnDeath(func(*cluster.Process, cluster.Exit) {}),
		cluster.OnError(func(*cluster.Process, error) {}), cluster.Handle("no", func(*cluster.Process, int) {}),
		cluster.Respond("no", func(*cluster.Process, int) (int, error) { return 0, nil }),
		cluster.OnShutdown(func(context.Context) error { return nil }),
	} {
		stop()
	}
	check("SetupMaster", cluster.SetupMaster(cluster.Settings()), true)
	check("AutoFork", cluster.AutoFork(), true)
	cluster.Context()
	cluster.Workers()
	cluster.EachWorker(func(p *cluster.Process) { p.State() })
	use(w, alive)

	other, forkErr := cluster.Fork()
	check("Fork", forkErr, true)
	if forkErr == nil {
		use(other, true)
	}
	ln, listenErr := cluster.Listen("tcp", "127.0.0.1:0")
	check("Listen", listenErr, true)
	if listenErr == nil {
		ln.Close()
	}
	conn, listenErr := cluster.ListenPacket("udp", "127.0.0.1:0")
	if !clustertest.System.SharedUDP && errors.Is(listenErr, errors.ErrUnsupported) {
		listenErr = nil
	} else if listenErr == nil {
		conn.Close()
	}
	check("ListenPacket", listenErr, true)
	check("Disconnect of the other", other.Disconnect(ctx), true)
	check("Disconnect of the worker", w.Disconnect(ctx), true)
	check("Kill", w.Kill(), false)
	check("Disconnect", cluster.Disconnect(ctx), true)
	check("Fork again", func() error { _, err := cluster.Fork(); return err }(), true)
	check("Disconnect again", cluster.Disconnect(ctx), true)
	return err
}

// TestReentrancy: every callback can make every call of the package. Those that
// wait, wait for processes and never for the callback that they are made in.
func TestReentrancy(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	type process = *cluster.Process
	// Each registers body for one kind of callback. Where no event kills the
	// worker, the test does.
	for _, kind := range []struct {
		name     string
		alive    bool // w is up in the callback
		register func(body func(process)) (stop func())
	}{
		{"OnFork", true, cluster.OnFork},
		{"OnOnline", true, cluster.OnOnline},
		{"OnListening", true, func(body func(process)) func() {
			return cluster.OnListening(func(w process, _ net.Addr) { body(w) })
		}},
		{"OnMessage", true, func(body func(process)) func() {
			return cluster.OnMessage(func(w process, _ cluster.Message) { body(w) })
		}},
		{"Handle", true, func(body func(process)) func() {
			return cluster.Handle("handled", func(w process, _ numbered) { body(w) })
		}},
		{"OnError", true, func(body func(process)) func() {
			stop := cluster.Handle("handled", func(process, numbered) {})
			stopError := cluster.OnError(func(w process, _ error) { body(w) })
			return func() { stop(); stopError() }
		}},
		{"OnRequest", true, func(body func(process)) func() {
			return cluster.OnRequest(func(w process, _ cluster.Message) (any, error) { body(w); return nil, nil })
		}},
		{"Respond", true, func(body func(process)) func() {
			return cluster.Respond("respond", func(w process, _ map[string]any) (any, error) { body(w); return nil, nil })
		}},
		{"OnDisconnect", false, cluster.OnDisconnect},
		{"OnDeath", false, func(body func(process)) func() {
			return cluster.OnDeath(func(w process, _ cluster.Exit) { body(w) })
		}},
		{"received", true, func(body func(process)) func() {
			return cluster.OnFork(func(w process) { w.Send("x", func(error) { body(w) }) })
		}},
		{"of the worker", true, func(body func(process)) func() {
			return cluster.OnFork(func(w process) { w.OnListening(func(w process, _ net.Addr) { body(w) }) })
		}},
		{"AllowListen", true, func(body func(process)) func() {
			o := cluster.Settings()
			o.AllowListen = func(w process, _, _ string) error { body(w); return nil }
			cluster.SetupMaster(o)
			return func() {}
		}},
	} {
		t.Run(kind.name, func(t *testing.T) {
			clustertest.WithMaster(t, provoker, cluster.Options{})
			done := make(chan error, 1)
			var once sync.Once
			t.Cleanup(kind.register(func(w process) {
				once.Do(func() { done <- everyCall(w, kind.alive) })
			}))
			w := clustertest.Fork(t)
			if !kind.alive {
				require.NoError(t, w.SendContext(clustertest.Within(t, clustertest.Patience), "it is up"))
				require.NoError(t, w.OSProcess().Kill())
			}
			require.NoError(t, clustertest.Await(t, done, "end of the callback"))
			require.Empty(t, cluster.Workers())
		})
	}
}

// reentrant makes, in a callback of the kind that the environment names, every
// call that a worker has, and prints what came of it.
var reentrant = clustertest.Program("reentrant", func() {
	kind := os.Getenv("REENTRANT")
	var once sync.Once
	body := func() {
		once.Do(func() { fmt.Println("result", everyWorkerCall(kind)) })
	}
	switch kind {
	case "OnMessage":
		cluster.OnMessage(func(*cluster.Process, cluster.Message) { body() })
	case "of the worker":
		cluster.Worker.OnMessage(func(*cluster.Process, cluster.Message) { body() })
	case "Handle":
		cluster.Handle("handled", func(*cluster.Process, numbered) { body() })
	case "OnError":
		cluster.Handle("handled", func(*cluster.Process, []int) {})
		cluster.OnError(func(*cluster.Process, error) { body() })
	case "OnRequest":
		cluster.OnRequest(func(*cluster.Process, cluster.Message) (any, error) { body(); return nil, nil })
	case "Respond":
		cluster.Respond("respond", func(*cluster.Process, map[string]any) (any, error) { body(); return nil, nil })
	case "received":
		cluster.Worker.Send("x", func(error) { body() })
	case "OnShutdown":
		cluster.OnShutdown(func(context.Context) error { body(); return nil })
	case "OnDisconnect":
		cluster.OnDisconnect(func(*cluster.Process) { body() })
	}
	cluster.Worker.Send("ready")
	select {}
})

// everyWorkerCall makes every call that a worker has.
func everyWorkerCall(kind string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), clustertest.Patience)
	defer cancel()
	w := cluster.Worker
	check := func(what string, e, want error) {
		if !errors.Is(e, want) {
			err = errors.Join(err, fmt.Errorf("%s: %v", what, e))
		}
	}
	var open error // what a call over the channel returns
	if kind == "OnDisconnect" {
		open = cluster.ErrClosed
	}
	for _, stop := range []func(){
		cluster.OnMessage(func(*cluster.Process, cluster.Message) {}), w.OnMessage(func(*cluster.Process, cluster.Message) {}),
		cluster.OnDisconnect(func(*cluster.Process) {}), cluster.Handle("no", func(*cluster.Process, int) {}),
		cluster.OnRequest(func(*cluster.Process, cluster.Message) (any, error) { return nil, nil }),
	} {
		stop()
	}
	_ = fmt.Sprint(w.ID(), w.Slot(), w.PID(), w.State(), w.IsConnected(), w.IsDead(), w.ExitedAfterDisconnect(), cluster.Settings())
	check("Send", w.Send("hello", func(error) {}), open)
	check("SendContext", w.SendContext(ctx, "hello"), open)
	check("Request", w.Request(ctx, "question", nil), open)
	check("Ready", w.Ready(), open)
	check("AutoFork", cluster.AutoFork(), nil)
	_, forkErr := cluster.Fork()
	check("Fork", forkErr, cluster.ErrNotMaster)
	check("Run", cluster.Run(ctx), cluster.ErrNotMaster)
	check("Disconnect of all", cluster.Disconnect(ctx), cluster.ErrNotMaster)
	switch kind {
	case "OnDisconnect":
		check("Disconnect", w.Disconnect(ctx), nil)
	case "OnShutdown":
		// The drain is under way: Listen waits for its end, and Disconnect would.
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		_, listenErr := cluster.ListenConfig{}.Listen(short, "tcp", "127.0.0.1:0")
		check("Listen", listenErr, context.DeadlineExceeded)
		check("Disconnect", w.Disconnect(short), context.DeadlineExceeded)
	case "OnRequest", "Respond":
		// The drain waits for the answer, which waits for this.
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		check("Disconnect", w.Disconnect(short), context.DeadlineExceeded)
	default:
		ln, listenErr := cluster.Listen("tcp", "127.0.0.1:0")
		check("Listen", listenErr, nil)
		if listenErr == nil {
			ln.Close()
		}
		check("Disconnect", w.Disconnect(ctx), nil)
	}
	return err
}

// TestReentrancyInAWorker: a callback in a worker may call anything too. The drain waits for
// requests that are being answered and for hooks, and for no other callback.
func TestReentrancyInAWorker(t *testing.T) {
	for _, kind := range []string{"OnMessage", "of the worker", "Handle", "OnError", "OnRequest", "Respond", "received", "OnShutdown", "OnDisconnect"} {
		t.Run(kind, func(t *testing.T) {
			out := clustertest.NewLineWriter()
			clustertest.WithMaster(t, reentrant, cluster.Options{Output: out.Both, Env: []string{"REENTRANT=" + kind}})
			t.Cleanup(cluster.OnRequest(func(*cluster.Process, cluster.Message) (any, error) { return "yes", nil }))
			dead, said := clustertest.Deaths(t), make(chan struct{}, 100)
			t.Cleanup(cluster.OnMessage(func(*cluster.Process, cluster.Message) { said <- struct{}{} }))
			w := clustertest.Fork(t)
			clustertest.Await(t, said, "message")
			require.NoError(t, w.Send("message"))
			require.NoError(t, w.Send(map[string]any{"cmd": "handled", "n": 1}))
			asked := make(chan error, 1)
			if kind == "OnRequest" || kind == "Respond" {
				go func() {
					asked <- w.Request(clustertest.Within(t, clustertest.Patience), map[string]any{"cmd": "respond"}, nil)
				}()
				require.NoError(t, clustertest.Await(t, asked, "answer"))
			}
			if kind == "OnShutdown" || kind == "OnDisconnect" {
				require.NoError(t, w.Disconnect(clustertest.Within(t, clustertest.Patience)))
			}
			require.Equal(t, "result <nil>", clustertest.Await(t, out.Lines, "result"))
			d := clustertest.Await(t, dead, "death")
			require.Zero(t, d.Exit.Code, "%v", d.Exit)
			require.True(t, d.Exit.Voluntary)
		})
	}
}

// TestRunInACallback: Run can be called from a callback; the end that it waits
// for does not wait for the callback, but for a moment.
func TestRunInACallback(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	clustertest.WithMaster(t, provoker, cluster.Options{})
	done := make(chan error, 1)
	var once sync.Once
	t.Cleanup(cluster.OnOnline(func(*cluster.Process) {
		once.Do(func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			done <- cluster.Run(ctx)
		})
	}))
	clustertest.Fork(t)
	require.NoError(t, clustertest.Await(t, done, "end of Run"))
}

// leaver ends the goroutines of its own callbacks.
var leaver = clustertest.Program("leaver", func() {
	cluster.Respond("leave", func(*cluster.Process, any) (int, error) {
		runtime.Goexit()
		return 0, nil
	})
	cluster.Respond("encode", func(*cluster.Process, any) (leavesEncoder, error) { return leavesEncoder{}, nil })
	cluster.Respond("listen", func(*cluster.Process, any) (string, error) {
		_, err := cluster.Listen("tcp", "127.0.0.1:0")
		return fmt.Sprint(err), nil
	})
	cluster.Respond("ask", func(w *cluster.Process, _ any) (string, error) {
		return fmt.Sprint(w.Request(context.Background(), talk{Cmd: "leave"}, nil)), nil
	})
	cluster.OnMessage(func(w *cluster.Process, m cluster.Message) {
		defer runtime.Goexit()
		clustertest.Must(w.Send(m))
	})
	cluster.OnCheck(func(context.Context) error {
		runtime.Goexit()
		return nil
	})
	cluster.OnShutdown(func(context.Context) error { return cluster.Worker.Send("shutdown") })
	cluster.OnShutdown(func(context.Context) error {
		runtime.Goexit()
		return nil
	})
	select {}
})

// leavesEncoder is an answer that cannot be written.
type leavesEncoder struct{}

func (leavesEncoder) MarshalJSON() ([]byte, error) {
	runtime.Goexit()
	return nil, nil
}

// TestGoexitEverywhere: whatever callback ends its goroutine, on either side, what was
// to follow follows, and who waits for it gets an error.
func TestGoexitEverywhere(t *testing.T) {
	clustertest.WithMaster(t, leaver, cluster.Options{
		AllowListen: func(*cluster.Process, string, string) error {
			runtime.Goexit()
			return nil
		},
		Watchdog: cluster.Watchdog{Interval: 20 * time.Millisecond},
	})
	leave := func(*cluster.Process) { runtime.Goexit() }
	t.Cleanup(cluster.OnFork(leave))
	t.Cleanup(cluster.OnOnline(leave))
	t.Cleanup(cluster.OnDisconnect(leave))
	t.Cleanup(cluster.OnDeath(func(*cluster.Process, cluster.Exit) { runtime.Goexit() }))
	got, checks := make(chan string, 100), make(chan string, 1000)
	t.Cleanup(cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) {
		got <- m.String()
		runtime.Goexit()
	}))
	t.Cleanup(cluster.OnError(func(_ *cluster.Process, err error) {
		if strings.Contains(err.Error(), "runtime.Goexit") && !strings.Contains(err.Error(), "AllowListen") {
			checks <- err.Error()
		}
		runtime.Goexit()
	}))
	t.Cleanup(cluster.Respond("leave", func(*cluster.Process, any) (int, error) {
		runtime.Goexit()
		return 0, nil
	}))
	dead := clustertest.Deaths(t)

	w := forkOnline(t)
	ctx := clustertest.Within(t, clustertest.Patience)
	clustertest.Await(t, checks, "failed check")
	require.ErrorContains(t, w.Request(ctx, talk{Cmd: "leave"}, nil), "did not return")
	require.ErrorContains(t, w.Request(ctx, talk{Cmd: "encode"}, nil), "did not return")
	var text string
	require.NoError(t, w.Request(ctx, talk{Cmd: "ask"}, &text))
	require.Contains(t, text, "did not return")
	require.NoError(t, w.Request(ctx, talk{Cmd: "listen"}, &text))
	require.Contains(t, text, "refused by AllowListen")
	require.NoError(t, w.Send("a"))
	require.NoError(t, w.Send("b", func(error) { runtime.Goexit() }))
	require.Equal(t, `"a"`, clustertest.Await(t, got, "message"))
	require.Equal(t, `"b"`, clustertest.Await(t, got, "message"))
	require.NoError(t, w.Disconnect(ctx))
	require.Equal(t, `"shutdown"`, clustertest.Await(t, got, "message"))
	require.Same(t, w, clustertest.Await(t, dead, "death").Worker)
}

// TestGoexitInOutput fails that fork, and no later one.
func TestGoexitInOutput(t *testing.T) {
	leaves := true
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Output: func(*cluster.Process) (io.Writer, io.Writer) {
		if leaves {
			leaves = false
			runtime.Goexit()
		}
		return nil, nil
	}})
	_, err := cluster.Fork()
	require.ErrorContains(t, err, "Options.Output")
	clustertest.Fork(t)
}
