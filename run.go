package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"
)

// runner is the Run of a master: at most one at a time, which all callers share.
type runner struct {
	mu  sync.Mutex
	cur *running

	ctx    context.Context // of Context, from one stop to the next
	cancel context.CancelFunc
	hooks  shutdownHooks
}

type running struct {
	fatal chan error // the supervision gave up
	stop  chan struct{}
	once  sync.Once // closes stop
	done  chan struct{}
	err   error
}

const (
	// secondSignal is how long a stop may still take after a second signal.
	secondSignal = 2 * time.Second
	// lastWords is how long Run and a drain wait at their end for callbacks under
	// way, so that the last OnDeath is not cut off by main's return.
	lastWords = time.Second
)

// context returns what Context gives in the master.
func (r *runner) context() context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.contextLocked()
}

func (r *runner) contextLocked() context.Context {
	if r.ctx == nil {
		r.ctx, r.cancel = context.WithCancel(context.Background())
	}
	return r.ctx
}

// fail ends the Run under way with err.
func (r *runner) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cur != nil {
		select {
		case r.cur.fatal <- err:
		default:
		}
	}
}

// run joins the Run under way, or is it.
func (m *master) run(ctx context.Context) error {
	r := &m.runner
	r.mu.Lock()
	cur := r.cur
	if cur == nil {
		cur = &running{fatal: make(chan error, 1), stop: make(chan struct{}), done: make(chan struct{})}
		r.cur = cur
		r.contextLocked()
		go m.runLoop(cur)
	}
	r.mu.Unlock()
	select {
	case <-cur.done:
		return cur.err
	case <-ctx.Done():
		cur.once.Do(func() { close(cur.stop) })
		<-cur.done
		if cur.err != nil && errors.Is(cur.err, context.DeadlineExceeded) {
			return fmt.Errorf("%w: %w", cur.err, ctx.Err())
		}
		return cur.err
	}
}

// runLoop is one Run.
func (m *master) runLoop(cur *running) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, stopSignals...)
	defer signal.Stop(signals)

	err := m.autoFork()
	if err == nil {
		m.call(func() { err = m.boot })
	}
	if err == nil {
		select {
		case <-signals:
		case <-cur.stop:
		case err = <-cur.fatal:
		}
	}
	if stopErr := m.stopRun(signals); err == nil {
		err = stopErr
	}
	m.call(func() { m.ending = false })
	m.runner.mu.Lock()
	cur.err = err
	m.runner.cur = nil
	m.runner.ctx, m.runner.cancel = nil, nil
	m.runner.mu.Unlock()
	close(cur.done)
}

// stopRun drains the cluster and then the master itself.
func (m *master) stopRun(signals <-chan os.Signal) error {
	var s *stop
	var all []*Process
	m.call(func() {
		// From here on, so that no OnDeath that comes late forks what Run would
		// leave behind.
		m.ending = true
		all = slices.Collect(maps.Values(m.workers))
		s = m.beginStop()
	})
	m.runner.mu.Lock()
	m.runner.cancel()
	m.runner.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- m.waitStopped(context.Background(), s) }()
	var err error
	for waiting := true; waiting; {
		select {
		case <-signals:
			m.hurry(secondSignal)
		case err = <-done:
			waiting = false
		}
	}
	timeout := m.settings().ShutdownTimeout
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	m.runner.hooks.run(ctx)

	words, over := context.WithTimeout(ctx, lastWords)
	defer over()
	for _, p := range all {
		p.events.idle(words.Done())
	}
	return err
}
