//go:build unix

package node_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestNodeDocNamesItsProofs: every test that docs/node.md names exists, every row
// of its tables of behaviours names one or says why there is none, and every
// test with node is named.
func TestNodeDocNamesItsProofs(t *testing.T) {
	b, err := os.ReadFile(clustertest.Path("docs", "node.md"))
	require.NoError(t, err)
	_, text, ok := strings.Cut(string(b), "\n## What node's own tests assert\n")
	require.True(t, ok)
	tests, named := clustertest.TestNames(t), make(map[string]bool)
	for _, row := range regexp.MustCompile(`(?m)^\| [^-].*$`).FindAllString(text, -1) {
		names := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(row, -1)
		if len(names) == 0 && !strings.HasPrefix(row, "| behaviour") {
			require.Contains(t, row, "not applicable")
		}
		for _, n := range names {
			require.Contains(t, tests, n[1])
			named[n[1]] = true
		}
	}
	require.Greater(t, len(named), 50)
	for name := range tests {
		if strings.HasPrefix(name, "TestNode") && name != t.Name() {
			require.Contains(t, string(b), "`"+name+"`", "a test that docs/node.md does not name")
		}
	}
}
