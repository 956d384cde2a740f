package admin

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/operator"
)

// workers are the workers as the master's HTTP client reaches them: each by a host of
// the name id<ID>, over streams.
type workers struct {
	core      operator.Core
	transport *http.Transport
}

// idleStream is how long a stream is kept for the next question.
const idleStream = 90 * time.Second

func newWorkers(core operator.Core) *workers {
	w := &workers{core: core}
	w.transport = &http.Transport{
		DialContext:            w.dial,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        idleStream,
		MaxResponseHeaderBytes: maxHeader,
	}
	return w
}

func hostOf(id int) string { return "id" + strconv.Itoa(id) }

// dial opens a stream to the worker that the host names.
func (w *workers) dial(_ context.Context, _, address string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address)
	id, err := strconv.Atoi(strings.TrimPrefix(host, "id"))
	if err != nil {
		return nil, err
	}
	return w.core.OpenStream(id)
}

func (w *workers) close() { w.transport.CloseIdleConnections() }

// pids are the processes that are workers.
func (w *workers) pids() map[int]bool {
	all := make(map[int]bool)
	for _, p := range cluster.Workers() {
		all[p.PID()] = true
	}
	return all
}

// answerMaster serves, in a worker, the connections that the master opens.
func (s *service) answerMaster() {
	ln := newStreamListener()
	srv := &http.Server{Handler: s.insideHandler(), ReadHeaderTimeout: readHeaderTimeout, ErrorLog: nowhere}
	go srv.Serve(ln)
	s.ends = append(s.ends, s.core.OnStream(ln.put), func() { srv.Close() }, s.flight.stop)
}

// insideHandler is what a worker answers to its master.
func (s *service) insideHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /debug/", s.debug)
	mux.Handle("POST "+symbolPath, s.debug)
	mux.Handle("GET /metrics", scraped(s.o.Metrics))
	mux.HandleFunc("GET /stacks", func(w http.ResponseWriter, _ *http.Request) { w.Write(stacks()) })
	mux.HandleFunc("POST /flight", s.flight.begin)
	mux.HandleFunc("GET /flight", s.flight.tell)
	return mux
}

// streamListener hands streams to an http.Server.
type streamListener struct {
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newStreamListener() *streamListener {
	l := &streamListener{conns: make(chan net.Conn), done: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.done) })
	return l
}

func (l *streamListener) put(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.done:
		c.Close()
	}
}

func (l *streamListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *streamListener) Close() error {
	l.close()
	return nil
}

func (l *streamListener) Addr() net.Addr { return &net.UnixAddr{Name: "@stream", Net: "unix"} }
