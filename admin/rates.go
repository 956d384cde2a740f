package admin

import (
	"fmt"
	"sync"
	"time"

	"github.com/go-cluster/cluster"
)

const (
	// sampleEvery is how far samples are apart at least, and a rate's time at least.
	sampleEvery = time.Second
	// rateTime is over how long a rate is taken, if there is a sample of then.
	rateTime = 10 * time.Second
	// sampleAge is how long samples are of use.
	sampleAge = time.Minute
)

// rates tells how much happens in a second, by what there was when somebody looked
// before. Nobody who looks costs nothing.
type rates struct {
	mu      sync.Mutex
	samples []sample // by time
}

type sample struct {
	at     time.Time
	counts map[int]counts // by the worker's id
}

type counts struct {
	accepted int64
	cpu      time.Duration
}

// rate is of one worker, or of all.
type rate struct {
	accepted float64 // connections a second
	cpu      float64 // of one CPU
	known    bool
}

// look returns the rates of the workers by their ids: not of those that are unknown
// yet, at the first look.
func (r *rates) look(workers []cluster.WorkerStats, now time.Time) map[int]rate {
	s := sample{now, make(map[int]counts, len(workers))}
	for _, w := range workers {
		if w.ID != 0 {
			s.counts[w.ID] = counts{w.Accepted, time.Duration(w.CPU)}
		}
	}
	all := make(map[int]rate, len(workers))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep(s) // is too young to be compared with
	for id, is := range s.counts {
		if was, at, ok := r.before(id, now); ok {
			took := now.Sub(at).Seconds()
			all[id] = rate{float64(is.accepted-was.accepted) / took, (is.cpu - was.cpu).Seconds() / took, true}
		}
	}
	return all
}

// before is what the worker had counted in the oldest sample of rateTime, or in the last
// one before that.
func (r *rates) before(id int, now time.Time) (was counts, at time.Time, ok bool) {
	for _, old := range r.samples {
		c, there := old.counts[id]
		if age := now.Sub(old.at); !there || age < sampleEvery || ok && now.Sub(at) <= rateTime {
			continue
		}
		was, at, ok = c, old.at, true
	}
	return was, at, ok
}

// keep keeps s, if it is far enough from the one before, and forgets the old ones.
func (r *rates) keep(s sample) {
	for len(r.samples) > 0 && s.at.Sub(r.samples[0].at) > sampleAge {
		r.samples = r.samples[1:]
	}
	if n := len(r.samples); n == 0 || s.at.Sub(r.samples[n-1].at) >= sampleEvery {
		r.samples = append(r.samples, s)
	}
}

func (r rate) perSecond() string {
	switch {
	case !r.known:
		return "–"
	case r.accepted < 9.95 && r.accepted > 0:
		return fmt.Sprintf("%.1f", r.accepted)
	}
	return fmt.Sprintf("%.0f", r.accepted)
}

func (r rate) percent() string {
	if !r.known {
		return "–"
	}
	return fmt.Sprintf("%.0f %%", 100*r.cpu)
}

// size is a number of bytes.
func size(n int64) string {
	f, unit := float64(n), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f < 1000 {
			break
		}
		f, unit = f/1024, next
	}
	switch {
	case n == 0:
		return "0"
	case f < 10 && unit != "B":
		return fmt.Sprintf("%.1f %s", f, unit)
	}
	return fmt.Sprintf("%.0f %s", f, unit)
}

// ago is a time as one speaks of an age: "9m44s", "3d4h".
func ago(d time.Duration) string {
	d = max(d, 0)
	switch day := 24 * time.Hour; {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	}
}

// short is a time with a fraction while that matters.
func short(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return ago(d)
}
