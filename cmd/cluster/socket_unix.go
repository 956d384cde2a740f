//go:build unix

package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"
)

// usable reports whether the file is a socket of this user; root may use all.
func usable(path string) bool {
	uid, ok := owner(path)
	return ok && (uid == os.Geteuid() || os.Geteuid() == 0)
}

// owner is whose socket the file is.
func owner(path string) (uid int, ok bool) {
	st, err := os.Lstat(path)
	if err != nil || st.Mode()&fs.ModeSocket == 0 {
		return 0, false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(sys.Uid), true
}

// ownerName is its user's name.
func ownerName(path string) string {
	uid, ok := owner(path)
	if !ok {
		return ""
	}
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return plain(u.Username)
	}
	return strconv.Itoa(uid)
}

// answers reports whether somebody listens at the path, who may be busy.
func answers(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
	}
	return err == nil || busy(err)
}

// gone reports whether an error says that nobody listens there.
func gone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
}

// busy reports whether an error says that the queue of those who want to ask is full.
func busy(err error) bool { return errors.Is(err, syscall.EAGAIN) }
