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

// The way to a directory for a master whose workers run as another user. It opens the paths
// that they ask for, with rights that they do not have. So that user must not be able to
// lead it to another place.

// maxLinks is how many symbolic links a path may have, as for the kernel.
const maxLinks = 40

// guardedPlace finds the place at path. It follows a symbolic link only where nobody but
// root and this process's user can have put one.
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

// walk goes down dir from the root, as long as no other user can change the way. It returns
// the directory where it stopped, as a path without symbolic links, and the rest of the way.
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
		if !trusted(info) { // a firm directory may have others' links in it, as /tmp has
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

// parts returns the names in a path.
func parts(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// isFirm reports whether nobody but root and this user can replace or remove the entries of
// dir that they have not made. With the sticky bit set others cannot, even if they may write
// to dir.
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

// refusedLink returns the error for a symbolic link that is not followed.
func refusedLink(path string) error {
	return &Reason{unix.EACCES, fmt.Sprintf("%q is no directory, or a symbolic link that another user could have made, which is not followed for workers that run as another user", path)}
}
