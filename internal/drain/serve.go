package drain

import (
	"context"
	"net"
	"net/http"
	"reflect"
	"slices"
	"sync"
)

// Server is what Serve can drain; *http.Server is one.
type Server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// Serve serves the connections of ln with srv until the drain has come to its
// end, and then returns nil. Any other return is srv's own error.
func (d *Drain) Serve(ln net.Listener, srv Server) error {
	leave := d.servers.enter(d.Tracker, ln, srv, false)
	return d.serve(ln, srv, leave)
}

// ServeFunc is Serve for a server that is two functions. Its connections tell their
// clients themselves that they end: see package goodbye.
func (d *Drain) ServeFunc(ln net.Listener, serve func(net.Listener) error, shutdown func(context.Context) error) error {
	srv := &funcs{serve, shutdown}
	leave := d.servers.enter(d.Tracker, ln, srv, true)
	return d.serve(ln, srv, leave)
}

// funcs is a server of two functions.
type funcs struct {
	serve    func(net.Listener) error
	shutdown func(context.Context) error
}

func (f *funcs) Serve(ln net.Listener) error { return f.serve(ln) }

func (f *funcs) Shutdown(ctx context.Context) error { return f.shutdown(ctx) }

func (d *Drain) serve(ln net.Listener, srv Server, leave func()) error {
	err := srv.Serve(ln)
	if d.Draining() {
		<-d.served
		return nil
	}
	leave()
	return err
}

// servers are the Serve calls of a worker.
type servers struct {
	mu   sync.Mutex
	list []*serving
	told bool // tell was called
}

// serving is one Serve call.
type serving struct {
	srv  Server
	http *http.Server // that srv is, or embeds; nil if there is none
	ln   *Listener    // nil if it is not of this package
}

// enter registers a Serve call until leave. An *http.Server gets a handler that
// tells clients to close, and a hook that reports what its connections are doing. With
// tells, the connections of ln say themselves that they end: see package goodbye.
func (s *servers) enter(t *Tracker, ln net.Listener, srv Server, tells bool) (leave func()) {
	call := &serving{srv: srv, http: httpServer(srv)}
	s.mu.Lock()
	if h := call.http; h != nil {
		if _, wrapped := h.Handler.(*lameHandler); !wrapped {
			h.Handler = &lameHandler{h.Handler, t}
			h.ConnState = reportState(h.ConnState)
		}
	}
	if l, ok := ln.(*Listener); ok {
		call.ln = l
		l.foreign.Store(call.http == nil)
	}
	if l := listenerOf(ln); l != nil && tells {
		l.tells.Store(true)
	}
	s.list = append(s.list, call)
	told := s.told
	s.mu.Unlock()
	if told {
		call.tell()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.list = slices.DeleteFunc(s.list, func(c *serving) bool { return c == call })
	}
}

// listenerOf finds the Listener that ln is or wraps. Most wrappers, which limit
// connections or read a proxy's header, have a field named Listener. It returns nil if
// there is no Listener of this package.
func listenerOf(ln net.Listener) *Listener {
	for {
		if l, ok := ln.(*Listener); ok {
			return l
		}
		v := reflect.Indirect(reflect.ValueOf(ln))
		if v.Kind() != reflect.Struct {
			return nil
		}
		f, ok := v.Type().FieldByName("Listener")
		if !ok || len(f.Index) != 1 || f.Type != reflect.TypeFor[net.Listener]() {
			return nil
		}
		ln, _ = v.FieldByIndex(f.Index).Interface().(net.Listener)
	}
}

// any reports whether some Serve has not returned.
func (s *servers) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.list) > 0
}

// tell tells all servers, and those that enter from now on, that a drain has begun.
func (s *servers) tell() {
	s.mu.Lock()
	s.told = true
	list := slices.Clone(s.list)
	s.mu.Unlock()
	for _, c := range list {
		c.tell()
	}
}

// tell calls the functions of RegisterOnShutdown, as Shutdown does. It calls them when the
// drain begins: they end long requests, and could not if they waited for those to end.
func (c *serving) tell() {
	if c.http == nil {
		return
	}
	for _, fn := range takeOnShutdown(c.http) {
		go fn()
	}
}

// shutdown calls Shutdown of all servers, and then Close of an *http.Server
// whose handlers do not end. The channel is closed when all have returned.
func (s *servers) shutdown(ctx context.Context) <-chan struct{} {
	s.mu.Lock()
	list := slices.Clone(s.list)
	s.mu.Unlock()
	done := make(chan struct{})
	var all sync.WaitGroup
	for _, c := range list {
		all.Go(func() { c.shutdown(ctx) })
	}
	go func() {
		all.Wait()
		close(done)
	}()
	return done
}

func (c *serving) shutdown(ctx context.Context) {
	err := c.srv.Shutdown(ctx)
	if c.ln != nil {
		c.ln.over.Store(c.ln.foreign.Load())
	}
	if c.http != nil && err != nil {
		c.http.Close()
	}
}

// reportState is a ConnState hook that tells the drain what each connection is
// doing, and then calls next.
func reportState(next func(net.Conn, http.ConnState)) func(net.Conn, http.ConnState) {
	return func(c net.Conn, state http.ConnState) {
		if tracked := connOf(c); tracked != nil {
			tracked.enter(state)
		}
		if next != nil {
			next(c, state)
		}
	}
}

// lameHandler says "Connection: close" once the drain has begun. HTTP/2 makes a
// GOAWAY of it.
type lameHandler struct {
	h       http.Handler
	tracker *Tracker
}

func (l *lameHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if l.tracker.Draining() {
		w.Header().Set("Connection", "close")
	}
	h := l.h
	if h == nil {
		h = http.DefaultServeMux
	}
	h.ServeHTTP(w, r)
}
