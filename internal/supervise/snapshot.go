package supervise

import (
	"maps"
	"time"
)

// Snapshot is what the Machine knows at one moment.
type Snapshot struct {
	Generation int // the number of the last generation that reached every slot
	Target     int // how many slots there are
	Exits      map[Reason]int
	Workers    []WorkerInfo // the workers whose processes exist, by number
	Empty      []SlotInfo   // slots without a worker
	Forking    bool
	Reloading  bool
	Reload     Result // of the reload under way, or of the last one
}

// WorkerInfo is one worker.
type WorkerInfo struct {
	Worker Worker
	Slot   SlotInfo // of a plain Fork only Number
	Up     bool     // see upAt
	Owns   bool     // it is the slot's current worker: not one that is to take over, nor one that has been replaced
}

// SlotInfo is one slot.
type SlotInfo struct {
	Place    int
	Mode     string // of a slot without a worker: "empty", "off" or "out"
	Number   int    // of the worker's generation, or of the slot's if there is no worker
	Restarts int
	LastExit string
}

// NeverListens is how long a worker must have been online without being ready to count as
// one that never listens.
const NeverListens = 2 * time.Second

// Snapshot returns the state as it is shown.
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
