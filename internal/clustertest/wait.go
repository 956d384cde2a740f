package clustertest

import (
	"context"
	"runtime"
	"testing"
	"time"
)

// Within returns a context for calls that must end by themselves.
func Within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// Patience bounds every wait of a test: it is there to end a test that hangs,
// not to measure anything.
const Patience = 30 * time.Second

// Await returns what comes over c, or fails the test.
func Await[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(Patience):
		stacks := make([]byte, 1<<20)
		t.Fatalf("no %s within %v\n%s", what, Patience, stacks[:runtime.Stack(stacks, true)])
		panic("unreachable")
	}
}

// Eventually polls cond: for states of the system that send no event.
func Eventually(t testing.TB, cond func() bool, what string) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", Patience, what)
		}
	}
}
