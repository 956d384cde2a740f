package handles_test

import (
	"os"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// networks are those whose connections and listeners can be sent.
var networks = []string{"tcp"}

// TestWhatWindowsCannotSend says so.
func TestWhatWindowsCannotSend(t *testing.T) {
	workers, _ := takers(t, 1, cluster.Options{})
	err := workers[0].SendHandle(1, os.Stdin)
	require.ErrorIs(t, err, cluster.ErrNotSupported)
	require.ErrorContains(t, err, "cluster: SendHandle: a file on Windows: ")
	require.ErrorContains(t, err, "send a TCP connection or listener")
}
