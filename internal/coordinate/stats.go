package coordinate

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Stats is the state as it is shown. Each list is sorted by name.
type Stats struct {
	Leads    []LeadStats
	Locks    []LockStats
	Onces    []LockStats
	Stores   []StoreStats
	Topics   []TopicStats
	Bytes    int   // in the store
	Max      int   // bytes that the store has room for
	Missed   int64 // messages of all topics, ever
	Limiters int
	Buckets  int // keys of limiters whose buckets are not full
}

// LeadStats is one name that is led.
type LeadStats struct {
	Name       string
	Worker     int // the one that leads; -1 if none does
	Candidates int
	Failures   int
	Done       bool
}

// LockStats is one lock, or one once.
type LockStats struct {
	Name    string
	Worker  int // the one that holds it; -1 if none does
	Waiters int
	Done    bool
}

// StoreStats is what the store has under one name.
type StoreStats struct {
	Name        string
	Keys, Bytes int
}

// TopicStats is one topic that somebody hears.
type TopicStats struct {
	Name              string
	Processes         int
	Published, Missed int64
}

// Stats returns the state as it is shown.
func (st *State) Stats(now time.Time) (s Stats) {
	st.Store.expire(now)
	s.Bytes, s.Max, s.Missed = st.Store.bytes, st.Settings.MaxStore, st.Missed
	s.Limiters, s.Buckets = len(st.Limiters.rates), len(st.Limiters.buckets)
	for _, name := range slices.Sorted(maps.Keys(st.Leads)) {
		l := st.Leads[name]
		show := LeadStats{Name: name, Worker: -1, Candidates: len(l.Candidates), Failures: l.Failures, Done: l.Done}
		if l.Leader != nil {
			show.Worker = l.Leader.Member
		}
		s.Leads = append(s.Leads, show)
	}
	s.Locks, s.Onces = linesShown(st.Locks), linesShown(st.Onces)
	for name, t := range st.Topics {
		s.Topics = append(s.Topics, TopicStats{name, len(t.Members), t.Published, t.Missed})
		s.Missed += t.Missed
	}
	slices.SortFunc(s.Topics, func(a, b TopicStats) int { return cmp.Compare(a.Name, b.Name) })
	for name, h := range st.Store.names {
		show := StoreStats{Name: name, Keys: len(h.keys)}
		for _, el := range h.keys {
			show.Bytes += el.Value.(*entry).cost()
		}
		s.Stores = append(s.Stores, show)
	}
	slices.SortFunc(s.Stores, func(a, b StoreStats) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

func linesShown(lines map[string]*line) (all []LockStats) {
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		q := lines[name]
		show := LockStats{Name: name, Worker: -1, Waiters: len(q.Waiting), Done: q.Done}
		if q.Holder != nil {
			show.Worker = q.Holder.Member
		}
		all = append(all, show)
	}
	return all
}
