//go:build unix

package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/go-cluster/cluster/admin"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// stall waits for the first one, of a worker that has ended.
func (s *running) stall(is func(admin.Stall) bool) (stall admin.Stall) {
	s.t.Helper()
	clustertest.Eventually(s.t, func() bool {
		var list []admin.Stall
		require.NoError(s.t, json.Unmarshal([]byte(s.get("/stalls")), &list))
		if len(list) == 0 {
			return false
		}
		stall = list[0]
		return is(stall)
	}, "stall")
	return stall
}

// TestStall: a worker of which a check hangs tells its stacks and its trace before the
// watchdog ends it.
func TestStall(t *testing.T) {
	t.Parallel()
	address := fmt.Sprintf("127.0.0.1:%d", clustertest.FreePort(t))
	s := run(t, "HANG=A=B", "ADMIN="+address, "TOKEN=secret")
	before := s.stats().Workers
	_, err := clustertest.Get("http://" + s.listen + "/hang")
	require.NoError(t, err)
	stall := s.stall(func(k admin.Stall) bool { return k.Exit != "" })
	require.EqualValues(t, 1, stall.N)
	require.NotNil(t, stall.Slot)
	require.Equal(t, before[*stall.Slot].PID, stall.PID)
	require.Equal(t, 1, stall.Generation)
	require.Contains(t, stall.Exit, "exit status 2 after ")
	require.Equal(t, "worker", stall.From, stall.Error)
	text := s.get("/stalls/1")
	require.Contains(t, text, fmt.Sprintf("=== worker %d, id %d, pid %d, did not answer at ", *stall.Slot, stall.ID, stall.PID))
	require.Contains(t, text, "admin_test.hungCheck(")
	require.Empty(t, stall.Error)
	require.Positive(t, stall.Trace)
	require.True(t, strings.HasPrefix(s.get("/stalls/1/trace"), "go 1."))

	for _, path := range []string{"/stalls", "/stalls/1", "/stalls/1/trace"} {
		for password, want := range map[string]string{"": "401", "secret": "200"} {
			r, err := http.NewRequest("GET", "http://"+address+path, nil)
			require.NoError(t, err)
			r.SetBasicAuth("x", password)
			answer, err := do(http.DefaultClient, r)
			require.NoError(t, err)
			require.Equal(t, want, answer[:3], path)
		}
	}
	for _, path := range []string{"/stalls/2", "/stalls/x", "/stalls/2/trace"} {
		r, err := http.NewRequest("GET", "http://cluster"+path, nil)
		require.NoError(t, err)
		answer, err := do(s.client, r)
		require.NoError(t, err)
		require.Equal(t, "404", answer[:3], path)
	}
}

// TestStallOfAWorkerThatRunsNothing: what it prints when SIGQUIT ends it is kept.
func TestStallOfAWorkerThatRunsNothing(t *testing.T) {
	t.Parallel()
	s := run(t, "HANG=GODEBUG=asyncpreemptoff=1 GOMAXPROCS=1")
	go clustertest.Get("http://" + s.listen + "/hang?spin=1")
	stall := s.stall(func(k admin.Stall) bool { return k.Exit != "" && strings.Contains(s.get("/stalls/1"), "goroutine ") })
	require.Equal(t, "output", stall.From)
	require.Zero(t, stall.Trace)
	text := s.get("/stalls/1")
	require.Contains(t, text, "\n=== missing: ")
	require.Contains(t, text, "SIGQUIT: quit")
}
