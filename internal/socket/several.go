package socket

import (
	"net"

	"github.com/go-cluster/cluster/internal/handle"
)

// NewListenerOf is [NewListener] of all sockets that one address has, which it takes over.
// It shows addr. Where several cannot be one listener it is of the first.
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

// NewPacketConnOf is [NewPacketConn] of the first socket. It takes all over.
func NewPacketConnOf(all []*handle.Handle, _ net.Addr) (net.PacketConn, error) {
	defer releaseAll(all)
	return NewPacketConn(all[0])
}

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

// Addr returns the address that all have.
func (s *several) Addr() net.Addr { return s.addr }
