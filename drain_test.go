package cluster_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// lines receives what workers Send as text.
func lines(t *testing.T) *clustertest.Recorder {
	t.Helper()
	rec := clustertest.NewRecorder()
	t.Cleanup(cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) {
		var text string
		if m.Decode(&text) == nil {
			rec.Add("%s", text)
		}
	}))
	return rec
}

func say(format string, args ...any) { cluster.Worker.Send(fmt.Sprintf(format, args...)) }

// duties is a worker with a request to answer, hooks to run, and a callback that
// never returns.
var duties = clustertest.Program("duties", func() {
	release := make(chan struct{})
	cluster.Respond("work", func(w *cluster.Process, _ clustertest.Order) (string, error) {
		say("work begun")
		<-cluster.Context().Done()
		<-release
		say("work done")
		return "worked", nil
	})
	for i := range 3 {
		cluster.OnShutdown(func(ctx context.Context) error {
			err := cluster.Worker.SendContext(ctx, fmt.Sprintf("hook %d: cancelled %v, %v", i, ctx.Err(), cluster.Worker.State()))
			if err != nil {
				return err
			}
			return errors.New("a hook's error is only logged")
		})
	}
	stop := cluster.OnShutdown(func(context.Context) error { say("unregistered"); return nil })
	stop()
	go func() {
		<-cluster.Context().Done()
		say("stopping")
		close(release)
	}()
	cluster.Handle("hang", func(w *cluster.Process, _ clustertest.Order) {
		say("hanging")
		select {}
	})
	select {}
})

// A drain waits for requests that are being answered and then runs the hooks,
// the latest first, which can still Send; it does not wait for the callback of a
// message.
func TestDrainDuties(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	clustertest.WithMaster(t, duties, cluster.Options{ShutdownTimeout: 20 * time.Second})
	rec, dead := lines(t), clustertest.Deaths(t)
	w := clustertest.Fork(t)
	answered := make(chan error, 1)
	var answer string
	go func() { answered <- w.Request(t.Context(), clustertest.Order{Cmd: "work"}, &answer) }()
	rec.Until(t, "work begun")
	require.NoError(t, w.Send(clustertest.Order{Cmd: "hang"}))
	rec.Until(t, "hanging")
	begin := time.Now()
	require.NoError(t, w.Disconnect(t.Context()))
	require.Less(t, time.Since(begin), 15*time.Second)
	require.Equal(t, 0, clustertest.Await(t, dead, "death").Exit.Code)
	require.NoError(t, clustertest.Await(t, answered, "answer"))
	require.Equal(t, "worked", answer)
	require.Equal(t, []string{
		"work begun", "hanging", "stopping", "work done",
		"hook 2: cancelled <nil>, draining",
		"hook 1: cancelled <nil>, draining",
		"hook 0: cancelled <nil>, draining",
	}, rec.All())
}

// stubborn is a worker with a hook that waits for its context.
var stubborn = clustertest.Program("stubborn", func() {
	cluster.OnShutdown(func(ctx context.Context) error {
		<-ctx.Done()
		select {}
	})
	say("up")
	select {}
})

// A hook that does not return is told, and then left: the worker exits with 0
// within ShutdownTimeout.
func TestDrainStubbornHook(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	clustertest.WithMaster(t, stubborn, cluster.Options{ShutdownTimeout: 2 * time.Second})
	rec, dead := lines(t), clustertest.Deaths(t)
	w := clustertest.Fork(t)
	rec.Until(t, "up")
	require.NoError(t, w.Disconnect(t.Context()))
	e := clustertest.Await(t, dead, "death").Exit
	require.Equal(t, 0, e.Code)
	require.Nil(t, e.Signal)
}

type msgReader interface {
	ReadMsgUDP(b, oob []byte) (n, oobn, flags int, from *net.UDPAddr, err error)
}

