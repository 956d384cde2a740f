package cluster

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pending runs fn and returns what it returns, later.
func pending(fn func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	return done
}

// result waits for what pending began.
func result(t *testing.T, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(patienceIn):
		t.Fatal("it does not return")
		return nil
	}
}

// selecting waits until n goroutines are in a select of the function, of which
// there is no other sign.
func selecting(t *testing.T, function string, n int) {
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
	}, patienceIn, time.Millisecond, "%d in %s", n, function)
}
