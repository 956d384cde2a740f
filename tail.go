package cluster

import (
	"io"
	"os"
	"sync"
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

// lastWords is what the worker said before it was ready, for an error message.
func (p *Process) lastWords() string {
	t := p.child.stderr
	if t == nil {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
