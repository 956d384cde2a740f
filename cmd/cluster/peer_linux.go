package main

import (
	"bytes"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// listenerOf is the pid of who listens at the other end, 0 if that is not known.
func listenerOf(c net.Conn) (pid int) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0
	}
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// stopped reports whether a process has been stopped by a signal or a debugger.
func stopped(pid int) bool {
	s := state(pid)
	return s == 'T' || s == 't'
}

// isOver reports whether there is no such process any more, or nothing of it but its exit
// status.
func isOver(pid int) bool {
	return unix.Kill(pid, 0) == unix.ESRCH || state(pid) == 'Z'
}

// state is the letter that the kernel has for a process's, 0 if it does not tell.
func state(pid int) byte {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) == 0 {
		return 0
	}
	return f[0][0]
}
