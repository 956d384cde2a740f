//go:build unix

package examples

import (
	"encoding/json"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestProduction: the server reloads, scales and tells its state, by signals
// and over its status port.
func TestProduction(t *testing.T) {
	e := start(t, "production", "-addr", "127.0.0.1:0", "-status", "127.0.0.1:0")
	status := "http://" + e.expect(`status address=(\S+)`)[1]
	addr := e.expect(`listening .*address=(\S+)`)[1]
	e.expect(`listening .*address=(\S+)`)
	require.True(t, strings.HasPrefix(get(t, client, "http://"+addr), "worker "))
	require.Equal(t, "ok\n", get(t, client, "http://"+addr+"/healthz"))

	var stats struct {
		Generation, Target int
		Workers            []struct{ State string }
	}
	tell := func() {
		resp, err := http.Get(status)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&stats))
	}
	e.inRun()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		tell()
		require.Equal(t, 2, stats.Target)
		require.Len(t, stats.Workers, 2)
		if stats.Workers[0].State == "ready" && stats.Workers[1].State == "ready" {
			break // each accepts a moment after it listens
		}
		require.True(t, time.Now().Before(end), "%v", stats.Workers)
	}

	require.NoError(t, e.cmd.Process.Signal(syscall.SIGHUP))
	require.Equal(t, []string{"reloaded generation=2 replaced=2", "2", "2"}, e.expect(`reloaded generation=(\d+) replaced=(\d+)`))
	require.NoError(t, e.cmd.Process.Signal(syscall.SIGTTIN))
	e.expect(`listening .*slot=2`)
	get(t, client, "http://"+addr)
	tell()
	require.Equal(t, 3, stats.Target)
	require.Equal(t, 2, stats.Generation)
	require.NoError(t, e.cmd.Process.Signal(syscall.SIGTTOU))
	e.expect(`gone .*slot=2 .*reason=scale`)
	http.DefaultClient.CloseIdleConnections()
	require.NoError(t, e.cmd.Process.Signal(syscall.SIGTERM))
	e.end()
	refused(t, "tcp", addr)
}
