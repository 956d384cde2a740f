// Package clustertest has what the tests of this module share.
//
// Processes are real: Main, which each package's TestMain calls, executes the
// test binary again as one of the programs that Program registers, as a worker of
// the test process or as a master of its own with workers of its own. So a test
// needs no other binary, and each package of tests has one of its own: packages
// run in parallel.
//
// A process is one master at a time. A test that calls WithMaster makes the test
// process that master, and has the process for itself; Apart runs a test in a
// process of its own, beside others. Start starts a program with workers of its
// own, which the test sees from outside. CheckLeaks, which WithMaster calls,
// compares descriptors, goroutines and children before a test and after it.
//
// A test waits for events (Await, Recorder, Proc.Expect), and polls only for what
// has none (Eventually). Patience bounds each wait; it measures nothing.
// CommandWorker and SocketWorker are workers that do what a test asks them to,
// Supervisor is a master under Run, and NodeCluster and NodePrimary have node on
// the other side.
package clustertest

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"testing"

	_ "github.com/go-cluster/cluster/internal/clustertest/early"
)

// ProgramEnv names the program that a process of the test binary is.
const ProgramEnv = "CLUSTER_TEST_PROGRAM"

// programs are what the test binary can be run as.
var programs = map[string]func(){}

// Program registers fn as the main function of a process. When it returns the
// process exits with 0.
func Program(name string, fn func()) string {
	if programs[name] != nil {
		panic("program " + name + " twice")
	}
	programs[name] = fn
	return name
}

// RunProgram is what a program is that begins as another.
func RunProgram(name string) { programs[name]() }

// Main is the TestMain of a package whose tests start processes: they are the test
// binary again, as one of its programs.
func Main(m *testing.M) {
	if name := os.Getenv(ProgramEnv); name != "" {
		if programs[name] == nil {
			fmt.Fprintln(os.Stderr, "no test program", name)
			os.Exit(3)
		}
		prepareProgram()
		RunProgram(name)
		os.Exit(0)
	}
	// Under the race detector every process would sleep for a second at its end.
	os.Setenv("GORACE", strings.TrimSpace("atexit_sleep_ms=0 "+os.Getenv("GORACE")))
	// The goroutine of os/signal stays once it runs: let it be there before the
	// first count.
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt)
	signal.Stop(c)
	prepareTests()
	findRoot()
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	// What runs in processes of its own mostly waits for a drain: more of that can
	// go on at a time than there are cores.
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		flag.Set("test.parallel", "8")
	}
	os.Exit(m.Run())
}
