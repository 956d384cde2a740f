package clustertest

import (
	"context"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/roomtest"
)

// Within returns a context for calls that must end by themselves.
func Within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// Patience bounds every wait of a test: it is there to end a test that hangs,
// not to measure anything.
const Patience = roomtest.Patience

// Await returns what comes over c, or fails the test.
func Await[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	return roomtest.Await(t, c, what)
}

// Eventually polls cond: for states of the system that send no event.
func Eventually(t testing.TB, cond func() bool, what string) {
	t.Helper()
	roomtest.Eventually(t, cond, what)
}
