//go:build unix

package cluster

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// tail passes on what a worker writes to its standard error, and keeps its last
// words, of 4 KiB at most, until it is ready.
type tail struct {
	to io.Writer // nil: the master's own standard error

	mu   sync.Mutex
	text []byte
	over bool
}

const tailSize = 4 << 10

// tailOf returns what takes p's standard error in place of w. There is none for
// a file, for io.Discard, and for another program that inherits the master's: it
// may be one that could not be handed that later.
func tailOf(p *Process, w io.Writer) io.Writer {
	if _, isFile := w.(*os.File); isFile || w == io.Discard || w == nil && p.child.opts.Exec != "" {
		return w
	}
	p.child.stderr = &tail{to: w}
	return p.child.stderr
}

func (t *tail) Write(p []byte) (int, error) {
	t.keep(p)
	if t.to != nil {
		return t.to.Write(p)
	}
	writeStderr(p)
	return len(p), nil
}

func (t *tail) keep(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	t.text = append(t.text, p...)
	if extra := len(t.text) - tailSize; extra > 0 {
		t.text = append(t.text[:0], t.text[extra:]...)
	}
}

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
		p.link.sendHandle(typeNative, &wire{Act: actStderr}, newHandle(fd))
	}
}

// takeStderr puts h in the place of this worker's standard error, if that is
// still the pipe that it began with.
func takeStderr(h *handle) {
	var st unix.Stat_t
	if unix.Fstat(2, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		dupOver(h.fd, 2)
	}
}

// lastOutput is what the worker said before it was ready, for an error message.
func (p *Process) lastOutput() string {
	t := p.child.stderr
	if t == nil {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.text) == 0 {
		return ""
	}
	return fmt.Sprintf("; its last words: %q", t.text)
}
