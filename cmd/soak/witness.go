//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
)

// Whether two processes ever lead, or hold a lock, at once. A process that does so also has a lock
// of the kernel on a file of that name. That lock ends with the process, in whatever way it ends,
// and a stopped process keeps it.

// witnessEnv tells the workers the directory of the files.
const witnessEnv = "SOAK_WITNESS"

type witness struct{ dir string }

const (
	leading  = "leading"
	holding  = "holding"
	terms    = "terms "    // a line for each time that a process led, or held a lock
	overlaps = "overlaps " // a line for each time that another process did so at that moment
)

// leadName is the name for which the workers are candidates.
const leadName = "soak"

// watch makes a worker a candidate for the name, and makes it take a lock again and again.
func (w witness) watch() {
	coord.Lead(leadName, func(ctx context.Context) error {
		w.alone(leading, func() {
			f, err := os.OpenFile(filepath.Join(w.dir, leaderFile), os.O_RDWR|os.O_CREATE, 0o600)
			check(err)
			defer f.Close()
			lockFile(f)
			<-ctx.Done()
		})
		return nil
	})
	go func() {
		for ctx := cluster.Context(); ctx.Err() == nil; {
			unlock, err := coord.Lock(ctx, "soak")
			if err != nil {
				continue // the drain has begun, or the master is gone
			}
			w.alone(holding, func() { time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond) })
			unlock()
		}
	}()
}

// alone calls fn, which only one process may do at a time, and notes if another one does.
func (w witness) alone(what string, fn func()) {
	f, err := os.OpenFile(filepath.Join(w.dir, what), os.O_RDWR|os.O_CREATE, 0o600)
	check(err)
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		w.note(overlaps + what)
	default:
		check(err)
		w.note(terms + what)
		fn()
	}
}

// note adds a line of one byte to a file: its size says how many there are.
func (w witness) note(file string) {
	f, err := os.OpenFile(filepath.Join(w.dir, file), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	check(err)
	defer f.Close()
	_, err = f.WriteString("\n")
	check(err)
}

// count returns how often something was noted.
func (w witness) count(file string) int64 {
	info, err := os.Stat(filepath.Join(w.dir, file))
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	check(err)
	return info.Size()
}

// report prints what the witness has seen. It returns true if no two processes led or held the
// lock at once, if both was done at all, and if there was always a leader when a worker could
// lead.
func (w witness) report(longest time.Duration) bool {
	led, held := w.count(terms+leading), w.count(terms+holding)
	both := w.count(overlaps+leading) + w.count(overlaps+holding)
	fmt.Printf("soak: %d times a worker led, %d times one held the lock, %d times two at once; nobody led for %v at most\n",
		led, held, both, longest.Round(time.Millisecond))
	return both == 0 && led > 0 && held > 0 && longest <= maxGap
}
