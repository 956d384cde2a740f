package handle

import "golang.org/x/sys/unix"

// Touched reports whether a process has read from the TCP connection or written to it. The
// kernel does not tell that of other sockets, and Touched is false.
func (h *Handle) Touched() bool {
	info, err := unix.GetsockoptTCPInfo(h.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return false
	}
	if info.Bytes_sent > 0 || info.Notsent_bytes > 0 {
		return true
	}
	unread, err := unix.IoctlGetInt(h.fd, unix.TIOCINQ)
	if info.State != unix.BPF_TCP_ESTABLISHED {
		unread++ // the client's FIN counts as a byte received, and not as one that waits
	}
	return err == nil && info.Bytes_received > uint64(unread)
}
