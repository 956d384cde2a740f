package socket

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// nobody is a user that is not this one.
const nobody = 65534

// guarded is an address that other users must not lead astray.
func guarded(t *testing.T, path string, mode os.FileMode) Address {
	t.Helper()
	a, err := Resolve("unix", path, false, Options{Mode: mode})
	require.NoError(t, err)
	a.Guarded = true
	return a
}

// ownDir is a directory whose way is firm: the test's temporary one is in one that
// need not be.
func ownDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "guard")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// Where others can change what is there no link is followed, and the socket is in
// the very directory, with its mode, and is removed and replaced there.
func TestGuardedPlace(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o022))
	dir := ownDir(t)
	own, private := filepath.Join(dir, "own"), filepath.Join(dir, "private")
	require.NoError(t, os.MkdirAll(filepath.Join(own, "sub"), 0o755))
	require.NoError(t, os.Mkdir(private, 0o755))
	require.NoError(t, os.Chmod(own, 0o777)) // anybody's
	require.NoError(t, os.Symlink(private, filepath.Join(own, "link")))
	require.NoError(t, os.Symlink("own", filepath.Join(dir, "firmlink")))

	for _, path := range []string{filepath.Join(own, "s"), filepath.Join(own, "sub", "s"), filepath.Join(dir, "firmlink", "sub", "s"), filepath.Join(private, "s")} {
		a := guarded(t, path, 0o666)
		for range 2 { // the second replaces what the first leaves
			h, _, file, err := Open(t.Context(), a)
			require.NoError(t, err, path)
			info, err := os.Lstat(path)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o666)|os.ModeSocket, info.Mode())
			require.False(t, file.Gone())
			c, err := net.Dial("unix", path)
			require.NoError(t, err)
			c.Close()
			_, _, _, err = Open(t.Context(), a)
			require.ErrorIs(t, err, syscall.EADDRINUSE)
			h.Release()
			require.FileExists(t, path)
		}
		h, _, file, err := Open(t.Context(), a)
		require.NoError(t, err)
		file.Unlink()
		require.NoFileExists(t, path)
		require.True(t, file.Gone())
		h.Release()
	}

	for _, path := range []string{filepath.Join(own, "link", "s"), filepath.Join(dir, "firmlink", "link", "s")} {
		a := guarded(t, path, 0o666)
		require.ErrorIs(t, a.Locate(), syscall.EACCES)
		_, _, _, err := Open(t.Context(), a)
		require.ErrorIs(t, err, syscall.EACCES)
		require.ErrorContains(t, err, "symbolic link")
	}
	entries, err := os.ReadDir(private)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// A link in a sticky directory is followed only if who owns it may be trusted.
func TestGuardedSticky(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := ownDir(t)
	sticky := filepath.Join(dir, "sticky")
	require.NoError(t, os.Mkdir(sticky, 0o755))
	require.NoError(t, os.Chmod(sticky, 0o777|os.ModeSticky))
	link := filepath.Join(sticky, "link")
	require.NoError(t, os.Symlink(dir, link))
	a := guarded(t, filepath.Join(link, "s"), 0)
	require.NoError(t, a.Locate())
	require.NoError(t, os.Lchown(link, nobody, nobody))
	require.ErrorIs(t, a.Locate(), syscall.EACCES)
}

// What was put in the place of the socket gets no mode and no owner, and is not
// removed.
func TestGuardedReplaced(t *testing.T) {
	dir := ownDir(t)
	require.NoError(t, os.Chmod(dir, 0o777))
	secret, path := filepath.Join(dir, "secret"), filepath.Join(dir, "s")
	require.NoError(t, os.WriteFile(secret, nil, 0o600))
	for _, replace := range []func() error{
		func() error { return os.Symlink(secret, path) },
		func() error { return os.Link(secret, path) },
		func() error { return nil },
	} {
		a := guarded(t, path, 0o666)
		h, _, file, err := Open(t.Context(), a)
		require.NoError(t, err)
		require.NoError(t, os.Remove(path))
		require.NoError(t, replace())
		a.Owner = &Owner{os.Getuid(), os.Getgid()}
		require.Error(t, a.SetModeAndOwner())
		require.True(t, file.Gone())
		file.Unlink()
		info, err := os.Stat(secret)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode())
		if _, err := os.Lstat(path); err == nil {
			require.NoError(t, os.Remove(path))
		}
		h.Release()
	}
}

// The owner is the one that is asked for.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, guard := range []bool{false, true} {
		a := guarded(t, filepath.Join(ownDir(t), "s"), 0o660)
		a.Guarded, a.Owner = guard, &Owner{nobody, nobody}
		h, _, file, err := Open(t.Context(), a)
		require.NoError(t, err)
		defer h.Release()
		defer file.Unlink()
		info, err := os.Lstat(a.Literal)
		require.NoError(t, err)
		require.Equal(t, uint32(nobody), info.Sys().(*syscall.Stat_t).Uid)
		require.Equal(t, os.FileMode(0o660), info.Mode().Perm())
	}
}

// Another program's lock on the directory is waited for, but not for ever; it does
// not matter where no file has to be replaced.
func TestLockedDirectory(t *testing.T) {
	dir := t.TempDir()
	lock, err := os.Open(dir)
	require.NoError(t, err)
	defer lock.Close()
	require.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	a, err := Resolve("unix", filepath.Join(dir, "s"), false, Options{})
	require.NoError(t, err)
	h, _, _, err := Open(t.Context(), a)
	require.NoError(t, err)
	_, _, _, err = Open(t.Context(), a)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.NotContains(t, err.Error(), "lock")
	h.Release()
	_, _, _, err = Open(t.Context(), a)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, "lock (flock)")
	lock.Close()
	h, _, file, err := Open(t.Context(), a)
	require.NoError(t, err)
	h.Release()
	file.Unlink()
}
