//go:build unix

package socket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The file of a unix socket: its mode and owner, its removal, and its replacement if its
// server has died. Every step is taken in one open directory, and only on the very file that
// was found there. So the owner of the directory cannot lead a process astray that may do
// more than he may.

// maxPath is the length of the longest path for bind(2), in bytes, on the systems with the
// least room.
const maxPath = 103

// place is where the file of a unix socket is, or is to be.
type place struct {
	dir  int    // descriptor of the directory, or AT_FDCWD
	name string // in dir
	path string // for bind(2) and connect(2), which take no directory
	firm bool   // no other user can change where path leads
}

// place finds the place of a's file.
func (a Address) place() (*place, error) {
	if a.Guarded {
		return guardedPlace(a.Literal)
	}
	p := &place{dir: unix.AT_FDCWD, name: a.Literal, path: shortPath(a.Literal), firm: true}
	if fd, err := openDir(filepath.Dir(a.Literal)); err == nil {
		p.dir, p.name = fd, filepath.Base(a.Literal)
	}
	return p, nil
}

func (p *place) close() {
	if p.dir != unix.AT_FDCWD {
		unix.Close(p.dir)
	}
}

// fileID names a file. No other file has the same ID as long as the socket is open.
type fileID struct{ dev, ino uint64 }

func idOf(st *unix.Stat_t) fileID { return fileID{uint64(st.Dev), uint64(st.Ino)} }

// socket returns the ID of the file in this place, if it is a socket.
func (p *place) socket() (id fileID, ok bool) {
	var st unix.Stat_t
	if err := unix.Fstatat(p.dir, p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fileID{}, false
	}
	return idOf(&st), st.Mode&unix.S_IFMT == unix.S_IFSOCK
}

// remove removes the socket id, unless another file has its place by now.
func (p *place) remove(id fileID) error {
	if now, ok := p.socket(); !ok || now != id {
		return nil
	}
	return unix.Unlinkat(p.dir, p.name, 0)
}

// UnixFile is the file of a unix socket that this process has made. A nil *UnixFile stands
// for no file.
type UnixFile struct {
	a  Address
	id fileID
}

// fileState is a UnixFile as data.
type fileState struct {
	Address  Address
	Dev, Ino uint64
}

// MarshalJSON encodes f for the program that goes on after an upgrade.
func (f *UnixFile) MarshalJSON() ([]byte, error) {
	return json.Marshal(fileState{f.a, f.id.dev, f.id.ino})
}

// UnmarshalJSON reads what MarshalJSON has written.
func (f *UnixFile) UnmarshalJSON(b []byte) error {
	var s fileState
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*f = UnixFile{s.Address, fileID{s.Dev, s.Ino}}
	return nil
}

// File returns the file of a's socket, which is open, or nil if it has none.
func (a Address) File() *UnixFile { return a.file() }

func (a Address) file() *UnixFile {
	if !a.HasFile() {
		return nil
	}
	p, err := a.place()
	if err != nil {
		return nil
	}
	defer p.close()
	id, ok := p.socket()
	if !ok {
		return nil
	}
	return &UnixFile{a, id}
}

// Unlink removes the file. It leaves a file alone that another process has put in its place.
func (f *UnixFile) Unlink() {
	if f == nil {
		return
	}
	if p, err := f.a.place(); err == nil {
		p.remove(f.id)
		p.close()
	}
}

// Gone reports whether somebody has removed the file, or has put another one in its place.
// Then no client reaches the socket by its path any more.
func (f *UnixFile) Gone() bool {
	if f == nil {
		return false
	}
	now := f.a.file()
	return now == nil || now.id != f.id
}

// Unlinker returns the Unlink of a's File.
func (a Address) Unlinker() func() { return a.file().Unlink }

// SetModeAndOwner gives a unix socket's file the mode and the owner of a, whatever the
// umask.
func (a Address) SetModeAndOwner() error {
	if !a.HasFile() || a.Mode == 0 && a.Owner == nil {
		return nil
	}
	p, err := a.place()
	if err != nil {
		return err
	}
	defer p.close()
	return p.set(a.Mode, a.Owner)
}

