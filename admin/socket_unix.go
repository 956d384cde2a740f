//go:build unix

package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The socket of a master lies in a directory that is its user's alone, as
// <program>.<pid>.sock, and <program>.sock leads to the youngest. It is bound there
// and not moved, since /proc/net/unix goes on to tell the name of the bind.

// listenSocket opens the socket at the path, or at the default one of the name if that is
// "". remove removes its file, once it is closed. had, unless nil, is the socket of the
// program before an upgrade: if it is the same one, it goes on.
func listenSocket(path, name string, had *os.File) (ln *net.UnixListener, remove func(), err error) {
	link := ""
	if path == "" {
		dir, err := socketDir()
		if err != nil {
			return nil, nil, err
		}
		clearStale(dir)
		if name == "" {
			name = filepath.Base(os.Args[0])
		}
		program := fileName(name)
		path = filepath.Join(dir, program+"."+strconv.Itoa(os.Getpid())+".sock")
		link = filepath.Join(dir, program+".sock")
	}
	u := inherited(path, had)
	if u == nil {
		if u, err = bind(path); err != nil {
			return nil, nil, err
		}
	}
	made, err := os.Lstat(path)
	if err == nil && link != "" {
		err = lead(link, path)
	}
	remove = func() {
		// Somebody else's may lie there by now.
		if there, err := os.Lstat(path); err == nil && os.SameFile(there, made) {
			os.Remove(path)
		}
		if link != "" {
			leadOn(link, path)
		}
	}
	if err != nil {
		u.Close()
		remove()
		return nil, nil, err
	}
	return u, remove, nil
}

// inherited is had if it is the socket at the path, else nil. Who has connected to it
// meanwhile waits in its queue.
func inherited(path string, had *os.File) *net.UnixListener {
	if had == nil {
		return nil
	}
	ln, err := net.FileListener(had)
	if err != nil {
		return nil
	}
	u, ok := ln.(*net.UnixListener)
	was := ln.Addr().String()
	if st, err := os.Lstat(path); ok && err == nil && st.Mode()&fs.ModeSocket != 0 && was == path {
		return u
	}
	ln.Close()
	if program, own := strings.CutSuffix(was, "."+strconv.Itoa(os.Getpid())+".sock"); own && was != path { // it has another name now
		os.Remove(was)
		leadOn(program+".sock", was)
	}
	return nil
}

// bind binds and listens, with mode 0600 from the start where the system can do that.
// What lies there and answers nobody any more is removed first.
func bind(path string) (*net.UnixListener, error) {
	if err := clearPath(path); err != nil {
		return nil, err
	}
	c := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { unix.Fchmod(int(fd), 0o600) }) // what bind makes on Linux; an error elsewhere
	}}
	ln, err := c.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	u := ln.(*net.UnixListener)
	u.SetUnlinkOnClose(false) // by remove, which looks whose it is
	if err := os.Chmod(path, 0o600); err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

// clearPath removes a socket that nobody listens on. A live one is an error, and what
// is no socket is left alone: bind fails for it.
func clearPath(path string) error {
	switch st, err := os.Lstat(path); {
	case err != nil || st.Mode()&fs.ModeSocket == 0:
		return nil
	case !refused(path):
		return fmt.Errorf("%s: another process listens there: %w", path, unix.EADDRINUSE)
	}
	return os.Remove(path)
}

// isSocket reports whether the file is a socket, and no link to one.
func isSocket(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode()&fs.ModeSocket != 0
}

// refused reports whether nobody listens at the path.
func refused(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, unix.ECONNREFUSED)
}

// clearStale removes the sockets of masters that are gone. One whose process lives may
// be bound and not listen yet.
func clearStale(dir string) {
	all, _ := filepath.Glob(filepath.Join(dir, "*.*.sock"))
	for _, path := range all {
		parts := strings.Split(filepath.Base(path), ".")
		pid, err := strconv.Atoi(parts[len(parts)-2])
		if err == nil && (pid == os.Getpid() || unix.Kill(pid, 0) == unix.ESRCH) {
			clearPath(path)
		}
	}
}

// socketDir returns the directory of the default sockets, and makes it.
func socketDir() (string, error) {
	dir, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":") // systemd gives several so
	if dir == "" {
		dir = os.Getenv("XDG_RUNTIME_DIR")
	}
	if dir == "" && os.Getuid() == 0 {
		dir = "/run"
	}
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "cluster-"+strconv.Itoa(os.Getuid()))
		if err := ownDir(dir); err != nil {
			return "", err
		}
	}
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("%s is no absolute path", dir)
	}
	dir = filepath.Join(dir, "cluster")
	return dir, ownDir(dir)
}

// ownDir makes a directory that is this user's alone, or checks that it is. In /tmp
// anybody may have made it first.
func ownDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !st.IsDir():
		return fmt.Errorf("%s is no directory, or a symbolic link", dir)
	case !ok || int(sys.Uid) != os.Geteuid():
		return fmt.Errorf("%s is another user's", dir)
	case st.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s has mode %v: it must be the user's alone (0700)", dir, st.Mode().Perm())
	}
	return nil
}

// lead makes the link lead to the socket, in one step.
func lead(link, path string) error {
	tmp := path + ".link"
	os.Remove(tmp)
	if err := os.Symlink(filepath.Base(path), tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, link); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}

// leadOn makes the link lead to another master of the program, the youngest that
// lives, if it led to this one's socket.
func leadOn(link, path string) {
	if to, err := os.Readlink(link); err != nil || to != filepath.Base(path) {
		return
	}
	program := strings.TrimSuffix(link, ".sock")
	all, _ := filepath.Glob(globbed(program) + ".*.sock")
	slices.SortFunc(all, func(a, b string) int { return born(b).Compare(born(a)) })
	for _, other := range all {
		pid := strings.TrimSuffix(strings.TrimPrefix(other, program+"."), ".sock")
		// Of a program with a longer name, whose link may end in a number (web.5.sock).
		if _, err := strconv.Atoi(pid); err != nil || !isSocket(other) {
			continue
		}
		if other == path || refused(other) {
			continue
		}
		if lead(link, other) == nil {
			return
		}
	}
	os.Remove(link)
}

// globbed is the path as a pattern that is only itself.
func globbed(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func born(path string) time.Time {
	st, err := os.Lstat(path)
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}

// fileName is a program's name as a part of a file's: with letters, digits, and "-_",
// and "." within.
func fileName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r) {
			return r
		}
		return '_'
	}, name)
	return strings.TrimLeft(name, ".") // no hidden file
}