// waiting is a worker that tries during the drain what has to wait then.
var waiting = clustertest.Program("waiting", func() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	var pc net.PacketConn
	peers := make(chan net.Addr, 1)
	if clustertest.System.SharedUDP {
		pc, err = cluster.ListenPacket("udp", "127.0.0.1:0")
		clustertest.Must(err)
		b := make([]byte, 100)
		go func() {
			n, _, _, peer, err := pc.(msgReader).ReadMsgUDP(b, nil) // as QUIC reads
			clustertest.Must(err)
			say("read %s", b[:n])
			peers <- peer
			_, _, err = pc.ReadFrom(b)
			say("ReadFrom returned: %v", err)
		}()
	}
	go func() {
		_, err := ln.Accept()
		say("Accept returned: %v", err)
	}()
	cluster.OnShutdown(func(context.Context) error {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_, err := cluster.ListenConfig{}.Listen(ctx, "tcp", "127.0.0.1:0")
		say("Listen waits: %v", errors.Is(err, context.DeadlineExceeded))
		_, err = cluster.ListenConfig{Exclusive: true}.ListenPacket(ctx, "udp", "127.0.0.1:0")
		say("Exclusive ListenPacket waits: %v", errors.Is(err, context.DeadlineExceeded))
		// Deadlines do not wake what waits for the end.
		ln.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Now())
		if pc != nil {
			pc.SetReadDeadline(time.Now())
			pc.SetDeadline(time.Now().Add(time.Hour))
			_, err = pc.WriteTo([]byte("pong"), <-peers)
			say("WriteTo: %v", err)
		}
		closed := make(chan error)
		go func() {
			_, err := ln.Accept()
			closed <- err
		}()
		ln.Close()
		say("Accept of a closed listener: %v", errors.Is(<-closed, net.ErrClosed))
		return nil
	})
	if pc != nil {
		say("up %s", pc.LocalAddr())
	} else {
		say("up")
	}
	select {}
})

// During a drain Accept, Listen and a packet socket's ReadFrom wait; writes work.
func TestDrainWaits(t *testing.T) {
	clustertest.WithMaster(t, waiting, cluster.Options{})
	rec, dead := lines(t), clustertest.Deaths(t)
	w := clustertest.Fork(t)
	up := rec.Until(t, "up")
	var c net.Conn
	if clustertest.System.SharedUDP {
		var err error
		c, err = net.Dial("udp", up[3:])
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Write([]byte("ping"))
		require.NoError(t, err)
		rec.Until(t, "read ping")
	}
	require.NoError(t, w.Disconnect(t.Context()))
	require.Equal(t, 0, clustertest.Await(t, dead, "death").Exit.Code)
	lines := rec.All()[1:]
	if clustertest.System.SharedUDP {
		c.SetReadDeadline(time.Now().Add(clustertest.Patience))
		b := make([]byte, 100)
		n, err := c.Read(b)
		require.NoError(t, err)
		require.Equal(t, "pong", string(b[:n]))
		require.Contains(t, lines, "WriteTo: <nil>")
	}
	require.Contains(t, lines, "Listen waits: true")
	require.Contains(t, lines, "Exclusive ListenPacket waits: true")
	require.Contains(t, lines, "Accept of a closed listener: true")
	for _, line := range lines {
		require.NotContains(t, line, "ReadFrom returned")
	}
}

// late is a worker whose main is slow: it is told to stop before it listens.
var late = clustertest.Program("late", func() {
	say("up")
	<-cluster.Context().Done()
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(ln.Accept())
})

// A worker stopped at any moment of its start exits with 0: it is never left
// with an error from a Listen under way.
func TestDrainDuringStart(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	clustertest.WithMaster(t, idle, cluster.Options{})
	dead := clustertest.Deaths(t)
	for range 20 {
		w := clustertest.Fork(t)
		require.NoError(t, w.Disconnect(t.Context()))
		e := clustertest.Await(t, dead, "death").Exit
		require.Equal(t, 0, e.Code, e)
	}
}

// lineServer is a Server that is no *http.Server: it answers each line.
type lineServer struct {
	ln   net.Listener
	mu   sync.Mutex
	over bool
	busy sync.WaitGroup
}

func (s *lineServer) Serve(ln net.Listener) error {
	s.mu.Lock()
	s.ln = ln
	s.mu.Unlock()
	for {
		c, err := ln.Accept()
		s.mu.Lock()
		over := s.over
		s.mu.Unlock()
		if over {
			return errors.New("shut down")
		}
		if err != nil {
			return err
		}
		s.busy.Go(func() {
			defer c.Close()
			for in := bufio.NewScanner(c); in.Scan(); {
				if in.Text() == "slow" {
					say("begun")
					<-cluster.Context().Done()
				}
				fmt.Fprintf(c, "%s, said worker %d\n", in.Text(), cluster.Worker.ID())
				if in.Text() == "slow" {
					return
				}
			}
		})
	}
}

