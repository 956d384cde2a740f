package supervise

import (
	"maps"
	"time"
)

// Snapshot is what the Machine knows at one moment.
type Snapshot struct {
	Generation int // the number of the last one that reached every slot
	Target     int // slots
	Exits      map[Reason]int
	Workers    []WorkerInfo // whose processes exist, by number
	Empty      []SlotInfo   // slots without a worker
	Forking    bool
	Reloading  bool
	Reload     Result // the one under way, or the last
}

// WorkerInfo is one worker.
type WorkerInfo struct {
	Worker Worker
	Slot   SlotInfo // for a plain Fork only the generation's number
	Up     bool     // it does its work: see upAt
	Owns   bool     // it is its slot's: no replacement under way, nor one that drains for its successor
}

// SlotInfo is one slot.
type SlotInfo struct {
	Place    int
	Mode     string // "empty", "off" or "out", if there is no worker
	Number   int    // of its generation, or of its worker's
	Restarts int
	LastExit string
}

// NeverListens is how long a worker must have been online, and not ready, to count
// as one that will never listen.
const NeverListens = 2 * time.Second

// Snapshot returns what there is.
func (m *Machine) Snapshot(now time.Time) Snapshot {
	st := &m.st
	s := Snapshot{Generation: st.Completed, Target: len(st.Slots), Exits: maps.Clone(st.Exits), Forking: st.forking() > 0}
	running := st.running()
	s.Workers = make([]WorkerInfo, 0, len(running))
	for _, w := range running {
		i := WorkerInfo{Worker: *w}
		if sl := w.slot(); sl != nil {
			i.Slot, i.Owns = sl.info(), sl.Current == w.ID
		}
		i.Slot.Number = st.Generations[w.Generation].Number
		i.Up = w.State == Ready || w.State == Online && w.upAt() == Online && now.Sub(w.OnlineAt) >= NeverListens
		s.Workers = append(s.Workers, i)
	}
	for _, sl := range st.Slots {
		if sl.Current == 0 {
			s.Empty = append(s.Empty, sl.info())
		}
	}
	if job := st.Reload; job != nil {
		s.Reloading, s.Reload = true, Result{Replaced: job.Replaced, Took: now.Sub(job.Began)}
	} else if st.LastReload != nil {
		s.Reload = *st.LastReload
	}
	return s
}

func (s *slot) info() SlotInfo {
	return SlotInfo{s.Place, s.Mode.String(), s.m.st.Generations[s.Generation].Number, s.Restarts, s.LastExit}
}
