package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const (
	maxFile      = 500 // lines
	maxFunc      = 60  // lines, with its first and its last
	maxMethods   = 40  // of one type, all systems together
	maxRoot      = 20  // product files at the root
	maxRootTests = 25  // test files at the root
	minOverview  = 6   // lines at the beginning of a room that say what it is
)

// source is one Go file.
type source struct {
	path string // with slashes
	test bool   // its name says so
	file *ast.File
	pos  *token.FileSet
}

// lines is how many lines lie between two positions, both included.
func (s source) lines(from, to token.Pos) int {
	return s.pos.Position(to).Line - s.pos.Position(from).Line + 1
}

// sources are all Go files of the repository, for all systems. Like ./... it
// leaves out testdata and what begins with a dot or an underscore.
func sources() (all []source, err error) {
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := path != "." && strings.ContainsAny(d.Name()[:1], "._") || d.Name() == "testdata"
		if d.IsDir() && hidden {
			return fs.SkipDir
		}
		if d.IsDir() || hidden || filepath.Ext(path) != ".go" {
			return nil
		}
		pos := token.NewFileSet()
		f, err := parser.ParseFile(pos, path, nil, parser.ParseComments)
		all = append(all, source{filepath.ToSlash(path), strings.HasSuffix(path, "_test.go"), f, pos})
		return err
	})
	return all, err
}

// sizes returns what is larger than it may be. Of tests only the files at the
// root are counted.
func sizes() (faults []string, err error) {
	all, err := sources()
	if err != nil {
		return nil, err
	}
	root := map[bool]int{}
	methods := map[string][]string{}
	overviews := map[string]int{}
	for _, s := range all {
		dir := path.Dir(s.path)
		if dir == "." {
			root[s.test]++
		}
		if s.test {
			continue
		}
		if strings.HasPrefix(dir, "internal/") {
			overviews[dir] += strings.Count(s.file.Doc.Text(), "\n")
		}
		if n := s.lines(s.file.FileStart, s.file.FileEnd); n > maxFile {
			faults = append(faults, fmt.Sprintf("%s has %d lines: at most %d", s.path, n, maxFile))
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := s.lines(f.Pos(), f.End()); n > maxFunc {
				faults = append(faults, fmt.Sprintf("%s: %s has %d lines: at most %d", s.path, f.Name.Name, n, maxFunc))
			}
			if f.Recv != nil {
				of := dir + ": type " + receiver(f.Recv.List[0].Type)
				methods[of] = append(methods[of], f.Name.Name)
			}
		}
	}
	for of, names := range methods {
		slices.Sort(names)
		if n := len(slices.Compact(names)); n > maxMethods {
			faults = append(faults, fmt.Sprintf("%s has %d methods: at most %d", of, n, maxMethods))
		}
	}
	for dir, n := range overviews {
		if n < minOverview {
			faults = append(faults, fmt.Sprintf("%s begins with %d lines that say what it is: at least %d", dir, n, minOverview))
		}
	}
	if root[false] > maxRoot {
		faults = append(faults, fmt.Sprintf("the root has %d product files: at most %d", root[false], maxRoot))
	}
	if root[true] > maxRootTests {
		faults = append(faults, fmt.Sprintf("the root has %d test files: at most %d", root[true], maxRootTests))
	}
	slices.Sort(faults)
	return faults, nil
}

// receiver is the name of the type that a method belongs to.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return "?"
}
