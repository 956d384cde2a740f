package cluster

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/go-cluster/cluster/internal/handle"
)

// openPeer takes over theirs.
func openPeer(_ testing.TB, theirs clientEnd) peerEnd {
	return os.NewFile(uintptr(theirs), "peer")
}

// writePeer writes p: nothing can go beside it.
func writePeer(peer peerEnd, p []byte, _ uint8) { peer.Write(p) }

// drainPeer reads to the end.
func drainPeer(peer peerEnd) {
	p := make([]byte, 4096)
	for {
		if _, err := peer.Read(p); err != nil {
			return
		}
	}
}

// endPeer says that nothing more is written: a pipe has no half to close.
func endPeer(peer peerEnd) { peer.Close() }

// someHandle is one that can be passed on.
func someHandle(t testing.TB) *handle.Handle {
	s, err := windows.WSASocket(windows.AF_INET, windows.SOCK_STREAM, windows.IPPROTO_TCP, nil, 0, windows.WSA_FLAG_OVERLAPPED|windows.WSA_FLAG_NO_HANDLE_INHERIT)
	require.NoError(t, err)
	return handle.New(int(s))
}

// isOpenHandle asks the system.
func isOpenHandle(h *handle.Handle) bool { return isSocket(uintptr(h.FD())) }

// workerChannel takes over theirs as a worker does.
func workerChannel(t testing.TB, theirs clientEnd) *channel {
	ch, err := newChannel(windows.Handle(theirs))
	require.NoError(t, err)
	ch.own = true
	return ch
}

// handleOf is what came with the line.
func handleOf(line []byte, _ *[]int) *handle.Handle {
	h, _ := (&channel{own: true}).claim(line, nil)
	return h
}

// killedText is how the Exit of a process reads that was killed.
const killedText = "exit status 1"

// sendable is the only signal that can be sent, unsent one that cannot.
const (
	sendable = syscall.SIGKILL
	unsent   = syscall.SIGTERM
)

// isSocket asks the system.
func isSocket(fd uintptr) bool {
	_, err := windows.GetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, 0x1008 /* SO_TYPE */)
	return err == nil
}
