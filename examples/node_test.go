//go:build unix

package examples

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// nodeBinary returns the node to test with: what CLUSTER_TEST_NODE names, or
// the one in PATH. Without one the test is skipped, but not where CI is set.
func nodeBinary(t *testing.T) string {
	t.Helper()
	node, given := os.LookupEnv("CLUSTER_TEST_NODE")
	if !given {
		node = "node"
	}
	if _, err := exec.LookPath(node); err != nil {
		if given || os.Getenv("CI") != "" {
			t.Fatalf("node is needed: %v", err)
		}
		t.Skipf("no node to test with: %v (set CLUSTER_TEST_NODE to its path)", err)
	}
	return node
}

// TestNodeExample: both runtimes answer at one port, and both talk to the master.
func TestNodeExample(t *testing.T) {
	node := nodeBinary(t)
	e := start(t, "node", "-addr", "127.0.0.1:0", "-node", node, "-script", "node/server.js")
	url := "http://" + e.address() + "/path"
	seen := make(map[string]bool)
	for range 100 {
		seen[get(t, client, url)] = true
		if len(seen) == 2 {
			break
		}
	}
	require.Equal(t, map[string]bool{"hello from node, worker 1\n": true, "hello from go, worker 2\n": true}, seen)
	e.expect(`worker 1 says {"runtime":"node","url":"/path"}`)
	e.ctrlC()
}
