//go:build unix

package socket

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The way to a directory, for a process that other users must not lead astray: for
// a master that opens what workers of another user ask for.

// maxLinks is how many symbolic links a path may have, as for the kernel.
const maxLinks = 40

// guardedPlace finds the place at path. Symbolic links are followed only where root
// or this process's user has put them, and nobody else can.
func guardedPlace(path string) (*place, error) {
	firm, rest, err := walk(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	name := filepath.Base(path)
	if len(rest) == 0 && isFirm(firm) {
		fd, err := openDir(firm)
		if err != nil {
			return nil, os.NewSyscallError("open", err)
		}
		return &place{dir: fd, name: name, path: shortPath(path), firm: true}, nil
	}
	return loosePlace(firm, rest, name)
}

// walk goes down dir from the root. It returns the directory, without symbolic
// links in its path, from which on others can change what is there, and what is
// left of the way then.
func walk(dir string) (firm string, rest []string, err error) {
	firm, rest = "/", parts(dir)
	for links := 0; len(rest) > 0; {
		if !isFirm(firm) {
			return firm, rest, nil
		}
		if rest[0] == ".." {
			firm, rest = filepath.Dir(firm), rest[1:]
			continue
		}
		next := filepath.Join(firm, rest[0])
		info, err := os.Lstat(next)
		if err != nil {
			return "", nil, err
		}
		rest = rest[1:]
		if info.Mode()&os.ModeSymlink == 0 {
			firm = next
			continue
		}
		if links++; links > maxLinks {
			return "", nil, os.NewSyscallError("open", unix.ELOOP)
		}
		if !trusted(info) { // others put links into a directory as /tmp, too
			return "", nil, refusedLink(next)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", nil, err
		}
		if filepath.IsAbs(target) {
			firm = "/"
		}
		rest = append(parts(target), rest...)
	}
	return firm, rest, nil
}

// parts are the names in a path.
func parts(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// isFirm reports whether nobody but root and this user can change what dir's
// entries are: put others in their places, that is, which those who may write to
// it cannot if its sticky bit is set.
func isFirm(dir string) bool {
	info, err := os.Lstat(dir)
	return err == nil && info.IsDir() && trusted(info) &&
		(info.Mode().Perm()&0o022 == 0 || info.Mode()&os.ModeSticky != 0)
}

// trusted reports whether root or this user owns a file.
func trusted(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int(st.Uid) == os.Geteuid())
}

// refusedLink is the error for a symbolic link that is not followed.
func refusedLink(path string) error {
	return &Reason{unix.EACCES, fmt.Sprintf("%q is no directory, or a symbolic link that another user could have made, which is not followed for workers that run as another user", path)}
}
