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
	delay := number(t, manifest, `"-shutdown-delay", "(\d+)s"`)
	require.Greater(t, number(t, manifest, `terminationGracePeriodSeconds: (\d+)`), delay+drain)
	startup := number(t, manifest, `startupProbe:\n(?:.*\n)*?\s+periodSeconds: (\d+)`) * number(t, manifest, `startupProbe:\n(?:.*\n)*?\s+failureThreshold: (\d+)`)
	require.Greater(t, startup, start)

	b, err := os.ReadFile(unit)
	require.NoError(t, err)
	for _, line := range []string{"Type=notify-reload", "KillMode=mixed", "NotifyAccess=main", "Requires=production.socket"} {
		require.Contains(t, strings.Split(string(b), "\n"), line)
	}
	// The probes are those of package admin, at the port of its Address.
	k, err := os.ReadFile(manifest)
	require.NoError(t, err)
	for probe, path := range map[string]string{"startup": "readyz", "readiness": "readyz", "liveness": "healthz"} {
		require.Contains(t, string(k), probe+"Probe:\n            httpGet: { path: /"+path+", port: status }\n")
	}
	// The ports of the manifest are those that the program is told.
	for _, port := range []string{"8000", "8001"} {
		require.Equal(t, port, strconv.Itoa(number(t, manifest, `containerPort: (`+port+`)`)))
	}
}

// TestDeployPage: the page about deployments names files that are there, and what it adds to
// the unit fits the rest of that.
func TestDeployPage(t *testing.T) {
	b, err := os.ReadFile("../docs/deploy.md")
	require.NoError(t, err)
	page := string(b)
	for _, link := range regexp.MustCompile(`\]\(([^)#]+)`).FindAllStringSubmatch(page, -1) {
		require.FileExists(t, "../docs/"+link[1])
	}
	unit, err := os.ReadFile("../deploy/production.service")
	require.NoError(t, err)
	_, added, _ := strings.Cut(page, "[Service]\n")
	added, _, _ = strings.Cut(added, "```")
	require.Equal(t, []string{"Type=notify-reload", "ReloadSignal=SIGUSR2"}, strings.Fields(added))
	require.Contains(t, string(unit), "\nType=notify-reload\n")
	require.NotContains(t, string(unit), "\nReloadSignal=", "the page says that this comes in addition")
	for _, kept := range []string{"KillMode=mixed", "NotifyAccess=main", "TimeoutStartSec="} {
		require.Contains(t, page, kept)
		require.Contains(t, string(unit), "\n"+kept)
	}
}
