//go:build unix

package socket

import (
	"math"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// Budget returns the number below which the descriptors of sockets for workers must be. The
// rest of this process's descriptors, a quarter of them and at most 64, is kept for the
// process itself, so that it can always fork a worker. The kernel gives a new descriptor the
// lowest free number, so its number tells how many there are.
func Budget() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || uint64(limit.Cur) > math.MaxInt32 {
		return math.MaxInt32
	}
	n := int(limit.Cur)
	return n - min(64, n/4)
}

// Fit returns h if its number is within the Budget. If not it takes h over and returns
// another descriptor of the same socket, or nil if no number is free there.
func Fit(h *handle.Handle) *handle.Handle {
	budget := Budget()
	if h.FD() < budget {
		return h
	}
	// A lower number may have become free since the socket was opened.
	defer h.Release()
	low, err := DuplicateFD(h.FD())
	if err != nil {
		return nil
	}
	if low.FD() >= budget {
		low.Release()
		return nil
	}
	return low
}
