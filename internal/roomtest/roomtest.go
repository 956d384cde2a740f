// Package roomtest has what the tests of several rooms need, above all to wait for
// something. It imports no package of the module, so the tests of every room may use it, and
// those inside the root. Tests of the public API have clustertest, which builds on it.
//
// Only [Pending] starts a goroutine, and nothing has a lock. A wait fails the test after
// [Patience]: that ends a test which hangs, and measures nothing.
//
// The tests that use package roomtest test it.
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

// Peer is the worker's end of a channel, where the test plays the worker.
type Peer interface {
	io.ReadWriteCloser
	SetReadDeadline(t time.Time) error
}

// Await returns the next value of c. If none comes within Patience, it fails the test with
// the stacks of all goroutines.
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

// Eventually polls until cond holds. It is for states that send no event.
func Eventually(t testing.TB, cond func() bool, what string) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", Patience, what)
		}
	}
}

// Pending calls fn on a goroutine of its own. Its result comes over the channel.
func Pending[T any](fn func() T) <-chan T {
	c := make(chan T, 1)
	go func() { c <- fn() }()
	return c
}

// Result waits for the error of a call that Pending began, and returns it.
func Result(t testing.TB, c <-chan error) error {
	t.Helper()
	return Await(t, c, "return")
}

// Selecting waits until n goroutines are in a select of the function. It is for where no
// other sign says that they are. The function is named as in a stack, without its package:
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
