//go:build unix

package process

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func channelEnd(t *testing.T) ChannelEnd {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	return w
}

// ownGroup makes this process the first of a group of its own.
func ownGroup() { unix.Setpgid(0, 0) }

// makeNonblocking makes the standard output so, and says what it was.
func makeNonblocking() {
	flags, err := unix.FcntlInt(1, unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK != 0 || unix.SetNonblock(1, true) != nil {
		os.Exit(1)
	}
	os.Stdout.WriteString("1 was blocking\n")
}
