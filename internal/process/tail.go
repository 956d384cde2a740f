package process

import (
	"io"
	"os"
	"sync"
)

// stderrTail passes on what a process writes to its standard error, and keeps the
// end of it, of 4 KiB at most, until the process does its work.
type stderrTail struct {
	to io.Writer // nil: this process's own standard error

	mu      sync.Mutex
	text    []byte // the end of what was written
	settled bool   // it is kept no longer
	tapped  bool   // the output passes through here for all the process's life; constant
}

const tailSize = 4 << 10

// hasTail reports whether the tail of what goes to w can be kept. It cannot for a file,
// to which the process writes itself.
func hasTail(w io.Writer) bool {
	_, isFile := w.(*os.File)
	return !isFile && w != io.Discard
}

// Write keeps p and passes it on.
func (t *stderrTail) Write(p []byte) (int, error) {
	t.keep(p)
	if t.to != nil {
		return t.to.Write(p)
	}
	writeOwn(2, p)
	return len(p), nil
}

func (t *stderrTail) keep(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.settled {
		return
	}
	t.text = append(t.text, p...)
	if extra := len(t.text) - tailSize; extra > 0 {
		t.text = append(t.text[:0], t.text[extra:]...)
	}
}

// LastWords is the end of what the process has written to its standard error
// before Settle, if that is kept.
func (p *Process) LastWords() string {
	if p == nil || p.tail == nil {
		return ""
	}
	p.tail.mu.Lock()
	defer p.tail.mu.Unlock()
	return string(p.tail.text)
}

// Settle ends the keeping of the tail, since the process does its work. It reports, once,
// whether the process's standard error passes through here only to get to this process's
// own. Then the process may be given that instead (see [DupOwn]). Its log needs no detour
// any more, and when this process ends no pipe breaks: a SIGPIPE would end a process that
// still drains.
func (p *Process) Settle() (own bool) {
	if p == nil || p.tail == nil {
		return false
	}
	t := p.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	own = !t.settled && t.to == nil && !t.tapped
	t.text, t.settled = nil, true
	return own
}
