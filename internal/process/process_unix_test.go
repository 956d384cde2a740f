//go:build unix

package process

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func channelEnd(t *testing.T) ChannelEnd {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	return w
}
