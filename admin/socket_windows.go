package admin

import (
	"net"

	"github.com/go-cluster/cluster"
)

// listenSocket is not supported: a socket does not tell here who connected to it.
func listenSocket(_, _ string) (ln net.Listener, remove func(), err error) {
	return nil, nil, cluster.ErrNotSupported
}