// Locate sets a.Where, the place of a unix socket's file. It is a part of the Key, so that
// two paths to one directory are one address. If there is no such directory, Where stays
// empty.
func (a *Address) Locate() error {
	if !a.HasFile() {
		return nil
	}
	p, err := a.place()
	if err != nil {
		return err
	}
	defer p.close()
	var st unix.Stat_t
	if p.dir != unix.AT_FDCWD && unix.Fstat(p.dir, &st) == nil {
		id := idOf(&st)
		a.Where = fmt.Sprintf("%d:%d/%s", id.dev, id.ino, p.name)
	}
	return nil
}

// bind calls open with a's address, and gives the file of a unix socket its mode and owner.
// If the file of a dead server is in the way, bind removes it and calls open once more.
func bind[T io.Closer](ctx context.Context, a Address, open func(literal string) (T, error)) (s T, f *UnixFile, err error) {
	if !a.HasFile() {
		s, err = open(a.Literal)
		return s, nil, err
	}
	p, err := a.place()
	if err != nil {
		return s, nil, err
	}
	defer p.close()
	if s, err = open(p.path); errors.Is(err, unix.EADDRINUSE) {
		s, err = replace(ctx, a.Network, p, open, err)
	}
	if err != nil {
		return s, nil, err
	}
	id, ok := p.socket()
	if !ok {
		err = &Reason{unix.EADDRINUSE, "the socket's file was removed or replaced in the same moment"}
	} else if a.Mode != 0 || a.Owner != nil {
		err = p.set(a.Mode, a.Owner)
	}
	if err != nil {
		s.Close()
		return s, nil, err
	}
	return s, &UnixFile{a, id}, nil
}

// replace removes the file if its server is gone, and calls open again. If the server lives,
// it returns inUse, the error of the first call.
func replace[T io.Closer](ctx context.Context, network string, p *place, open func(string) (T, error), inUse error) (s T, err error) {
	if _, gone := p.stale(network); !gone {
		return s, inUse
	}
	// If two masters start at once, the second must not take the socket that the first
	// has just made for the stale one.
	unlock, err := p.lock(ctx)
	if err != nil {
		return s, err
	}
	defer unlock()
	id, gone := p.stale(network)
	if !gone {
		return s, inUse
	}
	if err := p.remove(id); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, os.NewSyscallError("unlink", err)
	}
	return open(p.path)
}

// Another process of this package has the directory's lock for as long as a replacement
// takes. A process that has it longer is another program, with a reason of its own.
const (
	lockPatience = 3 * time.Second
	lockInterval = 10 * time.Millisecond // no event tells that it is free
)

// lock keeps other processes that use this package from replacing sockets in the directory.
// If this process may not read the directory, there is no lock.
func (p *place) lock(ctx context.Context) (unlock func(), err error) {
	dir := "."
	if p.dir == unix.AT_FDCWD {
		dir = filepath.Dir(p.name)
	}
	fd, err := unix.Openat(p.dir, dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return func() {}, nil
	}
	end := time.Now().Add(lockPatience)
	for {
		switch err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil:
			return func() { unix.Close(fd) }, nil
		case err != unix.EWOULDBLOCK && err != unix.EINTR: // a file system without locks
			unix.Close(fd)
			return func() {}, nil
		case time.Now().After(end):
			unix.Close(fd)
			return nil, &Reason{unix.EADDRINUSE, fmt.Sprintf("its server is gone, but another program has held a lock (flock) on the directory for %v, so the file is not replaced; remove it", lockPatience)}
		}
		select {
		case <-time.After(lockInterval):
		case <-ctx.Done():
			unix.Close(fd)
			return nil, ctx.Err()
		}
	}
}

// shortPath makes a path relative that is too long for bind(2), as node does.
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

// stale reports whether the socket in this place refuses connections: its server is gone.
func (p *place) stale(network string) (id fileID, gone bool) {
	path, id, done, ok := p.reach()
	if !ok {
		return fileID{}, false
	}
	defer done()
	c, err := net.Dial(network, path)
	if err == nil {
		c.Close()
	}
	return id, errors.Is(err, unix.ECONNREFUSED)
}
