package process

import (
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// outputPipes copy a process's output to the writers that it is for.
type outputPipes struct {
	close   []io.Closer // what the process has and this one must not keep
	copies  []func()
	copying sync.WaitGroup
}

// pipeOutput sets cmd's standard output and error.
func (p *Process) pipeOutput(cmd *exec.Cmd, spec *Spec) (failed error) {
	out, err := spec.Stdout, spec.Stderr
	// One pipe for both keeps the lines in order and the writer's calls apart.
	same := err != nil && sameWriter(err, out)
	if spec.KeepTail && hasTail(err) {
		p.tail = &stderrTail{to: err}
		err = p.tail
	}
	if same {
		out = err
	}
	o := &p.output
	if cmd.Stdout, failed = o.target(out, os.Stdout); failed != nil {
		return failed
	}
	if same {
		cmd.Stderr = cmd.Stdout
		return nil
	}
	if cmd.Stderr, failed = o.target(err, os.Stderr); failed != nil {
		o.begin()
	}
	return failed
}

// sameWriter compares two writers, of which the type may not be comparable.
func sameWriter(a, b io.Writer) bool {
	defer func() { recover() }()
	return a == b
}

// target returns the file that the process gets for w: never another writer, for
// which package exec would wait for the process's own children too.
func (o *outputPipes) target(w io.Writer, inherit *os.File) (io.Writer, error) {
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
	o.copies = append(o.copies, func() {
		defer o.copying.Done()
		defer r.Close()
		if err := copyLines(w, r); err != nil {
			io.Copy(io.Discard, r) // a writer that fails must not stop the process
		}
	})
	return pw, nil
}

// file returns what the process gets for f: if that is a pipe, an open file of its
// own where that is possible, so that what it does to it is nobody else's trouble.
func (o *outputPipes) file(f *os.File) *os.File {
	own := reopenPipe(f)
	if own == nil {
		return f
	}
	o.close = append(o.close, own)
	return own
}

// begin lets the copying begin, once the process has its ends or never will.
func (o *outputPipes) begin() {
	for _, c := range o.close {
		c.Close()
	}
	for _, copy := range o.copies {
		o.copying.Add(1)
		go copy()
	}
}

// outputGrace is how long a death waits for the last output. A grandchild can
// hold the pipe open for ever; its output is copied on.
const outputGrace = 250 * time.Millisecond

// drain waits until the output has been copied.
func (o *outputPipes) drain() {
	if len(o.copies) == 0 {
		return
	}
	done := make(chan struct{})
	go func() {
		o.copying.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(outputGrace):
	}
}
