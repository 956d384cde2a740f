package socket

import "errors"

// ErrUnwanted is returned by [Acceptor.Accept] when nobody wants a connection any
// more.
var ErrUnwanted = errors.New("no connection is wanted")
