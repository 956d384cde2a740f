//go:build unix

package link

import (
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/socket"
)

// writeWith writes s, descriptors attached to its first byte.
func (l *testLink) writeWith(s string, files ...*os.File) {
	l.t.Helper()
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	n, _, err := l.peer.(*net.UnixConn).WriteMsgUnix([]byte(s), unix.UnixRights(fds...), nil)
	require.NoError(l.t, err)
	require.Equal(l.t, len(s), n)
}

// token is a descriptor to pass: closed by all who have it, its watch ends.
type token struct {
	t     testing.TB
	file  *os.File // the end to pass
	watch *os.File
}

func newToken(t testing.TB) *token {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	return &token{t, w, r}
}

// sent gives up the test's own copy.
func (k *token) sent() *token { k.file.Close(); return k }

// requireClosed waits until nobody holds the descriptor.
func (k *token) requireClosed() {
	k.t.Helper()
	k.watch.SetReadDeadline(time.Now().Add(roomtest.Patience))
	_, err := k.watch.Read(make([]byte, 1))
	require.ErrorIs(k.t, err, io.EOF)
}

// requireSame checks that h is this descriptor, and releases it.
func (k *token) requireSame(h *handle.Handle) {
	k.t.Helper()
	require.NotNil(k.t, h)
	_, err := syscall.Write(h.FD(), []byte("x"))
	require.NoError(k.t, err)
	k.watch.SetReadDeadline(time.Now().Add(roomtest.Patience))
	b := make([]byte, 1)
	_, err = k.watch.Read(b)
	require.NoError(k.t, err, "another descriptor")
	h.Release()
}

// someHandle is one that can be passed on.
func someHandle(t testing.TB) *handle.Handle {
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer f.Close()
	h, err := socket.Duplicate(f)
	require.NoError(t, err)
	return h
}

// isOpenHandle asks the system.
func isOpenHandle(h *handle.Handle) bool {
	_, err := unix.FcntlInt(uintptr(h.FD()), unix.F_GETFD, 0)
	return err == nil
}
