package cluster

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/handle"
)

// openFar takes over theirs.
func openFar(_ testing.TB, theirs channel.Client) farEnd {
	return os.NewFile(uintptr(theirs), "peer")
}

// writeFar writes p: nothing can go beside it.
func writeFar(peer farEnd, p []byte, _ uint8) { peer.Write(p) }

// drainFar reads to the end.
func drainFar(peer farEnd) {
	p := make([]byte, 4096)
	for {
		if _, err := peer.Read(p); err != nil {
			return
		}
	}
}

// endFar says that nothing more is written: a pipe has no half to close.
func endFar(peer farEnd) { peer.Close() }

// anyHandle is one that can be passed on.
func anyHandle(t testing.TB) *handle.Handle {
	s, err := windows.WSASocket(windows.AF_INET, windows.SOCK_STREAM, windows.IPPROTO_TCP, nil, 0, windows.WSA_FLAG_OVERLAPPED|windows.WSA_FLAG_NO_HANDLE_INHERIT)
	require.NoError(t, err)
	return handle.New(int(s))
}
