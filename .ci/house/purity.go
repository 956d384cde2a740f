package main

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
)

// pure are the rooms whose deadlines are data: time and events come in, orders go
// out.
var pure = []string{"internal/supervise", "internal/coordinate"}

// impure are functions of package time that read the clock or wait.
var impure = map[string]bool{
	"After": true, "AfterFunc": true, "NewTicker": true, "NewTimer": true,
	"Now": true, "Since": true, "Sleep": true, "Tick": true, "Until": true,
}

// acting are the packages that the pure room may not import. Of package os it
// may use what only names something.
var (
	acting = []string{"net", "os/exec", "os/signal", "syscall", "golang.org/x/sys/"}
	names  = map[string]bool{"ErrProcessDone": true, "Kill": true, "Signal": true}
)

// purity returns what the state machine uses that is not data, and every place
// in product code that asks for the system at run time: that is what the
// suffixes of files are for.
func purity() (faults []string, err error) {
	all, err := sources()
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		room, _, _ := strings.Cut(strings.TrimPrefix(s.path, "internal/"), "/")
		if s.test || strings.HasPrefix(s.path, "test/") || isTestTool(room) {
			continue
		}
		fault := func(n ast.Node, what string) {
			faults = append(faults, fmt.Sprintf("%s: %s", s.pos.Position(n.Pos()), what))
		}
		inPure := slices.ContainsFunc(pure, func(room string) bool { return strings.HasPrefix(s.path, room+"/") })
		for _, i := range s.file.Imports {
			for _, p := range acting {
				path := strings.Trim(i.Path.Value, `"`)
				if inPure && (path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(path, p)) {
					fault(i, "imports "+path)
				}
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				if inPure {
					fault(n, "starts a goroutine")
				}
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if ok && x.Name == "runtime" && n.Sel.Name == "GOOS" {
					fault(n, "asks for the system at run time")
				}
				if ok && inPure && (x.Name == "time" && impure[n.Sel.Name] || x.Name == "os" && !names[n.Sel.Name]) {
					fault(n, "uses "+x.Name+"."+n.Sel.Name)
				}
			}
			return true
		})
	}
	return faults, nil
}
