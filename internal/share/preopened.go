package share

import (
	"net"
	"sync"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// preopened are the sockets that Listen opened while this process had not forked.
// Workers that ask for the address of one share it.
type preopened struct {
	mu   sync.Mutex
	list []preopenedSocket
}

type preopenedSocket struct {
	socket.Address
	real net.Addr
	conn syscall.Conn
	used bool // workers have it too
}

// Preopened notes that this process has opened a itself, at the real address real.
func (r *Registry) Preopened(a socket.Address, real net.Addr, s any) {
	if conn, ok := s.(syscall.Conn); ok {
		a.Locate() // without it the path stands for itself
		r.preopened.add(preopenedSocket{Address: a, real: real, conn: conn})
	}
}

func (p *preopened) add(s preopenedSocket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	open := p.list[:0]
	for _, s := range p.list {
		if isOpen(s.conn) {
			open = append(open, s)
		}
	}
	p.list = append(open, s)
}

func isOpen(c syscall.Conn) bool {
	h, err := socket.Duplicate(c)
	h.Release()
	return err == nil || socket.Exhausted(err)
}

// find returns a new handle of an open socket for a, its real address, and what to
// do with a unix socket's file when the workers no longer need it.
func (p *preopened) find(a socket.Address) (*handle.Handle, net.Addr, func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	nth := 0
	for i, s := range p.list {
		if a.FD >= 0 || s.Network != a.Network || s.Place() != a.Place() && !s.samePort(a) {
			continue
		}
		if nth++; a.Port() == 0 && nth <= a.Index {
			continue // the n-th free port is the n-th here too
		}
		if h, err := socket.Duplicate(s.conn); err == nil {
			p.list[i].used = true
			return h, s.real, s.keepFile()
		}
	}
	return nil, nil, nil
}

// ClosePreopened closes what this process itself still has of the listening sockets that
// its workers shared, at the end of the service: clients would go on to connect, and wait
// for nobody. It follows CloseAll.
func (r *Registry) ClosePreopened() {
	p := &r.preopened
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.list {
		if ln, ok := s.conn.(net.Listener); ok && s.used {
			ln.Close()
		}
	}
}

// keepFile leaves the file of a unix socket where it is when the program closes
// its listener, until release: the workers still serve it. A listener that is
// still open then takes the file with it at its own end.
func (s preopenedSocket) keepFile() (release func()) {
	ln, ok := s.conn.(*net.UnixListener)
	if !ok {
		return func() {}
	}
	ln.SetUnlinkOnClose(false)
	unlink := s.Unlinker()
	return func() {
		ln.SetUnlinkOnClose(true)
		if !isOpen(ln) {
			unlink()
		}
	}
}

// samePort reports whether a names the port that s was given when it asked for
// any.
func (s preopenedSocket) samePort(a socket.Address) bool {
	if a.IsUnix() || a.Port() == 0 {
		return false
	}
	host, _, _ := net.SplitHostPort(s.Literal)
	_, port, _ := net.SplitHostPort(s.real.String())
	return net.JoinHostPort(host, port) == a.Literal
}
