//go:build unix

package node_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
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
		if strings.HasPrefix(name, "TestNode") && !strings.HasPrefix(name, "TestNodeDoc") {
			require.True(t, strings.Contains(string(b), "`"+name+"`"), "docs/node.md does not name %s", name)
		}
	}
}

// TestNodeDocRuns: the Go blocks of docs/node.md do what the text around them says.
func TestNodeDocRuns(t *testing.T) {
	t.Parallel()
	node := clustertest.NodeBinary(t)
	dir := t.TempDir()
	b := clustertest.BuildBlocks(t, "docs/node.md",
		clustertest.Frame{In: `Exec: "node"`, Before: `os.Chdir(os.Getenv("SCRIPTS"))`},
		clustertest.Frame{In: "cluster.Parent", After: `
			cluster.AutoFork()
			if err := cluster.ListenAndServe(os.Getenv("ADDRESS"), nil); err != nil { log.Fatal(err) }`},
	)
	write := func(name, script string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o600))
	}
	write("worker.js", `require('http').createServer((q, r) => r.end('hello')).listen(+process.env.ADDRESS.split(':')[1], '127.0.0.1')`)
	write("parent.js", `
		const child = require('child_process').fork('unused', [], {execPath: process.env.GO_PROGRAM});
		child.once('message', (m) => { console.log('message', JSON.stringify(m)); });
		process.on('SIGUSR2', () => child.kill('SIGTERM'));
		child.on('exit', (code, signal) => console.log('exit', code, signal));`)
	address := "127.0.0.1:" + strconv.Itoa(clustertest.FreePort(t))

	manager := clustertest.NewManager(t)
	p := b.Start(t, `Exec: "node"`, address, manager.Env, "SCRIPTS="+dir, "PATH="+filepath.Dir(node)+string(os.PathListSeparator)+os.Getenv("PATH"))
	clustertest.Eventually(t, func() bool {
		body, err := clustertest.Get("http://" + address)
		return err == nil && body == "hello"
	}, "an answer of the node workers")
	manager.InRun()
	p.Terminate()

	manager = clustertest.NewManager(t)
	p = clustertest.StartCmd(t, exec.Command(node, filepath.Join(dir, "parent.js")), "node parent",
		append(b.Env("cluster.Parent", address), "GO_PROGRAM="+b.Path, manager.Env)...)
	p.Expect(`message "ready"`)
	manager.InRun() // what it says before, a SIGTERM would end
	p.Signal(syscall.SIGUSR2)
	p.Expect("exit 0 null")
	require.Zero(t, p.Exit())
	p.GroupEmpty()
}
