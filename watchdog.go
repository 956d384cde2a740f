package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/go-cluster/cluster/internal/wire"
)

// Watchdog finds workers that hang. The master pings each, and a Go worker
// answers when its OnCheck functions have returned. Not watched are node
// workers, and workers that start or drain.
type Watchdog struct {
	Interval time.Duration // between pings. Default: 5 s
	Timeout  time.Duration // without an answer, until the worker is ended. Default: 60 s, as puma's; negative: off
}

// stallGrace is how long a worker has for the goroutine dump that SIGQUIT asks
// it for.
const stallGrace = 5 * time.Second

// watch is what the master knows of a worker's pulse.
type watch struct {
	timer   *time.Timer
	pinged  bool // and not answered: there is one ping under way at most
	misses  int  // ticks of the master's own since; not the clock, which runs on while it is stopped
	stalled bool
	beat    time.Time
	checks  string // the last error of the checks
	report  pulse
}

// pulse is what a worker says of itself with each answer.
type pulse struct {
	Accepted int64  `json:"accepted"`
	Active   int64  `json:"active"`
	Memory   int64  `json:"memory"` // bytes
	Error    string `json:"error"`
}

func (w *watch) stop() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

// watchWorker begins to watch p.
func (m *master) watchWorker(p *Process) {
	p.child.watch.beat = time.Now()
	p.child.watch.timer = time.AfterFunc(p.child.opts.Watchdog.Interval, func() {
		m.post(func() {
			if !p.IsDead() {
				m.tick(p)
			}
		})
	})
}

// tick is one interval of p's.
func (m *master) tick(p *Process) {
	w, o := &p.child.watch, p.child.opts
	w.timer.Reset(o.Watchdog.Interval)
	if p.child.slot != nil && o.Recycle.Memory > 0 {
		m.checkMemory(p)
	}
	if p.child.longUp() {
		p.child.stderr.handOver(p) // it may never be ready, and works all the same
	}
	if st := p.State(); st != Online && st != Ready || w.stalled {
		w.pinged, w.misses = false, 0
		return
	}
	if !w.pinged {
		w.pinged, w.misses = m.ping(p), 0
		return
	}
	w.misses++
	if o.Watchdog.Timeout > 0 && time.Duration(w.misses)*o.Watchdog.Interval >= o.Watchdog.Timeout {
		m.stalled(p)
	}
}

// pingProcess asks p for an answer, unless it would not understand.
func pingProcess(p *Process) bool {
	return p.link.speaksOurs() && p.link.orderOurs(wire.ActPing) == nil
}

// stalled ends a worker that does not answer, with a look at what it does.
func (m *master) stalled(p *Process) {
	w := &p.child.watch
	w.stalled = true
	p.report(fmt.Errorf("cluster: worker %d (pid %d): %w for %v; it is killed", p.id, p.pid, ErrStalled, p.child.opts.Watchdog.Timeout))
	p.logger().Error("cluster: a worker does not answer and is killed", "worker", p.id, "pid", p.pid, "timeout", p.child.opts.Watchdog.Timeout)
	p.child.blame(ReasonStall)
	m.signal(p, dumpSignal)
	time.AfterFunc(stallGrace, func() {
		m.post(func() {
			if !p.IsDead() {
				m.signal(p, os.Kill)
			}
		})
	})
}

// beaten is the worker's answer.
func (m *master) beaten(p *Process, raw json.RawMessage) {
	w := &p.child.watch
	var report pulse
	if err := json.Unmarshal(raw, &report); err != nil {
		p.accuse(fmt.Errorf("cluster: worker %d: bad heartbeat: %w", p.id, err))
		return
	}
	w.pinged, w.misses, w.beat, w.report = false, 0, time.Now(), report
	if report.Error != "" && report.Error != w.checks {
		p.accuse(fmt.Errorf("cluster: worker %d: check failed: %s", p.id, report.Error))
	}
	w.checks = report.Error
}

// OnCheck registers fn to be called in this worker at every heartbeat of the
// master's. A check that does not return is a stall: the worker is ended. One
// that returns an error is reported to the master, through OnError and Stats,
// and ends nobody: else a database that is down would take every worker along.
// ctx ends when the drain begins. In a master fn is never called.
func OnCheck(fn func(context.Context) error) (stop func()) { return hooks.check.add(fn) }
