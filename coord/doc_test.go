package coord_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestDoc: the code of docs/coord.md is that of the examples, which run.
func TestDoc(t *testing.T) {
	doc, err := os.ReadFile(clustertest.Path("docs", "coord.md"))
	require.NoError(t, err)
	examples, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	flat := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(doc), -1)
	require.NotEmpty(t, blocks)
	for _, b := range blocks {
		require.Contains(t, flat(string(examples)), flat(b[1]))
	}
}
