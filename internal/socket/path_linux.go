package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// openDir opens a directory, even one that this process may not read.
func openDir(path string) (int, error) {
	return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// loosePlace goes on from firm, the directory from which on other users can change the way.
// It follows no link. bind(2) then gets to the place by the open directory.
func loosePlace(firm string, rest []string, name string) (*place, error) {
	fd, err := openDir(firm)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	for _, part := range rest {
		firm = filepath.Join(firm, part)
		next, err := unix.Openat(fd, part, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		switch {
		case part == ".." || err == unix.ENOTDIR || err == unix.ELOOP:
			if err == nil {
				unix.Close(next)
			}
			return nil, refusedLink(firm)
		case err != nil:
			return nil, os.NewSyscallError("open", err)
		}
		fd = next
	}
	p := &place{dir: fd, name: name, path: fmt.Sprintf("/proc/self/fd/%d/%s", fd, name)}
	if _, err := os.Lstat(filepath.Dir(p.path)); err != nil {
		p.close()
		return nil, &Reason{unix.EACCES, "another user can change the directory, and without /proc no socket can be made there safely"}
	}
	return p, nil
}

// reach returns a path to the socket in this place, which is good until done is called.
func (p *place) reach() (path string, id fileID, done func(), ok bool) {
	if p.firm {
		id, ok = p.socket()
		return p.path, id, func() {}, ok
	}
	fd, st, err := p.entry()
	if err != nil {
		return "", fileID{}, nil, false
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), idOf(&st), func() { unix.Close(fd) }, true
}

// entry opens the socket's file itself.
func (p *place) entry() (fd int, st unix.Stat_t, err error) {
	fd, err = unix.Openat(p.dir, p.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, st, err
	}
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		err = unix.ENOTSOCK
	}
	if err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// set gives the socket's file its owner, and its mode unless that is 0. In a directory that
// other users can change, the file must be one that this process has made: it belongs to this
// user and has one link. Another user cannot make such a file.
func (p *place) set(mode fs.FileMode, owner *Owner) error {
	fd, st, err := p.entry()
	if err == nil && !p.firm && (int(st.Uid) != os.Geteuid() || st.Nlink != 1) {
		unix.Close(fd)
		err = unix.ENOTSOCK
	}
	if err == unix.ENOTSOCK || err == unix.ENOENT {
		return &Reason{unix.EACCES, "the socket's file was replaced before it had its mode"}
	}
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	if owner != nil {
		if err := unix.Fchownat(fd, "", owner.UID, owner.GID, unix.AT_EMPTY_PATH); err != nil {
			return os.NewSyscallError("chown", err)
		}
	}
	if mode == 0 || st.Mode&0o777 == uint32(mode.Perm()) {
		return nil
	}
	err = unix.Fchmodat(fd, "", uint32(mode.Perm()), unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // before Linux 6.6, or under a seccomp filter that does not know the call
		err = unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), uint32(mode.Perm()))
	}
	return os.NewSyscallError("chmod", err)
}
