//go:build !linux

package socket

import "github.com/go-cluster/cluster/internal/handle"

// Queue returns how many connections wait at a listening socket, and how many
// may. Only Linux tells.
func Queue(*handle.Handle) (waiting, limit int) { return 0, 0 }
