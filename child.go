package cluster

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/supervise"
)

// child is what the master keeps for a worker, beside what the supervisor knows.
// Fields without a word belong to the master's mailbox.
type child struct {
	m           *master
	p           *Process         // whose this is; constant
	opts        *settings        // in force when it was forked; constant
	gen         *generation      // what it was forked from; constant
	connections int              // after how many it is full, or 0; constant
	proc        *process.Process // constant once started
	started     time.Time        // constant once started

	forked  bool          // its process exists, and that was reported
	exited  chan struct{} // closed at death, or when it could not be started
	state   *os.ProcessState
	cutOff  bool // it was killed because its drain took too long; constant once exited is closed
	queries atomic.Int32
	handed  atomic.Int64 // connections that the dispatcher handed to it
}

func (c *child) osProcess() *os.Process {
	if c.proc == nil {
		return nil
	}
	return c.proc.OS
}

func (c *child) logger() *slog.Logger { return c.opts.logger() }

func (c *child) ready() error { return callError("Ready", ErrNotWorker) }

func (c *child) disconnect(ctx context.Context) error {
	early := false
	c.m.call(func() {
		if !c.m.supervisor.Drain(time.Now(), c.p.id) {
			early = !c.p.IsDead() // called by Options.Output: the fork waits for it
		}
	})
	if early {
		return fmt.Errorf("cluster: Disconnect: worker %d has not started: %w", c.p.id, ErrClosed)
	}
	select {
	case <-c.exited:
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.cutOff {
		return fmt.Errorf("cluster: Disconnect: worker %d did not drain within %v and was killed: %w",
			c.p.id, c.opts.ShutdownTimeout, context.DeadlineExceeded)
	}
	return nil
}

func (c *child) kill(sigs ...os.Signal) (err error) {
	if len(sigs) == 0 {
		sigs = []os.Signal{os.Kill}
	}
	c.m.call(func() {
		for _, sig := range sigs {
			switch {
			case !c.forked || c.p.IsDead():
				err = ErrClosed
			case deliverable(sig) != nil:
				err = deliverable(sig)
			default:
				err = c.m.supervisor.Kill(time.Now(), c.p.id, sig, isProbe(sig))
			}
			if err != nil {
				return
			}
		}
	})
	if err != nil {
		return fmt.Errorf("cluster: Kill: worker %d: %w", c.p.id, err)
	}
	return nil
}

// writers asks Options.Output for the writers of a worker whose fork is under way.
func (c *child) writers() (stdout, stderr io.Writer, err error) {
	f := c.opts.Output
	if f == nil {
		return nil, nil, nil
	}
	c.m.call(func() { c.m.supervisor.OutputAsked(time.Now(), c.p.id) })
	stdout, stderr = f(c.p)
	c.m.call(func() { err = c.m.supervisor.OutputGiven(time.Now(), c.p.id) })
	return stdout, stderr, err
}

// reap waits for the process, on a goroutine of its own, and reports the death
// after all else that the worker had to say: it may have said it and exited
// before the reader came to it.
func (c *child) reap() {
	state, err := c.proc.Wait()
	if err != nil {
		c.p.report(fmt.Errorf("cluster: wait for worker %d: %w", c.p.id, err))
	}
	c.p.link.PeerExited()
	<-c.p.link.Done()
	c.m.post(func() {
		c.state = state
		e := exitOf(state)
		end := supervise.Exit{Code: e.Code, LastWords: c.proc.LastWords()}
		if e.Signal != nil {
			end.Signal = e.Signal.String()
		}
		c.m.supervisor.Exited(time.Now(), c.p.id, end)
	})
}

// happened tells the supervisor what the worker does, in the mailbox.
func (c *child) happened(what supervise.Happening) {
	c.m.supervisor.Happened(time.Now(), c.p.id, what)
}

// counted is told that the worker has accepted n connections in all that were
// handed to it. A Go worker counts itself, and with them those that it accepted
// alone.
func (c *child) counted(n int) {
	if n == c.connections && !c.p.link.SpeaksExtra() {
		c.m.post(func() { c.happened(supervise.IsFull) })
	}
}
