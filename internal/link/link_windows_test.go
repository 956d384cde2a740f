package link

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/wire"
)

// someHandle is one that can be passed on.
func someHandle(t testing.TB) *handle.Handle {
	s, err := windows.WSASocket(windows.AF_INET, windows.SOCK_STREAM, windows.IPPROTO_TCP, nil, 0, windows.WSA_FLAG_OVERLAPPED|windows.WSA_FLAG_NO_HANDLE_INHERIT)
	require.NoError(t, err)
	return handle.New(int(s))
}

// isOpenHandle asks the system.
func isOpenHandle(h *handle.Handle) bool { return roomtest.IsSocket(uintptr(h.FD())) }

// TestEndWakesAPausedReader: nothing is read while too much waits for a handler,
// and a pipe does not tell of its end then.
func TestEndWakesAPausedReader(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{MaxQueue: 1000}).start()
	l.write(many(5000, `"flood"`))
	l.error()
	l.write(`{"cmd":"NODE_CLUSTER","act":"last"}` + "\n")
	roomtest.Selecting(t, "(*Channel).WaitHangup", 1)
	l.peer.Close()
	roomtest.Await(t, l.ended, "end of the link")
	require.Equal(t, "last", roomtest.Await(t, l.internals, "last word").w.Act)
}

// TestHandedSocketIsKept until the peer has said that it has it, or cannot say so any
// more. Its own copy is the peer's from the beginning.
func TestHandedSocketIsKept(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).start()
	l.ch.SetPeer(os.Getpid())
	said, unsaid := someHandle(t), someHandle(t)
	told := make(chan error, 2)
	require.NoError(t, l.SendWith(1, said, wire.HandleType{}, func(err error) { told <- err }))
	line := l.readLine()
	require.Equal(t, `{"cmd":"NODE_GO_CLUSTER","act":"ask","n":1}`, l.readLine())
	require.True(t, isOpenHandle(said))
	l.write(`{"cmd":"NODE_GO_CLUSTER","act":"received","n":1}` + "\n")
	require.NoError(t, roomtest.Await(t, told, "receipt"))
	require.False(t, isOpenHandle(said))
	var carrier struct{ Socket string }
	require.NoError(t, json.Unmarshal([]byte(line), &carrier))
	h, err := handle.Adopt(carrier.Socket)
	require.NoError(t, err)
	h.Release()

	require.NoError(t, l.SendWith(2, unsaid, wire.HandleType{}, func(err error) { told <- err }))
	l.readLine()
	require.True(t, isOpenHandle(unsaid))
	l.peer.Close()
	require.ErrorIs(t, roomtest.Await(t, told, "receipt"), errs.Closed)
	require.False(t, isOpenHandle(unsaid))
}

// TestSocketCountsWithItsLine: with what the system says of a socket a message may be
// longer than the other side takes, which would be left with the copy.
func TestSocketCountsWithItsLine(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{PeerMax: 1000}).start()
	l.ch.SetPeer(os.Getpid())
	require.NoError(t, l.SendWith("short", someHandle(t), wire.HandleType{}, nil))
	require.LessOrEqual(t, len(l.readLine()), 1000)
	h := someHandle(t)
	require.ErrorIs(t, l.SendWith(strings.Repeat("x", 200), h, wire.HandleType{}, nil), errs.MessageTooLong)
	require.False(t, isOpenHandle(h))
}
