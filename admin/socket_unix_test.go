//go:build unix

package admin

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// inDir makes a directory the place of default sockets.
func inDir(t *testing.T) (dir string) {
	dir = clustertest.TempDir(t)
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("XDG_RUNTIME_DIR", dir)
	return filepath.Join(dir, "cluster")
}

// stale leaves a socket that nobody listens on.
func stale(t *testing.T, path string) {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	ln.SetUnlinkOnClose(false)
	ln.Close()
}

// deadPID is the number of a process that is gone.
func deadPID(t *testing.T) string {
	c := exec.Command("true")
	require.NoError(t, c.Run())
	return strconv.Itoa(c.Process.Pid)
}

// TestDefaultSocket: it is its user's alone, has the program's name, and the link
// leads to it; what dead masters left is removed, and it goes at the end.
func TestDefaultSocket(t *testing.T) {
	dir := inDir(t)
	require.NoError(t, os.Mkdir(dir, 0o700))
	program := fileName(filepath.Base(os.Args[0]))
	old := filepath.Join(dir, program+"."+deadPID(t)+".sock")
	stale(t, old)
	file := filepath.Join(dir, "other.1.sock")
	require.NoError(t, os.WriteFile(file, nil, 0o600))

	ln, remove, err := listenSocket("", "", nil)
	require.NoError(t, err)
	path := filepath.Join(dir, program+"."+strconv.Itoa(os.Getpid())+".sock")
	link := filepath.Join(dir, program+".sock")
	require.Equal(t, path, ln.Addr().String())
	st, err := os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	st, err = os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), st.Mode().Perm())
	to, err := os.Readlink(link)
	require.NoError(t, err)
	require.Equal(t, filepath.Base(path), to)
	require.NoFileExists(t, old)
	require.FileExists(t, file, "it is no socket")

	// Another master of the program, and one of a program with a longer name.
	other := filepath.Join(dir, program+".1.sock")
	longer := filepath.Join(dir, program+".x.1.sock")
	for _, p := range []string{other, longer} {
		o, err := net.Listen("unix", p)
		require.NoError(t, err)
		defer o.Close()
	}
	// The youngest of all, but the link of a program whose name ends in a number.
	require.NoError(t, os.Symlink(filepath.Base(longer), filepath.Join(dir, program+".5.sock")))
	ln.Close()
	remove()
	require.NoFileExists(t, path)
	to, err = os.Readlink(link)
	require.NoError(t, err)
	require.Equal(t, filepath.Base(other), to)
	_, _, err = listenSocket(other, "", nil)
	require.ErrorIs(t, err, unix.EADDRINUSE)
}

// TestTheLinkGoesWithTheLast.
func TestTheLinkGoesWithTheLast(t *testing.T) {
	dir := inDir(t)
	ln, remove, err := listenSocket("", "", nil)
	require.NoError(t, err)
	ln.Close()
	remove()
	all, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, all)
}

// TestSocketDirectory: one that others can write to, or that is a link, is refused.
func TestSocketDirectory(t *testing.T) {
	dir := inDir(t)
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.Chmod(dir, 0o770))
	_, _, err := listenSocket("", "", nil)
	require.ErrorContains(t, err, "0700")
	require.NoError(t, os.Remove(dir))
	require.NoError(t, os.Symlink(t.TempDir(), dir))
	_, _, err = listenSocket("", "", nil)
	require.ErrorContains(t, err, "symbolic link")
	require.NoError(t, os.Remove(dir))
	if os.Getuid() == 0 {
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, os.Chown(dir, 65534, 65534))
		_, _, err = listenSocket("", "", nil)
		require.ErrorContains(t, err, "another user's")
	}
	t.Setenv("XDG_RUNTIME_DIR", "relative")
	_, _, err = listenSocket("", "", nil)
	require.ErrorContains(t, err, "no absolute path")

	// The service starts all the same, unless the socket was asked for.
	stop, err := Start(Options{})
	require.NoError(t, err)
	stop()
}

// TestAskedSocket: a stale one is replaced, a live one and a file are not.
func TestAskedSocket(t *testing.T) {
	dir := clustertest.TempDir(t)
	path := filepath.Join(dir, "s")
	stale(t, path)
	ln, remove, err := listenSocket(path, "", nil)
	require.NoError(t, err)
	_, _, err = listenSocket(path, "", nil)
	require.ErrorIs(t, err, unix.EADDRINUSE)
	// Somebody else's by the time of the end is left alone.
	require.NoError(t, os.Remove(path))
	stale(t, path)
	ln.Close()
	remove()
	_, err = os.Lstat(path)
	require.NoError(t, err)
	file := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	_, _, err = listenSocket(file, "", nil)
	require.Error(t, err)
	require.FileExists(t, file)
}

// TestFileName: whatever a program is called, its socket lies in the directory.
func TestFileName(t *testing.T) {
	for name, want := range map[string]string{"web": "web", "a b\n\x1b": "a_b__", "../x": "_x", ".hidden": "hidden", "web-1.test": "web-1.test", "ü/": "__"} {
		require.Equal(t, want, fileName(name), name)
	}
}

// TestSocketName: a name of one's own is that of the default socket.
func TestSocketName(t *testing.T) {
	dir := inDir(t)
	ln, remove, err := listenSocket("", ".we/b\x1b", nil)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "we_b_."+strconv.Itoa(os.Getpid())+".sock"), ln.Addr().String())
	ln.Close()
	remove()
	require.NoFileExists(t, filepath.Join(dir, "we_b_.sock"))
}
