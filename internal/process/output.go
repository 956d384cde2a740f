package process

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/callback"
)

// outputPipes copy a process's output to the writers that it is for.
type outputPipes struct {
	close  []io.Closer // the process's ends, which this process must not keep
	copies []*outputCopy
}

// outputCopy is the copying from one pipe.
type outputCopy struct {
	r       *os.File
	w       io.Writer
	all     *leftovers
	stream  stream
	writing atomic.Bool   // the writer has been called, and has not returned
	done    chan struct{} // closed at its end
	over    bool          // it is at its end; under the lock of all

	pause copyPause
	rest  []byte // of a line that is half read; of the copying goroutine, or of who has paused it
}

// stream is what a copy is of.
type stream string

const (
	ofStdout stream = "stdout"
	ofStderr stream = "stderr"
	ofBoth   stream = "both"
)

func (c *outputCopy) run() {
	defer close(c.done)
	defer c.all.remove(c)
	defer c.r.Close()
	// A writer that fails must not stop the process.
	discard := func() {
		for c.paused(func() error { _, err := io.Copy(io.Discard, c.r); return err }) {
		}
	}
	callback.Guard(func() {
		var err error
		for c.paused(func() error { c.rest, err = copyLines(c, c.r, c.rest); return err }) {
		}
		if err != nil {
			discard()
		}
	}, discard)
}

func (c *outputCopy) Write(p []byte) (int, error) {
	c.writing.Store(true)
	defer c.writing.Store(false)
	return c.w.Write(p)
}

// leftovers are the copies of a Launcher that have outlived their processes. Most are of
// pipes that other processes hold open. But a writer that never returns keeps a descriptor
// and a goroutine, and each process may have such a writer.
type leftovers struct {
	mu    sync.Mutex
	all   map[*outputCopy]bool
	order []*outputCopy // those in all and some that are over, oldest first
}

// maxLeft is how many pipes of processes that have ended are kept: other processes that
// hold them open may still print. Beyond that the oldest is closed. Each worker may leave
// such a process behind, and the descriptors are needed to start the next one.
const maxLeft = 64

// maxStuck is how many writers of processes that have ended may hang. While so many do,
// the output of further processes is thrown away.
const maxStuck = 8

func (l *leftovers) add(c *outputCopy) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.over {
		return
	}
	if l.all == nil {
		l.all = make(map[*outputCopy]bool)
	}
	l.all[c] = true
	l.order = append(slices.DeleteFunc(l.order, func(c *outputCopy) bool { return c.over }), c)
	if n := len(l.order) - maxLeft; n > 0 {
		for _, old := range l.order[:n] {
			old.r.Close() // run sees to the rest, unless its writer hangs
		}
		l.order = slices.Delete(l.order, 0, n)
	}
}

func (l *leftovers) remove(c *outputCopy) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.over = true
	delete(l.all, c)
}

// stuck reports whether too many writers hang.
func (l *leftovers) stuck() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for c := range l.all {
		if c.writing.Load() {
			n++
		}
	}
	return n >= maxStuck
}

// pipeOutput sets cmd's standard output and error.
func (p *Process) pipeOutput(cmd *exec.Cmd, spec *Spec) (failed error) {
	out, err := spec.Stdout, spec.Stderr
	// One pipe for both keeps the lines in order and the writer's calls apart.
	same := err != nil && sameWriter(err, out)
	stuck := p.launcher.leftovers.stuck()
	if stuck {
		p.mute(&out)
		p.mute(&err)
	}
	if spec.KeepTail && hasTail(err) && !stuck {
		p.tail = &stderrTail{to: err}
		err = p.tail
	}
	if same {
		out = err
	}
	if spec.Tap != nil && !stuck {
		p.tap(spec, &out, &err, same)
	}
	o := &p.output
	if cmd.Stdout, failed = p.target(out, os.Stdout); failed != nil {
		return failed
	}
	if same {
		o.name(0, ofBoth)
		cmd.Stderr = cmd.Stdout
		return nil
	}
	o.name(0, ofStdout)
	n := len(o.copies)
	if cmd.Stderr, failed = p.target(err, os.Stderr); failed != nil {
		o.begin()
	}
	o.name(n, ofStderr)
	return failed
}

// name sets the stream of the copies from the n-th on.
func (o *outputPipes) name(n int, of stream) {
	for _, c := range o.copies[n:] {
		c.stream = of
	}
}

// mute makes w io.Discard, unless it is a file or nil: a writer may hang.
func (p *Process) mute(w *io.Writer) {
	if _, file := (*w).(*os.File); *w != nil && !file && *w != io.Discard {
		*w, p.Muted = io.Discard, errStuck
	}
}

var errStuck = fmt.Errorf("the writers of %d processes that have ended hang", maxStuck)

// sameWriter compares two writers, whose type may not be comparable: then == panics.
func sameWriter(a, b io.Writer) bool {
	defer func() { recover() }()
	return a == b
}

// target returns the file that the process gets for w. It never returns another writer:
// for such a one package exec would wait for the process's own children too.
func (p *Process) target(w io.Writer, inherit *os.File) (io.Writer, error) {
	o := &p.output
	switch w {
	case nil:
		if !isOpen(inherit) {
			return nil, nil // closed in this process: /dev/null
		}
		return o.file(inherit), nil
	case io.Discard:
		return nil, nil
	}
	if f, ok := w.(*os.File); ok {
		return o.file(f), nil
	}
	r, pw, err := outputPipe()
	if err != nil {
		return nil, err
	}
	o.close = append(o.close, pw)
	o.copies = append(o.copies, &outputCopy{r: r, w: w, all: &p.launcher.leftovers, done: make(chan struct{})})
	return pw, nil
}

// file returns what the process gets for f. For a pipe that is an open file of its own,
// where the system can make one: if the process makes it non-blocking, no other process
// that has the pipe notices.
func (o *outputPipes) file(f *os.File) *os.File {
	own := reopenPipe(f)
	if own == nil {
		return f
	}
	o.close = append(o.close, own)
	return own
}

// begin begins the copying. It is called when the process has its ends of the pipes, or
// could not be started.
func (o *outputPipes) begin() {
	for _, c := range o.close {
		c.Close()
	}
	for _, c := range o.copies {
		go c.run()
	}
}

// outputGrace is how long drain waits for the last output. A grandchild may hold the pipe
// open for ever: then the copying goes on behind drain.
const outputGrace = 250 * time.Millisecond

// drain waits until the output has been copied.
func (o *outputPipes) drain() {
	if len(o.copies) == 0 {
		return
	}
	grace := time.NewTimer(outputGrace)
	defer grace.Stop()
	for i, c := range o.copies {
		select {
		case <-c.done:
			continue
		case <-grace.C:
		}
		for _, left := range o.copies[i:] {
			left.all.add(left)
		}
		return
	}
}
