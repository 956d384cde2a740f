package drain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// worker is a Drain whose hooks note when they are called.
type worker struct {
	*Drain
	start time.Time
	work  chan struct{} // closed: no request is in flight
	exits chan int

	accepts atomic.Int32 // how often the first Accept was told
	filled  atomic.Int32 // how often it was told that there is none
	rooms   atomic.Int32 // and that there is some again

	mu    sync.Mutex
	notes []string
}

func newWorker() *worker { return newWorkerWith(Limits{Ever: 2}) }

func newWorkerWith(limits Limits) *worker {
	w := &worker{start: time.Now(), work: make(chan struct{}), exits: make(chan int, 10)}
	w.Drain = New(7, limits, Hooks{
		Begun:     func() { w.note("begun, draining %t", w.Draining()) },
		Announce:  func(why Reason) { w.note("announce %d, draining %t", why, w.Draining()) },
		Full:      func() { w.note("full") },
		Filled:    func() { w.filled.Add(1) },
		Room:      func() { w.rooms.Add(1) },
		Accepts:   func() { w.accepts.Add(1) },
		Work:      func() { <-w.work; w.note("work") },
		Flush:     func(context.Context) { w.note("flush") },
		Close:     func() { w.note("close") },
		Callbacks: func(<-chan struct{}) { w.note("callbacks") },
		Logger:    slog.Default,
		Exit:      func(code int) { w.note("exit"); w.exits <- code },
	})
	return w
}

func (w *worker) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notes = append(w.notes, fmt.Sprintf("%v ", time.Since(w.start))+fmt.Sprintf(format, args...))
}

// ended waits for the end of the drain, and returns what was noted.
func (w *worker) ended(t *testing.T) []string {
	require.Zero(t, <-w.exits)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.notes
}

// source is a listening socket in memory. All that is done to it ends at once.
type source struct {
	conns  chan net.Conn
	closed chan struct{}

	mu      sync.Mutex
	expired bool          // a deadline has passed
	changed chan struct{} // closed when another one is set
	once    sync.Once     // closes
}

func newSource() *source {
	return &source{conns: make(chan net.Conn), closed: make(chan struct{}), changed: make(chan struct{})}
}

func (s *source) Addr() net.Addr                        { return &net.TCPAddr{Port: 80} }
func (s *source) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }
func (s *source) Close() error                          { s.once.Do(func() { close(s.closed) }); return nil }
func (s *source) connect() (client net.Conn) {
	server, client := net.Pipe()
	s.conns <- server
	return client
}

func (s *source) SetDeadline(d time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired = !d.IsZero() && !d.After(time.Now())
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

func (s *source) Accept() (net.Conn, error) {
	for {
		s.mu.Lock()
		expired, changed := s.expired, s.changed
		s.mu.Unlock()
		if expired {
			return nil, os.ErrDeadlineExceeded
		}
		select {
		case c := <-s.conns:
			return c, nil
		case <-changed:
		case <-s.closed:
			return nil, net.ErrClosed
		}
	}
}

// echoes serves connections by sending back what they send.
type echoes struct {
	w     *worker
	stop  chan struct{}
	conns chan net.Conn
}

func newEchoes(w *worker) *echoes {
	return &echoes{w, make(chan struct{}), make(chan net.Conn, 10)}
}

func (e *echoes) Serve(ln net.Listener) error {
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			e.conns <- c
			go echo(c)
		}
	}()
	<-e.stop
	return errors.New("shut down")
}

func echo(c net.Conn) {
	defer c.Close()
	b := make([]byte, 10)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		c.Write(b[:n])
	}
}

func (e *echoes) Shutdown(context.Context) error {
	e.w.note("shutdown")
	close(e.stop)
	for len(e.conns) > 0 {
		(<-e.conns).Close()
	}
	return nil
}

