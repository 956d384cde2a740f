//go:build unix

package socket

import (
	"math"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// Budget is how many descriptors of this process sockets for workers may have the
// numbers of. The rest, a quarter and 64 at most, is kept for what the process needs
// itself: with it a worker can always be forked. A new descriptor has the lowest number
// that is free, so that its number tells how many there are.
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
	// One with which the socket was opened may have become free since.
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
