package cluster

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestWaitsEnd: the pause after a failed accept and the deadline of an Accept end,
// however closely the timer comes upon the wait for it.
func TestWaitsEnd(t *testing.T) {
	const tries = 20_000
	for name, wait := range map[string]func(d time.Duration){
		"sleep": func(d time.Duration) {
			r := new(roundRobin)
			r.changed.L = &r.mu
			r.sleep(d)
		},
		"deadline": func(d time.Duration) {
			r := testInside(new(Process), announcement{}).newRobin("key")
			r.SetDeadline(time.Now().Add(d))
			r.Accept()
		},
	} {
		t.Run(name, func(t *testing.T) {
			var group sync.WaitGroup
			for range 8 {
				group.Go(func() {
					for i := range tries {
						wait(time.Duration(i%2000) * time.Nanosecond)
					}
				})
			}
			done := make(chan bool, 1)
			go func() { group.Wait(); done <- true }()
			require.True(t, waitFor(t, done, "end of all waits"))
		})
	}
}
