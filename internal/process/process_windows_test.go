package process

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

func channelEnd(t *testing.T) ChannelEnd {
	t.Helper()
	inherit := &windows.SecurityAttributes{InheritHandle: 1}
	inherit.Length = uint32(unsafe.Sizeof(*inherit))
	event, err := windows.CreateEvent(inherit, 1, 0, nil)
	require.NoError(t, err)
	t.Cleanup(func() { windows.CloseHandle(event) })
	return event
}

func ownGroup()        {}
func makeNonblocking() {}
