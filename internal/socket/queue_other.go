//go:build !linux

package socket

import "github.com/go-cluster/cluster/internal/handle"

// Queue returns 0: only Linux tells how many connections wait.
func Queue(*handle.Handle) (waiting, limit int) { return 0, 0 }
