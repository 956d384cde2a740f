package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/stretchr/testify/require"
)

// TestRestoreLosesNothing: what is written again after it was read is the same,
// in the middle of as much as can be under way at once.
func TestRestoreLosesNothing(t *testing.T) {
	n, all := filled(t, Settings{Workers: 3, Recycle: Recycle{Age: time.Hour, Connections: 10, Memory: 1 << 30}})
	n.sleep(time.Minute)
	n.reload()
	n.reload()
	n.ready(n.started())  // the first old one drains
	n.die(all[1], 1)      // is forked again
	n.die(n.started(), 1) // backs off
	n.full(all[2])        // is due
	n.slowly = true       // are being started
	n.beginFork()
	n.in(func(m *Machine) { m.Scale(n.now, 0, 5) })
	n.m.Fork(n.now, n.newCall().id, []string{"A=B"}) // its program is being opened
	written, err := json.Marshal(n.m)
	require.NoError(t, err)
	for _, field := range []string{"Openings", "Fills", "Replacing", "Reload", "ReloadAsked", "Recycling"} {
		var fields map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(written, &fields))
		require.NotContains(t, []string{"null", "[]", ""}, string(fields[field]), field)
	}
	m, err := Restore(n, dumpSignal, written)
	require.NoError(t, err)
	again, err := json.Marshal(m)
	require.NoError(t, err)
	require.Equal(t, string(written), string(again))
	require.Equal(t, n.m.Next(), m.Next())
	n.hurry()
}

// TestRestoreRefuses what is no state.
func TestRestoreRefuses(t *testing.T) {
	_, err := Restore(nil, dumpSignal, []byte("[]"))
	require.Error(t, err)
}

// TestFailuresAreRecognised: an error that was written and read has its text, and
// wraps what it wrapped before, as far as callers may test for it.
func TestFailuresAreRecognised(t *testing.T) {
	for _, wrapped := range []error{errs.Closed, errs.BootLoop, errs.NoWorkers, errs.Stalled, errs.NotSupported, errors.ErrUnsupported,
		fs.ErrNotExist, fs.ErrPermission, context.DeadlineExceeded, context.Canceled, errors.New("something else"), nil} {
		before := Failure{}
		if wrapped != nil {
			before.Err = fmt.Errorf("this and that: %w", wrapped)
		}
		written, err := json.Marshal(before)
		require.NoError(t, err)
		var after Failure
		require.NoError(t, json.Unmarshal(written, &after))
		if wrapped == nil {
			require.NoError(t, after.Err)
			continue
		}
		require.EqualError(t, after.Err, before.Err.Error())
		for _, known := range known {
			require.Equal(t, errors.Is(before.Err, known), errors.Is(after.Err, known), "%v of %v", known, before.Err)
		}
	}
}
