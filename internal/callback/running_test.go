package callback

import (
	"sync"
	"testing"
	"testing/synctest"
)

// Requests go on arriving while several wait for their end, as in a drain. With a
// sync.WaitGroup the race detector reports this, and some runs panic.
func TestRunningStorm(t *testing.T) {
	var f Running
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 5000 {
				f.Begin()
				f.End()
			}
		})
		all.Go(func() {
			for range 5000 {
				f.Wait()
			}
		})
	}
	all.Wait()
	f.Wait() // nothing is under way
}

// What waits is told by the last end, and by no earlier one.
func TestRunningWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Running
		f.Begin()
		f.Begin()
		told := make(chan struct{}, 2)
		for range 2 {
			go func() {
				f.Wait()
				told <- struct{}{}
			}()
		}
		f.End()
		synctest.Wait()
		if len(told) != 0 {
			t.Fatal("told while something is under way")
		}
		f.End()
		synctest.Wait()
		if len(told) != 2 {
			t.Fatalf("%d of 2 were told of the end", len(told))
		}
	})
}
