//go:build unix

package cluster

import (
	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/wire"
)

// writeStderr writes to this process's standard error. If that is a pipe which
// nobody reads any more, os.Stderr.Write would end the process: a worker's log
// line must not do that to the master.
func writeStderr(p []byte) {
	for len(p) > 0 {
		n, err := unix.Write(2, p)
		switch {
		case err == unix.EAGAIN:
			unix.Poll([]unix.PollFd{{Fd: 2, Events: unix.POLLOUT}}, -1)
		case err != nil && err != unix.EINTR:
			return
		}
		p = p[max(0, n):]
	}
}

// handOver gives a worker that is ready the master's own standard error in
// place of the pipe: the master is in nobody's log path, and the pipe's end
// with the master's cannot cost a worker that still drains its SIGPIPE.
func (t *tail) handOver(p *Process) {
	if t == nil {
		return
	}
	t.mu.Lock()
	before := t.over
	t.text, t.over = nil, true
	t.mu.Unlock()
	if before || t.to != nil || p.link == nil || !p.link.speaksOurs() {
		return
	}
	if fd, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3); err == nil {
		p.link.sendHandle(wire.TypeNative, &wire.Message{Act: wire.ActStderr}, handle.New(fd))
	}
}

// takeStderr puts h in the place of this worker's standard error, if that is
// still the pipe that it began with.
func takeStderr(h *handle.Handle) {
	var st unix.Stat_t
	if unix.Fstat(2, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		dupOver(h.FD(), 2)
	}
}
