package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

const module = "github.com/go-cluster/cluster"

// rooms are the internal packages, each with the other rooms that it may
// import. Every room may import errs. A room that is not in the tree yet is no
// fault; one that is not in this table is.
var rooms = map[string][]string{
	"errs":      {},
	"callback":  {},
	"logqueue":  {},
	"mailbox":   {"callback"},
	"wire":      {},
	"handle":    {},
	"channel":   {"handle"},
	"link":      {"callback", "channel", "handle", "wire"},
	"process":   {"callback", "handle"},
	"supervise": {},
	"socket":    {"handle"},
	"parcel":    {"socket", "handle", "wire"},
	"share":     {"callback", "socket", "handle", "wire"},
	"drain":     {"callback", "goodbye"},
	"systemd":   {"mailbox"},
	"signals":   {"process", "upgrade"},
	"upgrade":   {},
	"operator":  {},
	"flow":      {},
	"goodbye":   {},
	"gauge":     {},
	"tickets":   {},

	"coordinate": {},
	"broker":     {"callback", "coordinate", "wire"},
}

// apart are packages of the public API beside the root, with the rooms that they
// may import.
var apart = map[string][]string{
	module + "/coord": {"broker", "coordinate"},
}

// testTools are what tests share, and whether they may import the rest of the module.
// No product code imports them.
var testTools = map[string]bool{
	"clustertest": true,
	"roomtest":    false,
}

// outside are the only packages of other modules that product code may import.
const outside = "golang.org/x/sys/"

// systems are those whose files differ.
var systems = []string{"linux", "darwin", "freebsd", "windows"}

// unit is a package as go list prints it.
type unit struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// graph returns the imports that break the rules, on any system.
func graph() (faults []string, err error) {
	for _, system := range systems {
		units, err := list(system)
		if err != nil {
			return nil, err
		}
		for _, u := range units {
			faults = append(faults, u.faults()...)
		}
	}
	slices.Sort(faults)
	return slices.Compact(faults), nil
}

func list(system string) (units []unit, err error) {
	c := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	c.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	for d := json.NewDecoder(out); ; {
		var u unit
		if err := d.Decode(&u); err == io.EOF {
			return units, c.Wait()
		} else if err != nil {
			return nil, err
		}
		units = append(units, u)
	}
}

// faults judges one package. Tests of a room may use the test tools, and
// nothing else is checked of them but that they do not import the root: what
// needs the root is a test of the root.
func (u unit) faults() (faults []string) {
	fault := func(to, why string) {
		faults = append(faults, fmt.Sprintf("%s imports %s: %s", u.ImportPath, to, why))
	}
	room, isRoom := roomOf(u.ImportPath)
	free, isTool := testTools[room]
	if isRoom && isTool && free {
		return nil
	}
	allowed, known := rooms[room]
	if isRoom && !known && !isTool {
		faults = append(faults, u.ImportPath+" is not in the table of rooms of .ci/house")
	}
	test := strings.HasPrefix(u.ImportPath, module+"/test/")
	program := !isRoom && u.ImportPath != module && !test
	for _, to := range u.Imports {
		toRoom, isRoomToo := roomOf(to)
		switch {
		case test: // free
		case isRoomToo && isTestTool(toRoom):
			fault(to, "only tests may")
		case isTool && strings.Contains(to, module):
			fault(to, "what the rooms' tests share imports no other package of the module")
		case isTool: // testify
		case isRoom && isRoomToo && toRoom != "errs" && !slices.Contains(allowed, toRoom):
			fault(to, "not in the table of rooms of .ci/house")
		case isRoom && to == module:
			fault(to, "a room may not import the root")
		case program && isRoomToo && !slices.Contains(apart[u.ImportPath], toRoom):
			fault(to, "programs use the public API")
		case strings.Contains(to, ".") && !strings.HasPrefix(to+"/", module+"/") && !strings.HasPrefix(to, outside):
			fault(to, "product code needs only the standard library and "+outside)
		}
	}
	if isRoom && slices.Contains(append(u.TestImports, u.XTestImports...), module) {
		fault(module, "nor may the tests of a room")
	}
	return faults
}

func isTestTool(room string) bool {
	_, ok := testTools[room]
	return ok
}

// roomOf returns the name of an internal package: "share" also for a package
// inside it.
func roomOf(path string) (room string, ok bool) {
	rest, ok := strings.CutPrefix(path, module+"/internal/")
	room, _, _ = strings.Cut(rest, "/")
	return room, ok
}
