package socket

import (
	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// tcpListen is TCP_LISTEN of the kernel's tcp_states.h.
const tcpListen = 10

// Queue returns how many connections wait at a listening TCP socket, and how many may. For
// such a socket TCP_INFO has the numbers in these two fields (tcp_diag.c).
func Queue(h *handle.Handle) (waiting, limit int) {
	info, err := unix.GetsockoptTCPInfo(h.FD(), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.State != tcpListen {
		return 0, 0
	}
	return int(info.Unacked), int(info.Sacked)
}
