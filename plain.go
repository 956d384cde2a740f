package cluster

import (
	"net"
	"sync"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// plainSockets are the sockets that Listen opened while this process had not
// forked. If its workers ask for the same address they share it.
type plainSockets struct {
	mu   sync.Mutex
	list []plainSocket
}

type plainSocket struct {
	t    target
	addr net.Addr
	conn syscall.Conn
}

func (p *plainSockets) add(t target, addr net.Addr, s any) {
	conn, ok := s.(syscall.Conn)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	open := p.list[:0]
	for _, s := range p.list {
		if h, err := socket.Duplicate(s.conn); err == nil {
			h.Release()
			open = append(open, s)
		}
	}
	p.list = append(open, plainSocket{t, addr, conn})
}

// find returns a new handle of an open socket for t's address, and what to do
// with a unix socket's file when the workers no longer need it.
func (p *plainSockets) find(t target) (*handle.Handle, net.Addr, func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	nth := 0
	for _, s := range p.list {
		if t.FD >= 0 || s.t.Network != t.Network || s.t.Literal != t.Literal && !samePort(s, t) {
			continue
		}
		if nth++; t.Port() == 0 && nth <= t.Index {
			continue // the n-th free port is the n-th here too
		}
		if h, err := socket.Duplicate(s.conn); err == nil {
			return h, s.addr, s.keepFile()
		}
	}
	return nil, nil, nil
}

// keepFile leaves the file of a unix socket where it is when the program closes
// its listener, until release: the workers still serve it. A listener that is
// open then takes the file with it at its own end.
func (s plainSocket) keepFile() (release func()) {
	ln, ok := s.conn.(*net.UnixListener)
	if !ok {
		return func() {}
	}
	ln.SetUnlinkOnClose(false)
	unlink := s.t.Unlinker()
	return func() {
		ln.SetUnlinkOnClose(true)
		if h, err := socket.Duplicate(ln); err == nil {
			h.Release()
			return
		}
		unlink()
	}
}

// samePort reports whether t names the port that s was given when it asked for
// any.
func samePort(s plainSocket, t target) bool {
	if socket.IsUnix(t.Network) || t.Port() == 0 {
		return false
	}
	host, _, _ := net.SplitHostPort(s.t.Literal)
	_, port, _ := net.SplitHostPort(s.addr.String())
	return net.JoinHostPort(host, port) == t.Literal
}
