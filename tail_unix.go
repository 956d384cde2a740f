//go:build unix

package cluster

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// tail keeps the last words of a worker that is not ready: of 4 KiB at most.
type tail struct {
	direct bool // what it writes goes to the master's own standard error

	mu   sync.Mutex
	text []byte
}

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if extra := len(t.text) - tailSize; extra > 0 {
		t.text = append(t.text[:0], t.text[extra:]...)
	}
	return len(p), nil
}

// handOver gives a worker that is ready the master's own standard error in
// place of the pipe: the master is in nobody's log path, and the pipe's end
// with the master's cannot cost a worker that still drains its SIGPIPE.
func (t *tail) handOver(p *Process) {
	if t == nil || !t.direct || p.link == nil || !p.link.speaksOurs() {
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
