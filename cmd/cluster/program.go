package main

import (
	"bufio"
	"bytes"
	"debug/buildinfo"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Which program is to run, and whether it is one of package cluster.

// harmlessName are the names that a cluster can have.
var harmlessName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$`)

// interpreter are programs of which a script says more than their name.
var interpreter = regexp.MustCompile(`^(python|node|nodejs|ruby|perl|php|bash|sh|deno|bun)[-.\d]*$`)

// nodeName are the names that node has, as package cluster knows them.
var nodeName = regexp.MustCompile(`^node(js)?[-.\d]*$`)

// findProgram is the path of a program, as a shell finds it.
func findProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// nameOf is how a cluster of the program is called.
func nameOf(args []string) string {
	name := filepath.Base(args[0])
	if interpreter.MatchString(name) {
		for _, a := range args[1:] {
			if st, err := os.Stat(a); err == nil && st.Mode().IsRegular() {
				name = filepath.Base(a)
				break
			}
		}
	}
	if ext := filepath.Ext(name); ext != "" && len(ext) < len(name) && len(ext) <= 4 {
		name = strings.TrimSuffix(name, ext)
	}
	name = regexp.MustCompile(`[^A-Za-z0-9_.-]`).ReplaceAllString(strings.TrimLeft(name, "."), "_")
	if name = name[:min(len(name), 64)]; name == "" {
		return "program"
	}
	return name
}

const modulePath = "github.com/go-cluster/cluster"

// isOwn reports whether a program can be a worker with a channel: it is node, a script of
// node's, or a Go program with package cluster in it.
func isOwn(program string) bool {
	if nodeName.MatchString(filepath.Base(program)) || nodeName.MatchString(shebang(program)) {
		return true
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return false
	}
	for _, d := range info.Deps {
		if d.Path == modulePath {
			return true
		}
	}
	// A program of this very module may be one that does not import the package.
	return info.Main.Path == modulePath && contains(program, modulePath+".init")
}

// shebang is the name of the program that runs the script; "" if it is none.
func shebang(script string) string {
	f, err := os.Open(script)
	if err != nil {
		return ""
	}
	defer f.Close()
	line, _ := bufio.NewReader(io.LimitReader(f, 256)).ReadString('\n')
	line, ok := strings.CutPrefix(line, "#!")
	words := strings.Fields(line)
	if !ok || len(words) == 0 {
		return ""
	}
	name := filepath.Base(words[0])
	for _, w := range words[1:] {
		if name != "env" {
			break
		}
		if !strings.HasPrefix(w, "-") && !strings.Contains(w, "=") {
			name = filepath.Base(w)
		}
	}
	return name
}

// contains reports whether a file has the text in it.
func contains(path, text string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	buf, kept := make([]byte, 1<<20), 0
	for {
		n, err := f.Read(buf[kept:])
		if n += kept; bytes.Contains(buf[:n], []byte(text)) {
			return true
		}
		if err != nil {
			return false
		}
		kept = copy(buf, buf[max(0, n-len(text)):n]) // it may begin there
	}
}
