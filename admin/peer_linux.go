package admin

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// peer is who connected to the socket.
type peer struct {
	conn     syscall.RawConn
	uid, pid int
	err      error // why that is not known
}

// peerOf asks the kernel, which noted it when the connection was made.
func peerOf(c *net.UnixConn) *peer {
	raw, err := c.SyscallConn()
	if err != nil {
		return &peer{err: err}
	}
	p := &peer{conn: raw}
	ctl := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			p.uid, p.pid = int(cred.Uid), int(cred.Pid)
		}
	})
	p.err = errors.Join(ctl, err)
	return p
}

// maxDepth bounds the way up: a table of processes that changes has no loop, but what
// is read of it may.
const maxDepth = 256

// descends reports whether the process is one of the workers, or has one above it. One
// that has ended, whose number may be another's by now, counts as one. Number 0 is a
// process outside this namespace of numbers, which none of them is.
func (p *peer) descends(workers map[int]bool) bool {
	if p.err != nil {
		return true
	}
	descends := false
	for pid, depth := p.pid, 0; pid > 1; depth++ {
		above, ok := parentOf(pid)
		if workers[pid] || !ok || depth == maxDepth {
			descends = true
			break
		}
		pid = above
	}
	return descends || p.ended()
}

// ended reports whether the process that connected is gone, where the kernel tells.
func (p *peer) ended() (ended bool) {
	p.conn.Control(func(fd uintptr) {
		pidfd, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		switch {
		case err == unix.ESRCH || err == unix.EINVAL:
			ended = err == unix.ESRCH
			return
		case err != nil:
			return // an older kernel
		}
		defer unix.Close(pidfd)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
		ended = err == nil && n > 0
	})
	return ended
}

// parentOf reads the number of a process's parent.
func parentOf(pid int) (parent int, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	// The name, in parentheses, may have any character.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 2 {
		return 0, false
	}
	parent, err = strconv.Atoi(string(f[1]))
	return parent, err == nil
}
