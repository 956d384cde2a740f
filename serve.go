package cluster

import (
	"context"
	"net"
	"net/http"
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
		return Worker.inside.drain.Serve(ln, srv)
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

// Context returns a context that is done when this process is asked to stop: in
// a worker when its drain begins, in the master when Run is told to end.
func Context() context.Context {
	if Worker != nil {
		return Worker.inside.drain.Context()
	}
	return std.runner.context()
}

// OnShutdown registers fn to run at the end of the drain: after what was in
// flight, before the channel closes, so that it can still Send. In the master
// it runs at the end of Run, when all workers are gone. Hooks run one after
// another, the latest registered first; ctx ends when the process is about to
// be ended. An error is logged.
func OnShutdown(fn func(context.Context) error) (stop func()) {
	if Worker != nil {
		return Worker.inside.drain.OnShutdown.Add(fn)
	}
	return std.runner.hooks.Add(fn)
}
