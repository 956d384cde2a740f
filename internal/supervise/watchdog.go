package supervise

import (
	"fmt"
	"os"
	"time"
)

// stallGrace is how long a stalled worker has to print its stacks, until it is killed.
const stallGrace = 5 * time.Second

// examineTime is how long somebody may look at a stalled worker before it is told to print
// its stacks: see Host.Examine.
const examineTime = 3 * time.Second

// Watch is what is known of a worker's pulse.
type Watch struct {
	TickAt  time.Time // the next interval
	Pinged  bool      // a ping is not answered; there is at most one
	Misses  int       // intervals since that ping; the clock would count time in which the master is stopped
	Stalled bool
	DumpAt  time.Time // when the look at the stalled worker is over; zero if nobody looks
	KillAt  time.Time // when the stalled worker is killed
	Beat    time.Time // when it last answered
	Pulse   Pulse
}

// Pulse is what a worker says of itself with each answer.
type Pulse struct {
	Accepted int64  `json:"accepted"` // connections, ever
	Active   int64  `json:"active"`   // connections now
	Memory   int64  `json:"memory"`   // bytes
	Error    string `json:"error"`    // of its checks

	Goroutines int `json:"goroutines"`
}

func (w *Worker) beginWatch() {
	w.Watch.Beat = w.m.now
	w.Watch.TickAt = w.m.now.Add(w.settings().Watchdog.Interval)
}

// tick is called at each interval of the watchdog.
func (w *Worker) tick() {
	m, o := w.m, w.settings()
	w.Watch.TickAt = m.now.Add(o.Watchdog.Interval)
	if w.Slot != 0 && o.Recycle.Memory > 0 {
		w.checkMemory()
	}
	if w.longUp() {
		m.host.HandOver(w.ID) // it may never be ready, but the program works
	}
	if w.State != Online && w.State != Ready || w.Watch.Stalled {
		w.Watch.Pinged, w.Watch.Misses = false, 0
		return
	}
	if !w.Watch.Pinged {
		w.Watch.Pinged, w.Watch.Misses = m.host.Ping(w.ID), 0
		return
	}
	w.Watch.Misses++
	silent := time.Duration(w.Watch.Misses) * o.Watchdog.Interval
	if o.Watchdog.Timeout <= 0 || silent < o.Watchdog.Timeout {
		if half := o.Watchdog.Timeout / 2; half > 0 && silent >= half && silent-o.Watchdog.Interval < half {
			m.host.Tell(Silent{w.ID, o.Watchdog.Timeout - silent})
		}
		return
	}
	if m.host.Traced(w.ID) {
		w.Watch.Misses = 0 // a debugger has stopped it, and will let it go
	} else {
		w.stall()
	}
}

// stall ends a worker that does not answer. Before that somebody may look at what it does.
func (w *Worker) stall() {
	w.Watch.Stalled = true
	w.m.host.Tell(Stalled{w.ID, w.settings().Watchdog.Timeout})
	w.blame(ReasonStall)
	if w.m.host.Examine(w.ID) {
		w.Watch.DumpAt = w.m.now.Add(examineTime)
	} else {
		dumpStalled(w)
	}
}

// dumpStalled tells a stalled worker to print its stacks and to end.
func dumpStalled(w *Worker) {
	w.Watch.DumpAt = time.Time{}
	w.signal(w.m.dump)
	w.Watch.KillAt = w.m.now.Add(stallGrace)
}

// Examined is the answer to Host.Examine: the look at the worker is over.
func (o Orders) Examined(now time.Time, worker int) {
	m := o.Machine
	m.now = now
	defer m.settle()
	if w := m.worker(worker); w != nil && !w.Watch.DumpAt.IsZero() {
		dumpStalled(w)
	}
}

func killStalled(w *Worker) { w.signal(os.Kill) }

// Beat is a worker's answer to a ping.
func (m *Machine) Beat(now time.Time, worker int, p Pulse) {
	m.now = now
	defer m.settle()
	w := m.worker(worker)
	if w == nil {
		return
	}
	before := w.Watch.Pulse.Error
	w.Watch.Pinged, w.Watch.Misses, w.Watch.Beat, w.Watch.Pulse = false, 0, now, p
	if p.Error != "" && p.Error != before {
		m.host.Tell(CheckFailed{worker, fmt.Errorf("cluster: worker %d: check failed: %s", worker, p.Error)})
	}
}
