package parcel

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// Outgoing is a descriptor to be sent.
type Outgoing struct {
	Handle *handle.Handle
	Node   wire.HandleType // what it is for node; zero if node cannot have it
}

// holder is a listener or packet socket of a type that is not package net's: what Listen
// returns in a master that has forked.
type holder interface {
	Socket() (*handle.Handle, error)
}

// unsendable is a listener or packet socket that another process may not be able to have,
// although it has descriptors.
type unsendable interface {
	Unsendable() error // returns why, and the way out; nil if its one descriptor is all of it
}

// Pack duplicates the descriptor of v, a net.Conn, net.Listener, net.PacketConn or
// *os.File. v stays open and the caller's.
func Pack(v any) (Outgoing, error) {
	h, err := duplicate(v)
	if err != nil {
		return Outgoing{}, err
	}
	kind, network := socket.KindOf(h)
	if err := socket.Sendable(kind, network); err != nil {
		h.Release()
		return Outgoing{}, err
	}
	return Outgoing{h, nodeType(kind, network)}, nil
}

func duplicate(v any) (*handle.Handle, error) {
	if r := reflect.ValueOf(v); r.Kind() == reflect.Pointer && r.IsNil() {
		return nil, fmt.Errorf("there is nothing to send: the handle is a nil %T", v)
	}
	switch v := v.(type) {
	case nil:
		return nil, errors.New("there is nothing to send: the handle is nil")
	case *tls.Conn:
		return nil, fmt.Errorf("a %T cannot be sent, since its keys and what it has read are in this process; "+
			"send the connection below it before the handshake, and let the other side do TLS", v)
	case holder:
		return v.Socket()
	case *os.File:
		if err := socket.Sendable(socket.File, ""); err != nil {
			return nil, err
		}
	case net.Conn, net.Listener, net.PacketConn:
	default:
		return nil, fmt.Errorf("a %T cannot be sent; send a net.Conn, net.Listener, net.PacketConn or *os.File", v)
	}
	if u, ok := v.(unsendable); ok {
		if err := u.Unsendable(); err != nil {
			return nil, err
		}
	}
	c, ok := v.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a %T cannot be sent, since it has no descriptor; send the TCP, UDP or unix socket below it, or the *os.File", v)
	}
	return socket.Duplicate(c)
}

// nodeType returns what a descriptor of this kind is for node.
func nodeType(k socket.Kind, network string) (t wire.HandleType) {
	switch {
	case k == socket.Stream:
		t.Type = wire.TypeSocket
	case k == socket.Listener:
		t.Type = wire.TypeServer
	case k == socket.Packet && network != "unixgram":
		t.Type, t.Dgram = wire.TypeDgramSocket, network
	}
	return t
}
