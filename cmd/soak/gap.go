//go:build unix

package main

import (
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/go-cluster/cluster"
)

// For how long nobody leads although a worker could: one is ready and runs, and the one that was
// chosen, if any, is not stopped. The leader has a lock on a file, which ends with its process.
// The master looks at the lock every 10 ms.

const (
	lookTime = 10 * time.Millisecond
	// maxGap bounds a gap. A gap contains the death of a leader, a start after
	// Options.Backoff, and the messages between.
	maxGap = time.Second
	// leaderFile is locked by the leader. The lock is one of fcntl(2), since the master can
	// look at such a lock without taking it.
	leaderFile = "leader"
)

// gap adds up the time of a gap in which this machine ran. If a look comes late, the workers may
// have had no turn either. So the time since the look before counts as two looks at most.
type gap struct {
	last    time.Time // the look before
	lasts   time.Duration
	longest time.Duration
}

// look notes whether there is a gap now.
func (g *gap) look(now time.Time, is bool) {
	ran := min(now.Sub(g.last), 2*lookTime)
	g.last = now
	if !is {
		g.lasts = 0
		return
	}
	g.lasts += ran
	g.longest = max(g.longest, g.lasts)
}

// pauses are the workers that are stopped, by pid. A worker may be stopped by several
// events at once; it then counts as stopped until the last one is over.
type pauses struct {
	mu  sync.Mutex
	all map[int]int
}

func (p *pauses) add(pid, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all[pid] += n; p.all[pid] == 0 {
		delete(p.all, pid)
	}
}

func (p *pauses) has(pid int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all[pid] > 0
}

// stop stops a worker for a while.
func (p *pauses) stop(w *cluster.Process, d time.Duration) {
	p.add(w.PID(), 1)
	if w.OSProcess().Signal(syscall.SIGSTOP) != nil {
		p.add(w.PID(), -1)
		return
	}
	p.endsIn(d, w.PID())
}

// endsIn continues a worker after a while.
func (p *pauses) endsIn(d time.Duration, pid int) {
	time.AfterFunc(d, func() {
		for _, w := range cluster.Workers() { // another process may have the pid by now
			if w.PID() == pid {
				w.OSProcess().Signal(syscall.SIGCONT)
			}
		}
		p.add(pid, -1)
	})
}

// pids are the workers that are stopped.
func (p *pauses) pids() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.all))
}

// watchGap looks until ctx ends, and notes the longest gap. A gap in which the master is replaced
// counts as two.
func (s *soak) watchGap(ctx context.Context) {
	f, err := os.OpenFile(filepath.Join(s.witness.dir, leaderFile), os.O_RDWR|os.O_CREATE, 0o600)
	check(err)
	defer f.Close()
	g := gap{last: time.Now()}
	begun := s.witness.count(terms + leading)
	ticker := time.NewTicker(lookTime)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			n := s.witness.count(terms + leading) // there may have been a short term between two looks
			g.look(now, n == begun && !isLocked(f) && s.mayLead())
			begun = n
			s.mu.Lock()
			s.Gap = max(s.Gap, g.longest)
			s.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// mayLead reports whether a worker could lead, and no stopped worker has been chosen.
func (s *soak) mayLead() bool {
	chosen := -1
	for _, l := range cluster.Stats().Coord.Leads {
		if l.Name == leadName {
			chosen = l.Worker
		}
	}
	ready := false
	for _, w := range cluster.Workers() {
		stopped := s.pauses.has(w.PID())
		if stopped && w.ID() == chosen {
			return false
		}
		ready = ready || !stopped && w.State() == cluster.Ready
	}
	return ready
}

// lockFile locks f for as long as this process has it open.
func lockFile(f *os.File) {
	check(syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}))
}

// isLocked reports whether another process has locked f.
func isLocked(f *os.File) bool {
	lock := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	check(syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &lock))
	return lock.Type != syscall.F_UNLCK
}
