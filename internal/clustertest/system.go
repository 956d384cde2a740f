package clustertest

import (
	"runtime"
	"slices"
	"testing"
)

// System is what the tests expect of the system that they run on. All differences of
// expectations are here. Tools that do the same in another way are in system_unix.go and
// system_windows.go. Features that only one system has are tested in files of their own.
var System = systems[runtime.GOOS == "windows"]

var systems = map[bool]traits{
	false: {
		Killed:     "-1 killed",
		KilledText: "signal: killed",
		KilledCode: -1,
		Backlog:    runtime.GOOS == "linux",
		Memory:     runtime.GOOS == "linux",
		OpenedBy:   "the master opens it, as uid ",
		Networks:   []string{"tcp", "unix"},
		SharedUDP:  true,
		Term:       true,
		Dump:       true,
		PathList:   ":",
	},
	true: {
		Killed:     "1 <nil>", // as TerminateProcess is told
		KilledText: "exit status 1",
		KilledCode: 1,
		Memory:     true,
		OpenedBy:   "the master opens it",
		Networks:   []string{"tcp"},
		Exe:        ".exe",
		PathList:   ";",
	},
}

type traits struct {
	Killed     string   // Code and Signal of the Exit of a worker that was killed
	KilledText string   // the same, as an Exit prints it
	KilledCode int      // its exit status
	Backlog    bool     // it tells how many connections wait at a socket
	Memory     bool     // it tells how much memory another process has
	OpenedBy   string   // the user that opens sockets, as in the error of a Listen
	Networks   []string // networks of streams that workers can share
	SharedUDP  bool     // workers can share sockets for datagrams
	Term       bool     // one process can ask another to stop: SIGTERM
	Dump       bool     // a process that hangs can be asked for its goroutines: SIGQUIT
	Exe        string   // how the name of a program ends
	PathList   string   // what separates the directories of PATH
}

// Has reports whether workers can share sockets of the network.
func (s traits) Has(network string) bool { return slices.Contains(s.Networks, network) }

// Need skips a test, or a part of one, if what is missing here although the system has it. The
// function lacking says what is missing: only Wine lacks anything.
func Need(t testing.TB, what string) {
	t.Helper()
	if why := lacking()[what]; why != "" {
		t.Skipf("%s: %s", what, why)
	}
}
