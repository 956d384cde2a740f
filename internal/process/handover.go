package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// This file writes as data what the program that replaces this one in the same process
// needs to go on with the processes. Descriptors are numbers in it, and stay open for as
// long as this program runs.

// ProgramState is a [Program].
type ProgramState struct {
	Path, Name, Argv0 string
	FD                int // of the held file, or -1
}

// OutputState is what a process writes and this one copies.
type OutputState struct {
	Pipes   []PipeState
	Tail    bool // what it writes to its standard error is kept
	Text    []byte
	Settled bool
}

// PipeState is one pipe.
type PipeState struct {
	FD     int
	Stream string
	Rest   []byte // of a line that is half read
}

// copyPause stops a copying goroutine between two reads.
type copyPause struct {
	mu     sync.Mutex
	wanted chan struct{} // closed at the end of the pause; nil if there is none
	parked chan struct{} // closed when the goroutine rests
}

// paused calls read. If a pause has interrupted that, it waits for the end of the pause
// and returns true.
func (c *outputCopy) paused(read func() error) (again bool) {
	err := read()
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	c.pause.mu.Lock()
	wanted, parked := c.pause.wanted, c.pause.parked
	if wanted != nil {
		close(parked)
	}
	c.pause.mu.Unlock()
	if wanted != nil {
		<-wanted
	}
	return true
}

// stop asks the goroutine to rest, and waits until it does.
func (c *outputCopy) stop(ctx context.Context) error {
	c.pause.mu.Lock()
	c.pause.wanted, c.pause.parked = make(chan struct{}), make(chan struct{})
	parked := c.pause.parked
	c.pause.mu.Unlock()
	c.r.SetReadDeadline(time.Unix(1, 0))
	select {
	case <-parked:
		return nil
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// goOn ends the rest.
func (c *outputCopy) goOn() {
	c.pause.mu.Lock()
	defer c.pause.mu.Unlock()
	if c.pause.wanted != nil {
		c.r.SetReadDeadline(time.Time{})
		close(c.pause.wanted)
		c.pause.wanted, c.pause.parked = nil, nil
	}
}

// PauseOutput stops the copying of what the process writes. It returns ctx's error if a
// writer does not return. ResumeOutput has to be called in any case.
func (p *Process) PauseOutput(ctx context.Context) error {
	for _, c := range p.output.copies {
		if err := c.stop(ctx); err != nil {
			return err
		}
	}
	return nil
}

// ResumeOutput goes on with the copying.
func (p *Process) ResumeOutput() {
	for _, c := range p.output.copies {
		c.goOn()
	}
}

// Output returns the state of the copying, while that is paused.
func (p *Process) Output() (s OutputState) {
	for _, c := range p.output.copies {
		select {
		case <-c.done:
			continue
		default:
		}
		rc, err := c.r.SyscallConn()
		if err == nil {
			rc.Control(func(fd uintptr) { s.Pipes = append(s.Pipes, PipeState{int(fd), string(c.stream), c.rest}) })
		}
	}
	if t := p.tail; t != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		s.Tail, s.Text, s.Settled = true, t.text, t.settled
	}
	return s
}

// Adopt returns the Process with number pid, which the program before an upgrade has
// started. From Begin on its output is copied to the writers, or to this process's own
// standard files where they are nil. tap is as in [Spec].
func (l *Launcher) Adopt(pid int, started time.Time, s OutputState, stdout, stderr io.Writer, tap func(stream string, lines []byte)) (*Process, error) {
	proc, err := os.FindProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	p := &Process{PID: pid, OS: proc, Started: started, launcher: l}
	if s.Tail {
		p.tail = &stderrTail{to: stderr, text: s.Text, settled: s.Settled}
		stderr = p.tail
	}
	if tap != nil {
		p.tap(&Spec{Tap: tap, TapOwn: true}, &stdout, &stderr, false)
	}
	if stdout == nil {
		stdout = ownOutput(1)
	}
	if stderr == nil {
		stderr = ownOutput(2)
	}
	for _, pipe := range s.Pipes {
		to := stderr
		if stream(pipe.Stream) == ofStdout {
			to = stdout
		}
		p.output.copies = append(p.output.copies, &outputCopy{
			r: os.NewFile(uintptr(pipe.FD), "output"), w: to, all: &l.leftovers, stream: stream(pipe.Stream),
			done: make(chan struct{}), rest: pipe.Rest,
		})
	}
	return p, nil
}

// AdoptForeign says of an adopted process that it is a Foreign one.
func (p *Process) AdoptForeign() { p.thread = p.launcher.forker.adopt() }

// AwaitThread waits a moment for the thread whose children the adopted Foreign processes
// are. The goroutine of main should call it: that may be what keeps the thread at work.
func (l *Launcher) AwaitThread() { l.forker.awaitAdopted() }

// Begin begins to copy what an adopted process writes.
func (p *Process) Begin() { p.output.begin() }
