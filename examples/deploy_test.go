//go:build unix

package examples

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// number finds the first group of the pattern in a file.
func number(t *testing.T, file, pattern string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	m := regexp.MustCompile(`(?m)` + pattern).FindSubmatch(b)
	require.NotNil(t, m, "%s has no %s", file, pattern)
	n, err := strconv.Atoi(string(m[1]))
	require.NoError(t, err)
	return n
}

// TestDeployFits: what deploy/ gives the example leaves it the time that its own
// options ask for, so that no drain is cut off from outside.
func TestDeployFits(t *testing.T) {
	drain := number(t, "production/main.go", `ShutdownTimeout: (\d+) \* time\.Second`)
	const unit, manifest = "../deploy/production.service", "../deploy/kubernetes.yaml"
	const start = 60 // Options.StartTimeout
	require.Greater(t, number(t, unit, `^TimeoutStopSec=(\d+)$`), drain)
	require.Greater(t, number(t, unit, `^TimeoutStartSec=(\d+)$`), start)
	preStop := number(t, manifest, `sleep: \{ seconds: (\d+) \}`)
	require.Greater(t, number(t, manifest, `terminationGracePeriodSeconds: (\d+)`), preStop+drain)
	startup := number(t, manifest, `startupProbe:\n(?:.*\n)*?\s+periodSeconds: (\d+)`) * number(t, manifest, `startupProbe:\n(?:.*\n)*?\s+failureThreshold: (\d+)`)
	require.Greater(t, startup, start)

	b, err := os.ReadFile(unit)
	require.NoError(t, err)
	for _, line := range []string{"Type=notify-reload", "KillMode=mixed", "NotifyAccess=main", "Requires=production.socket"} {
		require.Contains(t, strings.Split(string(b), "\n"), line)
	}
	// The ports of the manifest are those that the program is told.
	for _, port := range []string{"8000", "8001"} {
		require.Equal(t, port, strconv.Itoa(number(t, manifest, `containerPort: (`+port+`)`)))
	}
}
