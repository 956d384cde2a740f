//go:build unix && !linux

package socket

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// openDir opens a directory.
func openDir(path string) (int, error) {
	return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// loosePlace returns an error: in a directory that another user can change, nobody can tell
// where a path leads, and bind(2) knows only paths here.
func loosePlace(firm string, rest []string, name string) (*place, error) {
	return nil, &Reason{unix.EACCES, "another user can change the directory, and on this system no socket can be made there safely for workers that run as another user"}
}

// reach returns a path to the socket in this place, which is good until done is called.
func (p *place) reach() (path string, id fileID, done func(), ok bool) {
	id, ok = p.socket()
	return p.path, id, func() {}, ok
}

// set gives the socket's file its owner, and its mode unless that is 0.
func (p *place) set(mode fs.FileMode, owner *Owner) error {
	if owner != nil {
		if err := unix.Fchownat(p.dir, p.name, owner.UID, owner.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return os.NewSyscallError("chown", err)
		}
	}
	if mode == 0 {
		return nil
	}
	return os.NewSyscallError("chmod", unix.Fchmodat(p.dir, p.name, uint32(mode.Perm()), unix.AT_SYMLINK_NOFOLLOW))
}
