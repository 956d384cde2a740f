// Package clustertest has what the tests of this module share.
//
// Processes are real. The test binary is executed again as one of the programs that Program
// registers: as a worker of the test process, or as a master with workers of its own. Main,
// which each package's TestMain calls, sees to that. So a test needs no other binary, and
// packages of tests run in parallel.
//
// A process is one master at a time. WithMaster makes the test process that master, so such
// tests run one after another. Apart runs a test in a process of its own, beside others. Start
// starts a program with workers of its own, which the test sees from outside. CheckLeaks,
// which WithMaster calls, compares descriptors, goroutines and children before a test and
// after it.
//
// A test waits for events (Await, Recorder, Proc.Expect). It polls only for a state that sends
// no event (Eventually). Patience bounds each wait; it measures nothing.
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

// programs are the programs as which the test binary can run, by name.
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

// RunProgram runs the main function of a program, for a program that begins as that one.
func RunProgram(name string) { programs[name]() }

// Main is the TestMain of a package whose tests start processes. In such a process, which is the
// test binary again, it runs the program.
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
	// Once the goroutine of os/signal runs, it stays: it must be there before the first
	// count.
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt)
	signal.Stop(c)
	prepareTests()
	findRoot()
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	// Tests in processes of their own mostly wait for a drain, so more of them can run at a
	// time than there are cores.
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		flag.Set("test.parallel", "8")
	}
	os.Exit(m.Run())
}
