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
)

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
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	// What runs in processes of its own mostly waits for a drain: more of that can
	// go on at a time than there are cores.
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		flag.Set("test.parallel", "8")
	}
	os.Exit(m.Run())
}
