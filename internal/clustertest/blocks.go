package clustertest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Frame makes a program of a Go block of a document: it has the statements around the block.
type Frame struct {
	In            string // a part of the block, by which it is known
	Before, After string
	Test          bool // the block is a file of tests of the program: see Blocks.Test
}

// Blocks is a program made of all Go blocks of a document.
type Blocks struct{ Path, overlay string }

// BuildBlocks compiles the Go blocks of a document, each in its frame. There is one frame for
// each block, in the same order. A block that is a whole program has an empty frame. Start
// runs a block on an address of its own.
func BuildBlocks(t *testing.T, document string, frames ...Frame) *Blocks {
	t.Helper()
	text, err := os.ReadFile(Path(document))
	require.NoError(t, err)
	found := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	require.Len(t, found, len(frames), "a Go block of %s without a frame, or the other way round", document)
	dir := t.TempDir()
	// An overlay adds the blocks to the module, as a package that is not on the disk.
	overlay := make(map[string]string)
	add := func(name, source string) {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
		overlay[Path("blocks", name)] = file
	}
	table := ""
	for i, f := range frames {
		require.Contains(t, found[i][1], f.In, "block %d of %s", i, document)
		if f.Test {
			add(fmt.Sprintf("block%d_test.go", i), withImports(found[i][1]))
			continue
		}
		add(fmt.Sprintf("block%d.go", i), f.source(found[i][1], i))
		table += fmt.Sprintf("%q: block%d,\n", f.In, i)
	}
	add("main.go", "package main\n\nimport (\n\"log\"\n\"os\"\n)\n\nfunc main() {\nlog.SetFlags(0)\nmap[string]func(){\n"+table+"}[os.Getenv(\"BLOCK\")]()\n}\n")
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	require.NoError(t, err)
	b := &Blocks{filepath.Join(dir, "blocks"), filepath.Join(dir, "overlay.json")}
	require.NoError(t, os.WriteFile(b.overlay, list, 0o600))
	cmd := exec.Command("go", "build", "-overlay="+b.overlay, "-o", b.Path, "./blocks")
	cmd.Dir = Path()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return b
}

// blockImports are the packages that blocks and frames may use without an import.
var blockImports = []string{"context", "crypto/tls", "database/sql", "database/sql/driver", "encoding/json", "errors", "expvar", "fmt", "log",
	"net", "net/http", "os", "os/signal", "syscall", "testing", "time", "github.com/go-cluster/cluster"}

// blockAddress is an address that a block serves on.
var blockAddress = regexp.MustCompile(`"(localhost)?:8\d\d\d"`)

// comments matches comments. No string of a block contains "//".
var comments = regexp.MustCompile(`(?m)//.*$`)

// source returns the block as a function.
func (f Frame) source(block string, n int) string {
	block = blockAddress.ReplaceAllString(block, `os.Getenv("ADDRESS")`)
	if rest, ok := strings.CutPrefix(block, "package main\n"); ok {
		rest = strings.Replace(rest, "func main()", fmt.Sprintf("func block%d()", n), 1)
		return "package main\n\nimport \"os\"\n" + rest
	}
	return withImports(fmt.Sprintf("func block%d() {\n%s\n%s\n%s\n}\n", n, f.Before, block, f.After))
}

// withImports returns a file of the declarations, with the imports that they need.
func withImports(declarations string) string {
	source := "package main\n\n"
	code := comments.ReplaceAllString(declarations, "")
	for _, path := range blockImports {
		if name := path[strings.LastIndex(path, "/")+1:]; regexp.MustCompile(`\b` + name + `\.[A-Z]`).MatchString(code) {
			source += fmt.Sprintf("import %q\n", path)
		}
	}
	return source + "\n" + declarations
}

// Test runs the blocks that are tests. The program that they test is the block that contains
// in.
func (b *Blocks) Test(t *testing.T, in, address string, env ...string) {
	t.Helper()
	tests := b.Path + ".test"
	build := exec.Command("go", "test", "-c", "-vet=off", "-overlay="+b.overlay, "-o", tests, "./blocks")
	build.Dir = Path()
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	run := exec.Command(tests)
	run.Env = append(append(os.Environ(), env...), b.Env(in, address)...)
	out, err = run.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// Start runs the block that contains in, on the address.
func (b *Blocks) Start(t *testing.T, in, address string, env ...string) *Proc {
	t.Helper()
	return StartCmd(t, exec.Command(b.Path), "block", append(b.Env(in, address), env...)...)
}

// Env returns the environment in which a process of Path runs the block that contains in, on
// the address, with two workers unless the block says otherwise.
func (b *Blocks) Env(in, address string) []string {
	return []string{"BLOCK=" + in, "ADDRESS=" + address, "GOMAXPROCS=2"}
}
