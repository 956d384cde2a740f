//go:build unix

package cluster_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

func readme(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("README.md")
	require.NoError(t, err)
	return string(b)
}

// TestReadmeCompiles: every Go block of the README compiles, a program as it
// stands and any other as the body of a function.
func TestReadmeCompiles(t *testing.T) {
	t.Parallel()
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(readme(t), -1)
	require.NotEmpty(t, blocks)
	root, err := os.Getwd()
	require.NoError(t, err)
	dir := t.TempDir()
	// The blocks are laid over the module, as packages that are not there.
	overlay := make(map[string]string)
	args := []string{"build", "-overlay=" + filepath.Join(dir, "overlay.json")}
	for i, b := range blocks {
		file := filepath.Join(dir, fmt.Sprintf("block%d.go", i))
		require.NoError(t, os.WriteFile(file, []byte(source(b[1])), 0o600))
		name := fmt.Sprintf("readme%d", i)
		overlay[filepath.Join(root, name, "main.go")] = file
		args = append(args, "./"+name)
	}
	text, err := json.Marshal(map[string]any{"Replace": overlay})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), text, 0o600))
	out, err := exec.Command("go", args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// imports are what the README's fragments may use without saying so.
var imports = []string{"context", "errors", "fmt", "log", "net", "net/http", "os", "syscall", "time", "github.com/go-cluster/cluster"}

func source(block string) string {
	if strings.HasPrefix(block, "package ") {
		return block
	}
	var b strings.Builder
	b.WriteString("package readme\n\n")
	for _, path := range imports {
		if name := path[strings.LastIndex(path, "/")+1:]; regexp.MustCompile(`\b` + name + `\.[A-Z]`).MatchString(block) {
			fmt.Fprintf(&b, "import %q\n", path)
		}
	}
	return b.String() + "\nfunc _() {\n" + block + "}\n"
}

// TestReadmeNamesItsProofs: the README lists all guarantees, and each names
// tests that exist.
func TestReadmeNamesItsProofs(t *testing.T) {
	_, text, ok := strings.Cut(readme(t), "\n## Guarantees\n")
	require.True(t, ok)
	text, _, _ = strings.Cut(text, "\n## ")
	items := regexp.MustCompile(`(?m)^\d+\. `).Split(text, -1)[1:]
	require.Len(t, items, 10)
	tests := clustertest.TestNames(t)
	for i, item := range items {
		names := regexp.MustCompile("`((?:Test|Fuzz|Example)\\w*)`").FindAllStringSubmatch(item, -1)
		require.NotEmpty(t, names, "guarantee %d names no test", i+1)
		for _, n := range names {
			require.Contains(t, tests, n[1], "guarantee %d", i+1)
		}
	}
}
