package socket

import (
	"fmt"
	"net"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
)

// NewListenerOf is [NewListener] for all sockets of one address. It takes them over. addr is
// the listener's address. On systems without Merged the listener is of the first socket.
func NewListenerOf(all []*handle.Handle, addr net.Addr) (net.Listener, error) {
	defer releaseAll(all)
	if len(all) > 1 {
		if m, err := NewMerged(); err == nil {
			for i, h := range all {
				if err := m.Add(i, h); err != nil {
					m.Close()
					return nil, err
				}
			}
			return &several{m, addr}, nil
		}
	}
	return NewListener(all[0])
}

// NewPacketConnOf is [NewPacketConn] for all sockets of one address. It takes them over. On
// systems without MergedPackets the socket is the first.
func NewPacketConnOf(all []*handle.Handle, _ net.Addr) (net.PacketConn, error) {
	defer releaseAll(all)
	if len(all) > 1 {
		if m, err := NewMergedPackets(all[0], func() {}); err == nil {
			for i, h := range all {
				if err := m.Add(i, h); err != nil {
					m.Close()
					return nil, err
				}
			}
			return m, nil
		}
	}
	return NewPacketConn(all[0])
}

// ErrFamilies is why an address with a socket for each family cannot be sent to another process.
var ErrFamilies = fmt.Errorf("this address has many sockets, since a service manager opened one for each family: %w; "+
	"listen on one family, as tcp4 or udp6", errs.NotSupported)

func releaseAll(all []*handle.Handle) {
	for _, h := range all {
		h.Release()
	}
}

// several is a Merged as a listener.
type several struct {
	*Merged
	addr net.Addr
}

// Addr returns the address of all sockets.
func (s *several) Addr() net.Addr { return s.addr }

// Unsendable returns an error: no socket is the whole address.
func (s *several) Unsendable() error { return ErrFamilies }