// Shutdown waits for all connections that have said something.
func (s *lineServer) Shutdown(ctx context.Context) error {
	say("Shutdown")
	s.mu.Lock()
	s.over = true
	s.ln.Close()
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.busy.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var lineServing = clustertest.Program("lineServing", func() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	say("up %s", ln.Addr())
	err = cluster.Serve(ln, new(lineServer))
	fmt.Fprintln(os.Stderr, "served", err)
	clustertest.Must(err)
})

// Serve drains any Server: it shuts it down, waits for it, and returns nil.
func TestServeOtherServer(t *testing.T) {
	clustertest.WithMaster(t, lineServing, cluster.Options{Output: muted})
	rec, dead := lines(t), clustertest.Deaths(t)
	w := clustertest.Fork(t)
	addr := rec.Until(t, "up")[3:]
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	in := bufio.NewReader(c)
	for _, word := range []string{"quick", "slow"} {
		_, err = fmt.Fprintln(c, word)
		require.NoError(t, err)
		if word == "slow" {
			rec.Until(t, "begun")
			go w.Disconnect(context.Background())
		}
		answer, err := in.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%s, said worker %d\n", word, w.ID()), answer)
	}
	e := clustertest.Await(t, dead, "death").Exit
	require.Equal(t, 0, e.Code)
	require.Contains(t, rec.All(), "Shutdown")
	_, err = in.ReadByte()
	require.ErrorIs(t, err, io.EOF)
}

// A client whose long answer began before the drain has not been told to close;
// with Serve, its next request is answered all the same.
func TestServeRequestAfterLongAnswer(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"serve", "listenAndServe"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			// A further request is taken in the first half of the drain's time: on
			// a busy machine the answer may take long.
			p, addr := startWeb(t, mode, timeoutEnv+"="+(2*clustertest.Patience).String())
			c, err := dialHTTP(addr)
			require.NoError(t, err)
			defer c.c.Close()
			done := make(chan fetched, 1)
			go func() {
				body, close, err := c.do("GET", "/stream", nil)
				if err == nil && close {
					err = errors.New("told to close")
				}
				done <- fetched{body, err}
			}()
			p.Expect("begun")
			p.Signal(syscall.SIGTERM)
			f := clustertest.Await(t, done, "answer")
			require.NoError(t, f.err)
			require.Len(t, f.body, fullBody)
			answer, close, err := c.do("POST", "/", make([]byte, 16<<10))
			require.NoError(t, err)
			require.Equal(t, "16384 bytes, error <nil>", answer)
			require.True(t, close)
			require.Equal(t, 0, p.Exit())
		})
	}
}

// An idle keep-alive connection is answered for a short time after the drain has
// begun, and then closed: with Serve each answer says so, and with http.Serve
// the connection ends when it is idle again.
func TestServeIdleConnection(t *testing.T) {
	t.Parallel()
	for _, mode := range webModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			for !testIdleConnections(t, mode) {
				t.Log("too late: once more")
			}
		})
	}
}

// idleTime is how long the drain keeps an idle connection.
const idleTime = time.Second

// testIdleConnections reports whether it was in time with its requests: on a busy
// machine the connections may be closed by then.
func testIdleConnections(t *testing.T, mode string) bool {
	p, addr := startWeb(t, mode)
	var conns []*client
	for range 4 {
		c, err := dialHTTP(addr)
		require.NoError(t, err)
		defer c.c.Close()
		_, close, err := c.do("GET", "/", nil)
		require.NoError(t, err)
		require.False(t, close)
		conns = append(conns, c)
	}
	begin := time.Now()
	p.Signal(syscall.SIGTERM)
	p.Expect("draining")
	p.Expect("draining")
	for _, c := range conns[:2] {
		_, close, err := c.do("GET", "/", nil)
		if err != nil && time.Since(begin) > idleTime {
			return false
		}
		require.NoError(t, err)
		require.Equal(t, mode != "naive", close)
	}
	for _, c := range conns {
		c.c.SetDeadline(time.Now().Add(clustertest.Patience))
		_, err := c.br.ReadByte()
		require.ErrorIs(t, err, io.EOF)
	}
	require.Equal(t, 0, p.Exit())
	require.Less(t, time.Since(begin), 15*time.Second)
	return true
}
