package quic

import (
	"context"
	"net"

	"github.com/go-cluster/cluster"
	"github.com/quic-go/quic-go/http3"
)

// Server is what Serve can drain; *http3.Server is one.
type Server interface {
	ServeListener(ln http3.QUICListener) error
	Shutdown(ctx context.Context) error
}

// Serve serves the connections of ln with srv until the worker is drained, and then
// returns nil, as cluster.Serve does. In a drain new connections go to other workers;
// what has begun its handshake here is served here; then srv.Shutdown tells the clients
// (HTTP/3 has GOAWAY for that), and requests that are under way end. Any other return is
// srv's own error.
//
// In a master that has forked Serve does not serve: it is cluster.Run. In a process that
// is neither, it is srv.ServeListener.
func Serve(ln *Listener, srv Server) error {
	return cluster.Serve(listenerOnly{ln}, &server{ln, srv})
}

// server is a Server as cluster.Serve has them.
type server struct {
	ln  *Listener
	srv Server
}

func (s *server) Serve(net.Listener) error { return s.srv.ServeListener(s.ln) }

func (s *server) Shutdown(ctx context.Context) error {
	s.ln.settle(ctx)
	return s.srv.Shutdown(ctx)
}

// listenerOnly is a net.Listener that nobody accepts from.
type listenerOnly struct{ *Listener }

func (l listenerOnly) Accept() (net.Conn, error) {
	<-l.closed
	return nil, net.ErrClosed
}
