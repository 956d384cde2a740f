package cluster

import (
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// outputPipes copy a worker's output to the writers of Options.Output.
type outputPipes struct {
	close   []io.Closer // what the worker has and the master must not keep
	begin   []func()
	copying sync.WaitGroup
}

// newOutputPipes sets cmd's standard output and error.
func newOutputPipes(p *Process, cmd *exec.Cmd) (*outputPipes, error) {
	out, err, failed := p.child.m.writers(p)
	if failed != nil {
		return nil, failed
	}
	o := new(outputPipes)
	// One pipe for both keeps the lines in order and the writer's calls apart.
	same := err != nil && sameWriter(err, out)
	err = tailOf(p, err)
	if same {
		out = err
	}
	if cmd.Stdout, failed = o.target(out, os.Stdout); failed != nil {
		return nil, failed
	}
	if same {
		cmd.Stderr = cmd.Stdout
		return o, nil
	}
	if cmd.Stderr, failed = o.target(err, os.Stderr); failed != nil {
		o.started()
		return nil, failed
	}
	return o, nil
}

// sameWriter compares two writers, of which the type may not be comparable.
func sameWriter(a, b io.Writer) bool {
	defer func() { recover() }()
	return a == b
}

// target returns the file that the worker gets for w: never another writer,
// for which package exec would wait for the worker's own children too.
func (o *outputPipes) target(w io.Writer, inherit *os.File) (*os.File, error) {
	switch w {
	case nil:
		if !isOpen(inherit) {
			return nil, nil // closed in the master: /dev/null
		}
		return inherit, nil
	case io.Discard:
		return nil, nil
	}
	if f, ok := w.(*os.File); ok {
		return f, nil
	}
	r, pw, err := outputPipe()
	if err != nil {
		return nil, err
	}
	o.close = append(o.close, pw)
	o.begin = append(o.begin, func() {
		defer o.copying.Done()
		defer r.Close()
		// A buffer of its own: with io.Copy's every worker would hold 32 KiB.
		if _, err := io.CopyBuffer(w, struct{ io.Reader }{r}, make([]byte, 4<<10)); err != nil {
			io.Copy(io.Discard, r) // a writer that fails must not stop the worker
		}
	})
	return pw, nil
}

// started lets the copying begin, once the worker has its ends or never will.
func (o *outputPipes) started() {
	for _, c := range o.close {
		c.Close()
	}
	for _, copy := range o.begin {
		o.copying.Add(1)
		go copy()
	}
}

// outputGrace is how long a death waits for the worker's last output. A
// grandchild can hold the pipe open for ever; its output is copied on.
const outputGrace = 250 * time.Millisecond

// drain waits until the output has been copied.
func (o *outputPipes) drain() {
	if len(o.begin) == 0 {
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
