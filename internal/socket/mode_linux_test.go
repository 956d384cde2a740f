package socket

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// The file of a unix socket has its mode from the moment at which bind makes it:
// it is never open to more than was asked for, whatever the umask.
func TestUnixModeFromTheFirst(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(t.TempDir(), "s")
	a, err := Resolve("unix", path, false, Options{Mode: 0o600})
	require.NoError(t, err)
	lc := net.ListenConfig{Control: a.control} // and no chmod after it
	ln, err := lc.Listen(t.Context(), "unix", path)
	require.NoError(t, err)
	defer ln.Close()
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}
