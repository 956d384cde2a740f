package cluster

import (
	"encoding/json"
	"math"
	"slices"
	"time"

	"github.com/go-cluster/cluster/internal/socket"
)

// Snapshot is what the master knows of its cluster at one moment. In JSON,
// durations are seconds.
type Snapshot struct {
	PID        int             `json:"pid"`
	Uptime     Seconds         `json:"uptime"`
	Generation int             `json:"generation"` // the last one that reached every slot
	Target     int             `json:"target"`     // slots
	Workers    []WorkerStats   `json:"workers"`
	Listeners  []ListenerStats `json:"listeners"`
	Exits      map[Reason]int  `json:"exits"` // by reason, since the start
	Reload     ReloadStats     `json:"reload"`
}

// WorkerStats is one worker, or one slot without.
type WorkerStats struct {
	Slot         int     `json:"slot"` // -1 for a plain Fork
	ID           int     `json:"id"`   // 0 and no further values if the slot is empty
	PID          int     `json:"pid"`
	State        string  `json:"state"` // or "empty", "off", "out"
	Generation   int     `json:"generation"`
	Started      int64   `json:"started"`     // Unix time
	ReadyAfter   Seconds `json:"ready_after"` // from the fork; 0 if it is not ready
	Restarts     int     `json:"restarts"`    // of the slot
	LastExit     string  `json:"last_exit"`   // of the slot
	Accepted     int64   `json:"accepted"`    // connections, as of the last heartbeat
	Active       int64   `json:"active"`
	MessagesIn   int64   `json:"messages_in"` // from the worker
	MessagesOut  int64   `json:"messages_out"`
	Queue        int     `json:"queue"` // bytes that wait to be written to it
	HeartbeatAge Seconds `json:"heartbeat_age"`
	Check        string  `json:"check,omitempty"` // the last heartbeat's error
	RSS          int64   `json:"rss"`             // bytes
	CPU          Seconds `json:"cpu"`             // used in all
}

// ListenerStats is one shared address.
type ListenerStats struct {
	Network string `json:"network"`
	Address string `json:"address"`
	Backlog int    `json:"backlog"` // connections that wait to be accepted; TCP on Linux
	Limit   int    `json:"limit"`   // how many may
}

// ReloadStats is the last reload, or that under way.
type ReloadStats struct {
	Running  bool    `json:"running"`
	Replaced int     `json:"replaced"`
	Took     Seconds `json:"took"`
	Error    string  `json:"error,omitempty"`
}

// Seconds is a duration that is a number of seconds in JSON.
type Seconds time.Duration

// MarshalJSON writes seconds with fractions.
func (s Seconds) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(s).Seconds()) }

// UnmarshalJSON reads them.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	*s = Seconds(math.Round(f * float64(time.Second)))
	return nil
}

// Stats tells the state of the cluster. It is safe and cheap to call at any
// time: what costs is a look into /proc for each worker. In a worker it is empty.
func Stats() Snapshot {
	if IsWorker() {
		return Snapshot{}
	}
	return std.stats()
}

func (m *master) stats() Snapshot {
	var s Snapshot
	m.call(func() { s = m.snapshot() })
	for i := range s.Workers {
		if w := &s.Workers[i]; w.PID > 0 {
			w.RSS, w.CPU = residentBytes(w.PID), Seconds(cpuTime(w.PID))
		}
	}
	return s
}

// snapshot is stats without what only the system knows.
func (m *master) snapshot() Snapshot {
	now := time.Now()
	s := Snapshot{PID: pid, Uptime: Seconds(now.Sub(m.began)), Generation: m.completed, Target: len(m.slots), Exits: make(map[Reason]int, len(m.exits))}
	for why, n := range m.exits {
		s.Exits[why] = n
	}
	s.Workers = make([]WorkerStats, 0, len(m.workers)+len(m.slots))
	s.Listeners = make([]ListenerStats, 0, len(m.registry.entries))
	for _, p := range m.workers {
		s.Workers = append(s.Workers, p.stats(now))
	}
	for _, slot := range m.slots {
		if slot.cur == nil {
			s.Workers = append(s.Workers, WorkerStats{Slot: slot.n, State: slot.mode.empty(), Generation: slot.gen.n, Restarts: slot.restarts, LastExit: slot.lastExit})
		}
	}
	slices.SortFunc(s.Workers, func(a, b WorkerStats) int {
		if a.Slot != b.Slot {
			return a.Slot - b.Slot
		}
		return a.ID - b.ID
	})
	for _, e := range m.registry.entries {
		if e.h == nil {
			continue
		}
		l := ListenerStats{Network: e.addr.Network(), Address: e.t.Shown(e.addr).String()}
		l.Backlog, l.Limit = socket.Queue(e.h)
		s.Listeners = append(s.Listeners, l)
	}
	slices.SortFunc(s.Listeners, func(a, b ListenerStats) int {
		if a.Network+a.Address < b.Network+b.Address {
			return -1
		}
		return 1
	})
	if job := m.reload; job != nil {
		s.Reload = ReloadStats{Running: true, Replaced: job.replaced, Took: Seconds(now.Sub(job.began))}
	} else if last := m.lastReload; last != nil {
		s.Reload = ReloadStats{Replaced: last.Replaced, Took: Seconds(last.Took)}
		if last.Err != nil {
			s.Reload.Error = last.Err.Error()
		}
	}
	return s
}

// empty is how a slot without a worker is shown.
func (mode slotMode) empty() string {
	switch mode {
	case slotOff:
		return "off"
	case slotOut:
		return "out"
	}
	return "empty"
}

func (p *Process) stats(now time.Time) WorkerStats {
	c := p.child
	w := WorkerStats{
		Slot: p.slot, ID: p.id, PID: p.pid, State: p.State().String(), Generation: c.gen.n, Started: c.started.Unix(),
		Accepted: c.watch.report.Accepted, Active: c.watch.report.Active,
		HeartbeatAge: Seconds(now.Sub(c.watch.beat)), Check: c.watch.checks,
	}
	if !c.readyAt.IsZero() {
		w.ReadyAfter = Seconds(c.readyAt.Sub(c.started))
	}
	if c.slot != nil {
		w.Restarts, w.LastExit = c.slot.restarts, c.slot.lastExit
	}
	if p.link != nil {
		w.MessagesIn, w.MessagesOut, w.Queue = p.link.messages.Load(), p.link.out.messages.Load(), p.link.out.queued()
	}
	return w
}
