package parcel

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// Parcel has a descriptor that came with a message, until it is taken or dropped. A nil
// Parcel belongs to a message without one. Any goroutine may call its methods.
type Parcel struct {
	mu  sync.Mutex
	h   *handle.Handle // nil when it was taken or dropped
	why error          // what a method says then
}

// New makes a Parcel of h, which it takes over.
func New(h *handle.Handle) *Parcel { return &Parcel{h: h} }

var (
	errNone    = errors.New("no handle came with this message")
	errTaken   = errors.New("the handle was taken already")
	errDropped = fmt.Errorf("no callback took the handle before the last one returned: %w", net.ErrClosed)
)

// Has reports whether there is a descriptor to be taken.
func (p *Parcel) Has() bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.h != nil
}

// Descriptor returns the descriptor, which stays the Parcel's, or -1 if there is none.
func (p *Parcel) Descriptor() int {
	if p == nil {
		return -1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.h == nil {
		return -1
	}
	return p.h.FD()
}

// Drop closes the descriptor if nobody has taken it.
func (p *Parcel) Drop() {
	if p == nil {
		return
	}
	p.mu.Lock()
	h := p.h
	if h != nil {
		p.h, p.why = nil, errDropped
	}
	p.mu.Unlock()
	h.Release()
}

// Conn takes the descriptor as a connection.
func (p *Parcel) Conn() (net.Conn, error) {
	h, err := p.take(socket.Stream)
	if err != nil {
		return nil, err
	}
	return socket.NewConn(h)
}

// Listener takes the descriptor as a listener.
func (p *Parcel) Listener() (net.Listener, error) {
	h, err := p.take(socket.Listener)
	if err != nil {
		return nil, err
	}
	defer h.Release()
	return socket.NewListener(h)
}

// PacketConn takes the descriptor as a datagram socket.
func (p *Parcel) PacketConn() (net.PacketConn, error) {
	h, err := p.take(socket.Packet)
	if err != nil {
		return nil, err
	}
	defer h.Release()
	return socket.NewPacketConn(h)
}

// File takes the descriptor as a file.
func (p *Parcel) File() (*os.File, error) {
	h, err := p.take(socket.File)
	if err != nil {
		return nil, err
	}
	return socket.NewFile(h)
}

// methods names the method that takes each kind.
var methods = map[socket.Kind]string{socket.File: "File", socket.Stream: "Conn", socket.Listener: "Listener", socket.Packet: "PacketConn"}

// take takes the descriptor out, if it is of the kind.
func (p *Parcel) take(kind socket.Kind) (*handle.Handle, error) {
	if p == nil {
		return nil, errNone
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.h == nil {
		return nil, p.why
	}
	if is, _ := socket.KindOf(p.h); is != kind {
		return nil, fmt.Errorf("what came is %v: take it with %s", is, methods[is])
	}
	h := p.h
	p.h, p.why = nil, errTaken
	return h, nil
}
