package admin

import (
	"net"

	"github.com/go-cluster/cluster"
)

// peer is who connected to the socket, of which there is none here.
type peer struct {
	uid int
	err error
}

func peerOf(*net.UnixConn) *peer { return &peer{err: cluster.ErrNotSupported} }

func (p *peer) descends(map[int]bool) bool { return true }