// TestSteps: a drain takes its steps in the order that is documented, and as soon
// as it can.
func TestSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker()
		w.OnShutdown.Add(func(context.Context) error { w.note("first hook"); return errors.New("logged") })
		w.OnShutdown.Add(func(context.Context) error { w.note("second hook"); return nil })
		w.OnShutdown.Add(func(context.Context) error { w.note("never"); return nil })()
		w.OwnFile(func() { w.note("own file") })
		w.OwnFile(func() { w.note("file") })()
		src := newSource()
		ln := w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() { w.note("release") })
		defer ln.Close()
		served := make(chan error, 1)
		go func() { served <- w.Serve(ln, newEchoes(w)) }()
		client := src.connect()
		require.NoError(t, w.Hold(t.Context()))

		time.Sleep(time.Minute)
		require.NoError(t, w.Context().Err())
		w.Begin(ByOther, time.Hour)
		w.Begin(ByOrphan, 2*time.Hour) // changes nothing
		require.Error(t, w.Context().Err())
		_, err := client.Read(make([]byte, 1))
		require.Error(t, err, "its server has closed it")
		time.Sleep(time.Minute)
		close(w.work)
		<-w.Closed()
		require.NoError(t, <-served)
		require.Equal(t, []string{
			"0s file",
			"1m0s begun, draining false",
			"1m0s announce 2, draining true",
			"1m3s shutdown",
			"2m3s work",
			"2m3s second hook",
			"2m3s first hook",
			"2m3s own file",
			"2m3s flush",
			"2m3s close",
			"2m3s callbacks",
			"2m5s exit",
		}, w.ended(t))
	})
}

// TestNothingInFlight: a drain of nothing ends at once.
func TestNothingInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker()
		close(w.work)
		w.Begin(BySelf, time.Hour)
		w.ended(t)
		require.Zero(t, time.Since(w.start))
	})
}

// TestTimeout: whatever does not end, the process does, and what comes after gets
// its turn if there is time.
func TestTimeout(t *testing.T) {
	for name, test := range map[string]struct {
		timeout []time.Duration
		hooks   bool // hang
		want    []string
	}{
		"work":      {[]time.Duration{time.Minute}, false, []string{"58s hook", "58s flush", "58s close", "58s callbacks", "58s exit"}},
		"short":     {[]time.Duration{2 * time.Second}, false, []string{"1s hook", "1s flush", "1s close", "1s callbacks", "1s exit"}},
		"shortened": {[]time.Duration{time.Hour, time.Minute, time.Hour}, false, []string{"58s hook", "58s flush", "58s close", "58s callbacks", "58s exit"}},
		"hooks":     {[]time.Duration{time.Minute}, true, []string{"58s hook", "59s exit"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorker()
				end := make(chan struct{})
				defer close(end)
				defer close(w.work)
				w.OnShutdown.Add(func(context.Context) error {
					w.note("hook")
					if test.hooks {
						<-end
					}
					return nil
				})
				for _, timeout := range test.timeout {
					w.Begin(ByMaster, timeout)
				}
				require.Subset(t, w.ended(t), test.want)
			})
		})
	}
}

// TestHold: in a drain it waits, and only its own context ends that.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker()
		close(w.work)
		w.Begin(ByMaster, time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, w.Hold(ctx), context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(w.start))
		w.ended(t)
	})
}

// TestLameDuck: an idle connection is kept for a while, and longer if its client
// sends again; it ends when it has been idle for that time.
func TestLameDuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker()
		close(w.work)
		src := newSource()
		ln := w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() {})
		server := newEchoes(w)
		go server.Serve(ln)
		defer close(server.stop)
		defer ln.Close()
		client := src.connect()
		w.Begin(ByMaster, time.Hour)
		for range 20 {
			time.Sleep(lameDuck - 2*lamePoll)
			_, err := client.Write([]byte("again"))
			require.NoError(t, err)
			_, err = client.Read(make([]byte, 10))
			require.NoError(t, err)
		}
		last := time.Now()
		_, err := client.Read(make([]byte, 10))
		require.Error(t, err)
		require.InDelta(t, lameDuck, time.Since(last), float64(2*lamePoll))
		w.ended(t)
	})
}
