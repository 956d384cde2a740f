package channel

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience bounds every wait of these tests: it ends a test that hangs.
const patience = 30 * time.Second

// openPeerEnd takes over theirs.
func openPeerEnd(theirs Client) *os.File { return os.NewFile(uintptr(theirs), "peer") }

// began calls fn on a goroutine of its own, and returns its result later.
func began(fn func() error) <-chan error {
	c := make(chan error, 1)
	go func() { c <- fn() }()
	return c
}

func awaited[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		require.FailNow(t, "no "+what)
	}
	return v
}

// inSelect waits until n goroutines are in a select of the function, of which
// there is no other sign.
func inSelect(t *testing.T, function string, n int) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	require.Eventually(t, func() bool {
		found := 0
		for g := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			state, frames, _ := strings.Cut(g, "\n")
			top, _, _ := strings.Cut(frames, "\n")
			if strings.Contains(state, "[select") && strings.Contains(top, function) {
				found++
			}
		}
		return found == n
	}, patience, time.Millisecond, "%d in %s", n, function)
}
