package socket

import (
	"net"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
)

// Pair returns errs.NotSupported: Windows has no pairs of sockets that can be sent.
func Pair() (ours net.Conn, theirs *handle.Handle, err error) { return nil, nil, errs.NotSupported }
