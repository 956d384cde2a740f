//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// production is the example as a program of the test binary.
var production = clustertest.Program("production", main)

func TestMain(m *testing.M) { clustertest.Main(m) }

// TestProduction: the server reloads, scales and announces its stop by signals, and tells
// its state by package admin, by the paths that the probes of deploy/ ask.
func TestProduction(t *testing.T) {
	at := func() string { return fmt.Sprintf("127.0.0.1:%d", clustertest.FreePort(t)) }
	addr, status := at(), at()
	manager := clustertest.NewManager(t)
	cmd := exec.Command(os.Args[0], "-addr", addr, "-status", status, "-shutdown-delay", "100ms")
	p := clustertest.StartCmd(t, cmd, production, "GOMAXPROCS=2", manager.Env, "RUNTIME_DIRECTORY="+clustertest.TempDir(t))
	code := func(path string) int {
		a, err := http.Get("http://" + status + path)
		if err != nil {
			return 0
		}
		a.Body.Close()
		return a.StatusCode
	}
	clustertest.Eventually(t, func() bool { return code("/readyz") == http.StatusOK }, "a worker that is up")
	require.Equal(t, http.StatusOK, code("/healthz"))
	require.Equal(t, http.StatusOK, code("/"))
	text, err := clustertest.Get("http://" + addr)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(text, "worker "), text)

	var stats struct {
		Generation, Target int
		Workers            []struct{ State string }
	}
	ready := func(generation, n int) func() bool {
		return func() bool {
			text, err := clustertest.Get("http://" + status + "/stats")
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal([]byte(text), &stats))
			up := 0
			for _, w := range stats.Workers {
				if w.State == "ready" {
					up++
				}
			}
			return stats.Generation == generation && stats.Target == n && up == n
		}
	}
	clustertest.Eventually(t, ready(1, 2), "two workers")
	manager.InRun() // and takes signals
	p.Signal(syscall.SIGHUP)
	clustertest.Eventually(t, ready(2, 2), "a reload")
	p.Signal(syscall.SIGTTIN)
	clustertest.Eventually(t, ready(2, 3), "one more")
	p.Signal(syscall.SIGTTOU)
	clustertest.Eventually(t, ready(2, 2), "one less")
	http.DefaultClient.CloseIdleConnections()
	p.Signal(syscall.SIGTERM)
	require.Zero(t, p.Exit())
}
