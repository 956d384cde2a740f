// Package roomtest has what the tests of several rooms need to wait for something.
// It imports no package of the module, so that every room's tests may use it, and
// those inside the root. Tests of the public API have clustertest, which builds on
// it.
//
// Nothing here starts a goroutine but [Pending], and nothing has a lock. A wait ends
// the test after [Patience]: it is there to end one that hangs, and measures nothing.
//
// Package roomtest is tested by those who use it.
package roomtest

import (
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Patience bounds every wait of a test.
const Patience = 30 * time.Second

// Peer is the worker's end of a channel of which the test is the worker.
type Peer interface {
	io.ReadWriteCloser
	SetReadDeadline(t time.Time) error
}

// Await returns what comes over c, or fails the test with the stacks of all
// goroutines.
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

// Eventually polls cond: for states that send no event.
func Eventually(t testing.TB, cond func() bool, what string) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", Patience, what)
		}
	}
}

// Pending calls fn on a goroutine of its own, and returns its result later.
func Pending[T any](fn func() T) <-chan T {
	c := make(chan T, 1)
	go func() { c <- fn() }()
	return c
}

// Result waits for what Pending began.
func Result(t testing.TB, c <-chan error) error {
	t.Helper()
	return Await(t, c, "return")
}

// Selecting waits until n goroutines are in a select of the function, of which there
// is no other sign. The function is named as in a stack, from its package's dot on:
// "(*Channel).WaitHangup".
func Selecting(t testing.TB, function string, n int) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	require.Eventually(t, func() bool {
		found := 0
		for g := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			state, frames, _ := strings.Cut(g, "\n")
			top, _, _ := strings.Cut(frames, "\n")
			if strings.Contains(state, "[select") && strings.Contains(top, "."+function+"(") {
				found++
			}
		}
		return found == n
	}, Patience, time.Millisecond, "%d in %s", n, function)
}
