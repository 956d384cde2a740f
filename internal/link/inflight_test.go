package link

import (
	"sync"
	"testing"
	"testing/synctest"
)

// Requests go on arriving while several wait for their end, as in a drain. With a
// sync.WaitGroup the race detector reports this, and some runs panic.
func TestInFlightStorm(t *testing.T) {
	var f inFlight
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 5000 {
				f.begin()
				f.end()
			}
		})
		all.Go(func() {
			for range 5000 {
				f.wait()
			}
		})
	}
	all.Wait()
	f.wait() // nothing is under way
}

// What waits is told by the last end, and by no earlier one.
func TestInFlightWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f inFlight
		f.begin()
		f.begin()
		told := make(chan struct{}, 2)
		for range 2 {
			go func() {
				f.wait()
				told <- struct{}{}
			}()
		}
		f.end()
		synctest.Wait()
		if len(told) != 0 {
			t.Fatal("told while something is under way")
		}
		f.end()
		synctest.Wait()
		if len(told) != 2 {
			t.Fatalf("%d of 2 were told of the end", len(told))
		}
	})
}
