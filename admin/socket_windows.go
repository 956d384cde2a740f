package admin

import (
	"net"
	"os"

	"github.com/go-cluster/cluster"
)

// listenSocket is not supported: a socket does not tell here who connected to it.
func listenSocket(_, _ string, _ *os.File) (ln *net.UnixListener, remove func(), err error) {
	return nil, nil, cluster.ErrNotSupported
}
