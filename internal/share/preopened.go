package share

import (
	"net"
	"sync"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// preopened has the sockets that Listen opened before this process forked. Workers that ask for
// the address of one share it.
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

// Preopened notes that this process has opened a itself. real is its address.
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

// find returns a new handle of an open socket for a, its real address, and a func that is to be
// called when the workers no longer need a unix socket's file.
func (p *preopened) find(a socket.Address) (*handle.Handle, net.Addr, func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	nth := 0
	for i, s := range p.list {
		if a.FD >= 0 || s.Network != a.Network || s.Place() != a.Place() && !s.samePort(a) {
			continue
		}
		if nth++; a.Port() == 0 && nth <= a.Index {
			continue // the n-th listener on port 0 is the n-th in workers too
		}
		if h, err := socket.Duplicate(s.conn); err == nil {
			p.list[i].used = true
			return h, s.real, s.keepFile()
		}
	}
	return nil, nil, nil
}

// ClosePreopened closes the listening sockets that this process itself still has open and that
// its workers shared. It is called at the end of the service, after CloseAll: else clients
// would go on to connect, and nobody would answer.
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

// keepFile leaves the file of a unix socket in its place when the program closes its listener:
// the workers still serve it. After release, a listener that is still open removes the file
// when it is closed.
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

// samePort reports whether a names the port that the system gave s for port 0.
func (s preopenedSocket) samePort(a socket.Address) bool {
	if a.IsUnix() || a.Port() == 0 {
		return false
	}
	host, _, _ := net.SplitHostPort(s.Literal)
	_, port, _ := net.SplitHostPort(s.real.String())
	return net.JoinHostPort(host, port) == a.Literal
}
