package cluster_test

import (
	"runtime"
	"slices"
	"testing"
)

// system is what the tests expect of the system that they run on. Whatever
// differs is said here and nowhere else; the tools that do the same in another
// way are in main_unix_test.go and main_windows_test.go, and what only one
// system has is tested in files of its own.
var system = systems[runtime.GOOS == "windows"]

var systems = map[bool]traits{
	false: {
		killed:     "-1 killed",
		killedText: "signal: killed",
		killedCode: -1,
		backlog:    runtime.GOOS == "linux",
		memory:     runtime.GOOS == "linux",
		openedBy:   "the master opens it, as uid ",
		networks:   []string{"tcp", "unix"},
		sharedUDP:  true,
		term:       true,
		dump:       true,
		pathList:   ":",
	},
	true: {
		killed:     "1 <nil>", // as TerminateProcess is told
		killedText: "exit status 1",
		killedCode: 1,
		memory:     true,
		openedBy:   "the master opens it",
		networks:   []string{"tcp"},
		exe:        ".exe",
		pathList:   ";",
	},
}

type traits struct {
	killed     string   // Code and Signal of the Exit of a worker that was killed
	killedText string   // the same, as an Exit prints it
	killedCode int      // its exit status
	backlog    bool     // it tells how many connections wait at a socket
	memory     bool     // and how much memory another process has
	openedBy   string   // who opens sockets, in the error of a Listen
	networks   []string // of streams, that workers can share
	sharedUDP  bool     // and of datagrams
	term       bool     // one process can be asked to stop by somebody else: SIGTERM
	dump       bool     // one that hangs can be asked for its goroutines: SIGQUIT
	exe        string   // how the name of a program ends
	pathList   string   // what separates the directories of PATH
}

// has reports whether workers can share sockets of the network.
func (s traits) has(network string) bool { return slices.Contains(s.networks, network) }

// need skips a test, or the part of one, that the system has the means for and
// the place where it runs has not. The reasons are those of lacking, which is
// empty but under Wine.
func need(t testing.TB, what string) {
	t.Helper()
	if why := lacking()[what]; why != "" {
		t.Skipf("%s: %s", what, why)
	}
}
