package cluster

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// Server is what Serve can drain; *http.Server is one.
type Server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// Serve serves the connections of ln with srv until the worker is drained, and
// then returns nil: nothing was lost. Any other return is srv's own error. After
// it main may go on, but the process ends by itself two seconds later.
//
// The drain of an *http.Server answers with "Connection: close" until no client
// has a connection that it could send on, before it calls Shutdown: once no
// request from before the drain is in flight, or half of the time is over. For
// that, Serve wraps srv.Handler and srv.ConnState.
//
// In a master that has forked, Serve does not serve: it is Run. In a process
// that is neither, it is srv.Serve.
func Serve(ln net.Listener, srv Server) error {
	switch {
	case Worker != nil:
		return Worker.inside.serve(ln, srv)
	case std.forked.Load():
		return std.run(context.Background())
	}
	return srv.Serve(ln)
}

// ListenAndServe listens on the TCP address and serves HTTP with h, or
// http.DefaultServeMux if h is nil, as [Listen] and [Serve] do. With
// [AutoFork] before it, it is all that a clustered server needs.
func ListenAndServe(address string, h http.Handler) error {
	if Worker == nil && std.forked.Load() {
		return std.run(context.Background())
	}
	ln, err := Listen("tcp", address)
	if err != nil {
		return err
	}
	defer ln.Close()
	return Serve(ln, &http.Server{Handler: h})
}

func (in *inside) serve(ln net.Listener, srv Server) error {
	leave := in.drain.served.enter(in, ln, srv)
	err := srv.Serve(ln)
	if in.draining() {
		<-in.drain.done
		return nil
	}
	leave()
	return err
}

// servers are the Serve calls of a worker.
type servers struct {
	mu   sync.Mutex
	list []*serving
}

// serving is one Serve call.
type serving struct {
	srv Server
	ln  *listener // nil if it is none of ours
}

// enter registers a Serve call until leave. An *http.Server gets a handler that
// tells clients to close.
func (s *servers) enter(in *inside, ln net.Listener, srv Server) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := &serving{srv: srv}
	h, isHTTP := srv.(*http.Server)
	if isHTTP {
		if _, wrapped := h.Handler.(*lameHandler); !wrapped {
			h.Handler = &lameHandler{h.Handler, in}
			h.ConnState = reportState(h.ConnState)
		}
	}
	if l, ok := ln.(*listener); ok {
		call.ln = l
		l.foreign.Store(!isHTTP)
	}
	s.list = append(s.list, call)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, c := range s.list {
			if c == call {
				s.list = append(s.list[:i], s.list[i+1:]...)
				return
			}
		}
	}
}

// reportState is a ConnState hook that tells the drain what each connection is
// doing, and then calls next.
func reportState(next func(net.Conn, http.ConnState)) func(net.Conn, http.ConnState) {
	return func(c net.Conn, state http.ConnState) {
		if t := trackOf(c); t != nil {
			t.enter(state)
		}
		if next != nil {
			next(c, state)
		}
	}
}

// any reports whether some Serve has not returned.
func (s *servers) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.list) > 0
}

// shutdown calls Shutdown of all servers, and then Close of an *http.Server
// whose handlers do not end. The channel is closed when all have returned.
func (s *servers) shutdown(ctx context.Context) <-chan struct{} {
	s.mu.Lock()
	list := append([]*serving(nil), s.list...)
	s.mu.Unlock()
	done := make(chan struct{})
	var all sync.WaitGroup
	for _, c := range list {
		all.Go(func() {
			err := c.srv.Shutdown(ctx)
			if c.ln != nil {
				c.ln.over.Store(c.ln.foreign.Load())
			}
			if h, ok := c.srv.(*http.Server); ok && err != nil {
				h.Close()
			}
		})
	}
	go func() {
		all.Wait()
		close(done)
	}()
	return done
}

// lameHandler says "Connection: close" once the drain has begun. HTTP/2 makes a
// GOAWAY of it.
type lameHandler struct {
	h  http.Handler
	in *inside
}

func (l *lameHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if l.in.draining() {
		w.Header().Set("Connection", "close")
	}
	h := l.h
	if h == nil {
		h = http.DefaultServeMux
	}
	h.ServeHTTP(w, r)
}
