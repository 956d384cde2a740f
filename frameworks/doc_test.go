//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDoc: the lines of docs/frameworks.md are those of the programs.
func TestDoc(t *testing.T) {
	doc, err := os.ReadFile("../docs/frameworks.md")
	require.NoError(t, err)
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	var source strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		source.WriteString(unindent(string(b)))
	}
	require.NotRegexp(t, `(?m)^(    |\t)`, outside(string(doc)), "a block that nothing tries")
	blocks := strings.Split(string(doc), "```go\n")[1:]
	require.NotEmpty(t, blocks)
	for _, b := range blocks {
		code, _, _ := strings.Cut(b, "```")
		require.Contains(t, source.String(), unindent(code), "a block of the document")
	}
	for name := range hellos {
		require.Contains(t, string(doc), name)
	}
}

// unindent is text without the tabs at the beginning of its lines.
func unindent(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimLeft(lines[i], "\t")
	}
	return strings.Join(lines, "\n")
}

// outside is what stands in no block of a document.
func outside(doc string) (text string) {
	for i, part := range strings.Split(doc, "```") {
		if i%2 == 0 {
			text += part
		}
	}
	return text
}
