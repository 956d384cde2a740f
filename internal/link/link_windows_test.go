package link

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/handle"
)

// openPeer takes over theirs.
func openPeer(_ testing.TB, theirs channel.Client) peerEnd {
	return os.NewFile(uintptr(theirs), "peer")
}

// someHandle is one that can be passed on.
func someHandle(t testing.TB) *handle.Handle {
	s, err := windows.WSASocket(windows.AF_INET, windows.SOCK_STREAM, windows.IPPROTO_TCP, nil, 0, windows.WSA_FLAG_OVERLAPPED|windows.WSA_FLAG_NO_HANDLE_INHERIT)
	require.NoError(t, err)
	return handle.New(int(s))
}

// isOpenHandle asks the system.
func isOpenHandle(h *handle.Handle) bool { return isSocket(uintptr(h.FD())) }

// isSocket asks the system.
func isSocket(fd uintptr) bool {
	_, err := windows.GetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, 0x1008 /* SO_TYPE */)
	return err == nil
}

// TestEndWakesAPausedReader: nothing is read while too much waits for a handler,
// and a pipe does not tell of its end then.
func TestEndWakesAPausedReader(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{MaxQueue: 1000}).start()
	l.write(many(5000, `"flood"`))
	l.error()
	l.write(`{"cmd":"NODE_CLUSTER","act":"last"}` + "\n")
	inSelect(t, ").WaitHangup", 1)
	l.peer.Close()
	waitFor(t, l.ended, "end of the link")
	require.Equal(t, "last", waitFor(t, l.internals, "last word").w.Act)
}

// inSelect waits until n goroutines are in a select of the function, of which
// there is no other sign.
func inSelect(t *testing.T, function string, n int) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	require.Eventually(t, func() bool {
		found := 0
		for g := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			state, frames, _ := strings.Cut(g, "\n")
			top, _, _ := strings.Cut(frames, "\n")
			if strings.Contains(state, "[select") && strings.Contains(top, function) {
				found++
			}
		}
		return found == n
	}, patience, time.Millisecond, "%d in %s", n, function)
}
