package clustertest

import (
	"net/http"
	"os"
	"runtime"
	"testing"
	"time"
)

// CheckLeaks compares descriptors, goroutines and children at the end of the
// test with those at its beginning.
func CheckLeaks(t testing.TB) {
	t.Helper()
	before := Census()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		var after Counts
		deadline := time.Now().Add(Patience)
		for {
			after = Census()
			if after.FDs <= before.FDs && after.Goroutines <= before.Goroutines && len(after.Children) <= len(before.Children) {
				return
			}
			if t.Failed() || time.Now().After(deadline) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if !t.Failed() {
			stacks := make([]byte, 1<<20)
			t.Errorf("left behind: before %+v, after %+v\n%s", before, after, stacks[:runtime.Stack(stacks, true)])
		}
	})
}

// Counts says how much a process has of what a test may leave behind.
type Counts struct {
	FDs, Goroutines int
	Children        []string
}

// Census counts what this process has now.
func Census() Counts {
	return Counts{Goroutines: runtime.NumGoroutine(), FDs: openFiles(), Children: Children(os.Getpid())}
}
