package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"

	"github.com/go-cluster/cluster/internal/drain"
	"github.com/go-cluster/cluster/internal/process"
)

// runner is the Run of a master: at most one at a time, which all callers share.
type runner struct {
	mu  sync.Mutex
	cur *running

	ctx    context.Context // of Context, from one stop to the next
	cancel context.CancelFunc
	hooks  drain.ShutdownHooks
}

type running struct {
	fatal chan error    // the supervision gave up
	ended chan struct{} // a Disconnect has: there may be nothing left to wait for
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

// disconnected tells the Run under way that a Disconnect has ended.
func (r *runner) disconnected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cur != nil {
		select {
		case r.cur.ended <- struct{}{}:
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
		cur = &running{fatal: make(chan error, 1), ended: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
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
	signals, end := m.takeSignals()
	defer end()

	err := m.autoFork()
	if err == nil {
		m.call(func() {
			err = m.supervisor.GaveUp()
			m.notifyBegin()
		})
	}
	for err == nil {
		var stop bool
		if stop, err = m.waitRun(cur, signals); stop {
			break
		}
	}
	if stopErr := m.stopRun(signals); err == nil {
		err = stopErr
	}
	m.call(func() { m.supervisor.SetEnding(false) })
	m.runner.mu.Lock()
	cur.err = err
	m.runner.cur = nil
	m.runner.ctx, m.runner.cancel = nil, nil
	m.runner.mu.Unlock()
	close(cur.done)
}

// takeSignals begins to receive what Run acts on, and to reap orphans if that
// falls to this process.
func (m *master) takeSignals() (signals chan os.Signal, end func()) {
	o := m.settings()
	signals = make(chan os.Signal, 16)
	if !o.NoSignals {
		signal.Notify(signals, stopSignals...)
		signal.Notify(signals, controlSignals...)
	}
	stop := make(chan struct{})
	if reap := o.ReapOrphans; reap != nil && *reap || reap == nil && pid == 1 {
		go process.ReapOrphans(stop, m.waited)
	}
	return signals, func() {
		signal.Stop(signals)
		close(stop)
	}
}

// waited are the processes that the master waits for, and whether one is being
// started.
func (m *master) waited() (pids []int, starting bool) {
	m.call(func() {
		s := m.supervisor.Snapshot(time.Now())
		starting = s.Forking
		for _, w := range s.Workers {
			pids = append(pids, w.Worker.PID)
		}
	})
	return pids, starting
}

// waitRun waits for the next thing that concerns a Run.
func (m *master) waitRun(cur *running, signals <-chan os.Signal) (stop bool, err error) {
	select {
	case sig := <-signals:
		if !slices.Contains(controlSignals, sig) {
			return true, nil
		}
		m.control(sig)
		return false, nil
	case <-cur.stop:
		return true, nil
	case <-cur.ended:
		return m.empty(), nil
	case err = <-cur.fatal:
		return true, err
	}
}

// empty reports whether no worker runs and none is being forked: after a
// Disconnect nothing is left to wait for, unless somebody has forked meanwhile.
func (m *master) empty() (empty bool) {
	m.call(func() {
		s := m.supervisor.Snapshot(time.Now())
		empty = len(s.Workers) == 0 && !s.Forking
	})
	return empty
}

// control acts on a signal that is no stop. It does not wait: what goes wrong
// is logged, and told by OnReload.
func (m *master) control(sig os.Signal) {
	switch sig {
	case reloadSignal:
		m.post(func() { m.supervisor.Reload(time.Now(), 0) })
	case upSignal, downSignal:
		step := 1
		if sig == downSignal {
			step = -1
		}
		go func() {
			if err := m.scaleBy(step); err != nil {
				m.log().Warn("cluster: scaling failed", "err", err)
			}
		}()
	}
}

// log is where the master's own troubles go.
func (m *master) log() *slog.Logger {
	logger := slog.Default()
	m.call(func() {
		if s, err := m.current(); err == nil {
			logger = s.logger()
		}
	})
	return m.cluster.logs.Logger(logger)
}

// stopRun drains the cluster and then the master itself.
func (m *master) stopRun(signals <-chan os.Signal) error {
	var s stopping
	m.call(func() {
		// From here on, so that no OnDeath that comes late forks what Run would
		// leave behind.
		m.supervisor.SetEnding(true)
		m.notifyEnd()
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
		case sig := <-signals:
			if !slices.Contains(controlSignals, sig) {
				m.hurry(secondSignal)
			}
		case err = <-done:
			waiting = false
		}
	}
	timeout := m.settings().ShutdownTimeout
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	m.runner.hooks.Run(ctx, m.log)

	words, over := context.WithTimeout(ctx, lastWords)
	defer over()
	// Those too that died before the stop began: their OnDeath may still run.
	for _, p := range m.cluster.live.all() {
		p.events.idle(words.Done())
	}
	m.notifier.manager.Flush(words.Done())
	m.cluster.logs.Flush(words.Done())
	return err
}
