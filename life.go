package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// The life of one worker in the master: what it goes through, and what can be
// done to it. What follows for its slot is in supervise.go.

func (m *master) disconnectWorker(ctx context.Context, p *Process) error {
	early := false
	m.call(func() {
		switch {
		case m.runs(p):
			m.drainFor(p, ReasonDrain)
		case !p.IsDead():
			early = true // called by Options.Output: the fork waits for it
		}
	})
	if early {
		return fmt.Errorf("cluster: Disconnect: worker %d has not started: %w", p.id, ErrClosed)
	}
	select {
	case <-p.child.exited:
	case <-ctx.Done():
		return ctx.Err()
	}
	if p.child.cutOff {
		return fmt.Errorf("cluster: Disconnect: worker %d did not drain within %v and was killed: %w",
			p.id, p.child.opts.ShutdownTimeout, context.DeadlineExceeded)
	}
	return nil
}

func (m *master) killWorker(p *Process, sigs ...os.Signal) (err error) {
	if len(sigs) == 0 {
		sigs = []os.Signal{os.Kill}
	}
	m.call(func() {
		was := p.voluntary.Load()
		for _, sig := range sigs {
			if !m.runs(p) {
				err = ErrClosed
				return
			}
			if err = deliverable(sig); err != nil {
				break
			}
			// Before the signal: the worker may die of it before this returns.
			if !isProbe(sig) {
				p.voluntary.Store(true)
				p.child.blame(ReasonKill)
			}
			if err = m.kill(p, sig); err != nil {
				p.voluntary.Store(was)
				break
			}
		}
		if errors.Is(err, os.ErrProcessDone) { // exited, and not reported yet
			err = nil
			p.voluntary.Store(true)
		}
	})
	if err != nil {
		return fmt.Errorf("cluster: Kill: worker %d: %w", p.id, err)
	}
	return nil
}

// runs reports whether p is forked, wholly, and not dead.
func (m *master) runs(p *Process) bool { return m.workers[p.id] == p }

// reap waits for p's process, on a goroutine of its own, and reports the death
// after all else that the worker had to say: it may have said it and exited
// before the reader came to it.
func (m *master) reap(p *Process) {
	state, err := waitExit(p.child.proc)
	if err != nil {
		p.report(fmt.Errorf("cluster: wait for worker %d: %w", p.id, err))
	}
	p.child.output.drain()
	p.link.finish()
	<-p.link.done
	m.post(func() { m.exited(p, state) })
}

func (m *master) online(p *Process) {
	if !p.advance(Online) {
		return
	}
	p.child.onlineAt = time.Now()
	letDrain(p)
	p.emitOnline()
	if m.needed(p) == Online {
		p.child.startTimer.Stop()
	}
	m.up(p)
}

func (m *master) ready(p *Process) {
	if !p.advance(Ready) {
		return
	}
	p.child.readyAt = time.Now()
	p.child.startTimer.Stop()
	p.child.stderr.handOver(p)
	m.up(p)
}

// needed is what p has to be within StartTimeout. One that never listens, a
// consumer of a queue, stays online and is as good as ready.
func (m *master) needed(p *Process) State {
	c := p.child
	replacing := m.token != nil && m.token.next == p && c.slot.everReady
	if c.opts.ManualReady || replacing {
		return Ready
	}
	return Online
}

// startExpired kills a worker that has not got so far in time.
func (m *master) startExpired(p *Process) {
	need := m.needed(p)
	if p.State() >= need {
		return
	}
	late := fmt.Errorf("not %v within %v (StartTimeout)", need, p.child.opts.StartTimeout)
	p.report(fmt.Errorf("cluster: worker %d is killed: %w", p.id, late))
	if r := m.token; r != nil && r.next == p {
		m.replacementFailed(r, fmt.Errorf("the new worker of slot %d was %w%s", p.slot, late, p.lastOutput()))
		return
	}
	m.killFor(p, ReasonCrash)
}

// drain tells p to stop, and sees to its end within timeout. A second call can
// only make it shorter.
func (m *master) drain(p *Process, timeout time.Duration) {
	if p.IsDead() {
		return
	}
	p.advance(Draining)
	if m.killAfter(p, timeout) && p.link != nil {
		p.link.orderDisconnect(timeout)
	}
	m.registry.draining(p)
}

// killAfter sees to it that p is dead in timeout. It reports whether that is
// news.
func (m *master) killAfter(p *Process, timeout time.Duration) bool {
	c, by := p.child, time.Now().Add(timeout)
	if c.killTimer != nil {
		if !by.Before(c.killBy) {
			return false
		}
		c.killTimer.Stop()
	}
	c.killBy = by
	c.killTimer = time.AfterFunc(timeout, func() { m.post(func() { m.drainExpired(p) }) })
	return true
}

func (m *master) drainExpired(p *Process) {
	if p.IsDead() || time.Now().Before(p.child.killBy) {
		return
	}
	p.child.overdue = true
	p.logger().Warn("cluster: a worker did not drain in time and is killed", "worker", p.id, "pid", p.pid)
	m.signal(p, os.Kill)
}

// signal sends sig to p. That it has exited already is no error.
func (m *master) signal(p *Process, sig os.Signal) {
	if err := m.kill(p, sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.report(fmt.Errorf("cluster: signal %v to worker %d: %w", sig, p.id, err))
	}
}

func signalProcess(p *Process, sig os.Signal) error { return p.child.proc.Signal(sig) }

// disconnected is told by the reader that the channel has ended.
func (m *master) disconnected(p *Process) {
	p.connected.Store(false)
	p.advance(Disconnected)
	p.emitDisconnect()
	m.registry.detach(p)
	// It takes no orders any more; if it does not end by itself it is ended.
	m.killAfter(p, p.child.opts.ShutdownTimeout)
}

func (m *master) exited(p *Process, state *os.ProcessState) {
	c := p.child
	e := exitOf(state)
	e.Voluntary = p.voluntary.Load()
	e.Uptime = time.Since(c.started)
	c.startTimer.Stop()
	if c.killTimer != nil {
		c.killTimer.Stop()
	}
	c.watch.stop()
	c.recycle.stop()
	wasReady := !c.readyAt.IsZero()
	if e.Reason = c.reason; e.Reason == "" {
		e.Reason = reasonFor(e, wasReady)
	}
	m.exits[e.Reason]++
	p.state.Store(int32(Dead))
	delete(m.workers, p.id)
	// It may have exited by itself while it was being killed.
	c.cutOff = c.overdue && e.Code != 0
	if c.cutOff && m.stop != nil {
		m.stop.killed = append(m.stop.killed, p.id)
	}
	close(c.exited)
	p.emitDeath(e)
	m.death(p, e, wasReady)
	m.checkStopped()
}
