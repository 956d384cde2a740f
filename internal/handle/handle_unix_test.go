//go:build unix

package handle

import (
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestLastReleaseCloses: not before the last holder, and none for a nil Handle.
func TestLastReleaseCloses(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	fd, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(t, err)
	w.Close()
	h := New(fd)
	require.Equal(t, fd, h.FD())
	other := h.Retain()
	h.Release()
	_, err = unix.Write(other.FD(), []byte("x"))
	require.NoError(t, err)
	other.Release()
	read, err := io.ReadAll(r) // ends since nobody holds the other end
	require.NoError(t, err)
	require.Equal(t, "x", string(read))
	(*Handle)(nil).Release()
}
