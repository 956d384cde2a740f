package process

import (
	"io"
	"os"
)

// tapped is a writer that passes what it is given to a tap as well.
type tapped struct {
	to     io.Writer
	stream string
	tap    func(stream string, lines []byte)
}

func (t *tapped) Write(p []byte) (int, error) {
	t.tap(t.stream, p)
	return t.to.Write(p)
}

// ownOutput is this process's standard output (1) or error (2) as a writer.
type ownOutput int

func (fd ownOutput) Write(p []byte) (int, error) {
	writeOwn(int(fd), p)
	return len(p), nil
}

// tap puts the tap of the spec into the way of what the process writes.
func (p *Process) tap(spec *Spec, out, err *io.Writer, same bool) {
	if p.tail != nil {
		p.through[2], p.tail.tapped = p.tail.to == nil, true
	}
	*out = p.tapOne(spec, *out, 1, "stdout")
	if same {
		*err = *out
		return
	}
	*err = p.tapOne(spec, *err, 2, "stderr")
}

func (p *Process) tapOne(spec *Spec, w io.Writer, fd int, stream string) io.Writer {
	own := [...]*os.File{1: os.Stdout, 2: os.Stderr}[fd]
	switch _, isFile := w.(*os.File); {
	case isFile, w == io.Discard, w == nil && (!spec.TapOwn || !isOpen(own)):
		return w
	case w == nil:
		p.through[fd], w = true, ownOutput(fd)
	}
	return &tapped{to: w, stream: stream, tap: spec.Tap}
}

// Through reports whether what the process writes to its standard output (1) or error
// (2) passes through this process only to be tapped, on the way to this process's own.
// When this process is gone the other one has to write there directly: see [DupOwn].
func (p *Process) Through(fd int) bool { return p != nil && p.through[fd] }
