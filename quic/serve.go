package quic

import (
	"context"
	"net"

	"github.com/go-cluster/cluster"
	"github.com/quic-go/quic-go/http3"
)

// Server is a server that Serve can drain, such as an *http3.Server.
type Server interface {
	ServeListener(ln http3.QUICListener) error
	Shutdown(ctx context.Context) error
}

// Serve serves the connections of ln with srv until the worker is drained, and then returns nil,
// as cluster.Serve does. In a drain new connections go to other workers. Connections that have
// begun their handshake here are served here. Then srv.Shutdown tells the clients (HTTP/3 has
// GOAWAY for that), and requests that are under way complete. If srv ends by itself, Serve
// returns its error.
//
// In a master that has forked, Serve does what cluster.Run does. In a process that is not a
// worker and has not forked, it is srv.ServeListener.
func Serve(ln *Listener, srv Server) error {
	return cluster.Serve(listenerOnly{ln}, &server{ln, srv})
}

// server makes a Server of package cluster of a Server.
type server struct {
	ln  *Listener
	srv Server
}

func (s *server) Serve(net.Listener) error { return s.srv.ServeListener(s.ln) }

func (s *server) Shutdown(ctx context.Context) error {
	s.ln.settle(ctx)
	return s.srv.Shutdown(ctx)
}

// listenerOnly is a Listener as a net.Listener, on which nobody accepts.
type listenerOnly struct{ *Listener }

func (l listenerOnly) Accept() (net.Conn, error) {
	<-l.closed
	return nil, net.ErrClosed
}
