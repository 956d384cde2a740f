//go:build unix

package socket

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The file of a unix socket: its mode, its removal, and the replacement of one
// whose server has died.

// maxPath is how long a path sun_path holds, less its NUL, on the systems with
// the least room.
const maxPath = 103

// Chmod gives a unix socket's file its mode in spite of the umask.
func (a Address) Chmod() error {
	if a.Mode == 0 || !a.hasFile() {
		return nil
	}
	return os.Chmod(a.Literal, a.Mode)
}

// Unlinker returns a function that removes the file of a's socket, which has just
// been made. It leaves alone a file that another process has put there since.
func (a Address) Unlinker() func() {
	if !a.hasFile() {
		return func() {}
	}
	made, err := os.Lstat(a.Literal)
	if err != nil {
		return func() {}
	}
	return func() {
		if now, err := os.Lstat(a.Literal); err == nil && os.SameFile(made, now) {
			os.Remove(a.Literal)
		}
	}
}

// replacing calls open with a's address. If the file of a unix socket that nobody
// serves any more is in the way, it removes the file and calls open once more.
func replacing[T any](a Address, open func(literal string) (T, error)) (T, error) {
	if !a.hasFile() {
		return open(a.Literal)
	}
	path := shortPath(a.Literal)
	s, err := open(path)
	if !errors.Is(err, unix.EADDRINUSE) {
		return s, err
	}
	// When two masters start at once, the second must not take the socket that the
	// first has just made for the stale one.
	defer lockDir(filepath.Dir(path))()
	if !stale(a.Network, path) {
		return s, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	return open(path)
}

// lockDir keeps other processes that use this package from replacing sockets in
// dir. Where dir may not be opened there is no lock.
func lockDir(dir string) (unlock func()) {
	f, err := os.Open(dir)
	if err != nil {
		return func() {}
	}
	unix.Flock(int(f.Fd()), unix.LOCK_EX)
	return func() { f.Close() }
}

// shortPath makes a path that is too long for sun_path relative, as node does.
func shortPath(path string) string {
	if len(path) <= maxPath {
		return path
	}
	dir, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(dir, path); err == nil && len(rel) < len(path) {
		return rel
	}
	return path
}

// stale reports whether path is a socket that refuses connections: its server is
// gone.
func stale(network, path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	c, err := net.Dial(network, path)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, unix.ECONNREFUSED)
}
