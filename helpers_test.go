package cluster

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patienceIn bounds every wait of the tests inside the package: it ends a test
// that hangs, and measures nothing.
const patienceIn = 30 * time.Second

// tempDirIn is a directory that goes with the test. Wine cannot remove one as
// t.TempDir does.
func tempDirIn(t testing.TB) string {
	dir, err := os.MkdirTemp("", "cluster")
	require.NoError(t, err)
	t.Cleanup(func() {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			os.Remove(filepath.Join(dir, e.Name()))
		}
		os.Remove(dir)
	})
	return dir
}
