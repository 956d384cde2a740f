package socket

import (
	"net"
	"os"
	"syscall"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/windows"
)

// listener is a net.Listener on a shared socket.
type listener struct {
	a    *Acceptor
	addr net.Addr
}

var (
	_ net.Listener = (*listener)(nil)
	_ syscall.Conn = (*listener)(nil)
)

// NewListener makes a listener of a shared socket. It keeps a reference of its own to h.
func NewListener(h *handle.Handle) (net.Listener, error) {
	sa, err := windows.Getsockname(h.Socket())
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	a, err := NewAcceptor(h, true)
	if err != nil {
		return nil, err
	}
	return &listener{a, addrOf(sa)}, nil
}

// Addr returns the address of the socket.
func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: l.addr, Err: err}
}

func always() bool { return true }

// Accept waits for the next connection. If the client is gone, it waits for the next one:
// an error would end most servers.
func (l *listener) Accept() (net.Conn, error) {
	for {
		h, err := l.a.Accept(always)
		if err != nil {
			return nil, l.opError("accept", err)
		}
		c, err := NewConn(h)
		switch {
		case err == nil:
			return c, nil
		case !clientGone(err):
			return nil, l.opError("accept", err)
		}
	}
}

// Close closes this process's handle of the socket.
func (l *listener) Close() error {
	if !l.a.close() {
		return l.opError("close", net.ErrClosed)
	}
	return nil
}

// SetDeadline bounds Accept.
func (l *listener) SetDeadline(t time.Time) error {
	if err := l.a.setDeadline(t); err != nil {
		return l.opError("set", err)
	}
	return nil
}

// SyscallConn gives access to this process's handle of the socket.
func (l *listener) SyscallConn() (syscall.RawConn, error) { return rawListener{l}, nil }

// rawListener is what SyscallConn returns.
type rawListener struct{ l *listener }

func (r rawListener) Control(f func(fd uintptr)) error {
	if r.l.a.control(f) != nil { // it fails for no other reason
		return r.l.opError("raw-control", net.ErrClosed)
	}
	return nil
}

// Read fails, as that of package net's listeners does.
func (r rawListener) Read(func(fd uintptr) bool) error {
	return r.l.opError("raw-read", syscall.EINVAL)
}

func (r rawListener) Write(func(fd uintptr) bool) error {
	return r.l.opError("raw-write", syscall.EINVAL)
}
