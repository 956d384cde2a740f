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

// Patience bounds every wait of a test. It ends a test that hangs, and measures nothing.
const Patience = roomtest.Patience

// Await returns the next value of c, or fails the test.
func Await[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	return roomtest.Await(t, c, what)
}

// Eventually polls until cond holds. It is for states of the system that send no event.
func Eventually(t testing.TB, cond func() bool, what string) {
	t.Helper()
	roomtest.Eventually(t, cond, what)
}
