package handle

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

// TestWatchesEnd: of an event that is set, reset and set again each is seen; and
// nothing is left.
func TestWatchesEnd(t *testing.T) {
	event, err := windows.CreateEvent(nil, 0, 0, nil)
	require.NoError(t, err)
	w, err := NewWatch(event, false)
	require.NoError(t, err)
	for range 100 {
		require.NoError(t, windows.SetEvent(event))
		<-w.Signal
	}
	w.Stop()
	require.NoError(t, windows.SetEvent(event))
	require.NoError(t, Await(event))
	require.NoError(t, windows.CloseHandle(event))
	watchers.Lock()
	defer watchers.Unlock()
	require.NotContains(t, watchers.all, w.id)
}
