// Command cluster runs clusters of any program, and tells masters what to do.
//
//	cluster run -n 4 --listen tcp://:8000 -- PROGRAM ARG…
//	cluster status
//	cluster fleet status --nats nats://nats:4222
//
// A master that it runs is one of package cluster, with package admin's socket; what
// the other commands see and order is that of any program which calls admin.Start.
// They find it among the sockets of this user. docs/run.md and docs/operations.md
// have examples of all.
//
// The exit status is 0 if it is done, 1 if that was refused or has failed (why is on
// the standard error), 2 if the call is wrong, also where several clusters run and none is
// named, and 3 if there is no such cluster.
//
// Each file is one command, or what several need: clusters.go finds the sockets,
// client.go asks them, plain.go makes texts of workers harmless for a terminal. A command is
// one goroutine; in run.go the library has those that it needs, package output's
// writers are called by them, and one goroutine each waits for signals and looks for
// changed files. The sinks have a lock each, which is taken alone.
//
// The tests run the built binary, with real programs.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

func main() {
	root := rootCommand()
	called, err := root.ExecuteC()
	if err == nil {
		return
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(os.Stderr, "cluster: "+plain(unnamed(text)))
	}
	var s *status
	if errors.As(err, &s) {
		os.Exit(s.code)
	}
	if _, output := errors.AsType[*fs.PathError](err); output {
		os.Exit(exitFailed) // what was asked for could not be written
	}
	// Of cobra: the arguments are wrong.
	if called == root {
		fmt.Fprintln(os.Stderr, "cluster --help has the commands")
	} else {
		fmt.Fprintf(os.Stderr, "usage: %s\n%s --help has more\n", called.UseLine(), called.CommandPath())
	}
	os.Exit(exitUsage)
}

// unnamed is an error of the library without its name, which is the command's own.
func unnamed(text string) string { return strings.TrimPrefix(text, "cluster: ") }

// The exit statuses beside 0.
const (
	exitFailed = 1
	exitUsage  = 2
	exitNone   = 3
)

// status is an error with an exit status.
type status struct {
	code int
	err  error
}

func (s *status) Error() string { return s.err.Error() }
func (s *status) Unwrap() error { return s.err }

func failed(format string, a ...any) error { return &status{exitFailed, fmt.Errorf(format, a...)} }
func usage(format string, a ...any) error  { return &status{exitUsage, fmt.Errorf(format, a...)} }
func none(format string, a ...any) error   { return &status{exitNone, fmt.Errorf(format, a...)} }

// global are the flags of every command.
type global struct {
	name   string // -c
	socket string // --socket
	json   bool   // -j
}

func rootCommand() *cobra.Command {
	g := new(global)
	c := &cobra.Command{
		Use:   "cluster",
		Short: "Run clusters of any program, and tell masters what to do",
		Long: "Without a command it lists the clusters of this user that run; root's are those of all.\n\n" +
			"Exit status: 0 done, 1 refused or failed, 2 wrong usage (also where several clusters run and none is named), 3 no such cluster.",
		Args:          cobra.NoArgs,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(*cobra.Command, []string) error { return list(g) },
	}
	f := c.PersistentFlags()
	f.StringVarP(&g.name, "cluster", "c", "", "the cluster's `name`, or its name, a dot and its master's pid")
	f.StringVar(&g.socket, "socket", "", "the `path` of the master's socket")
	f.BoolVarP(&g.json, "json", "j", false, "JSON instead of text")
	c.MarkFlagsMutuallyExclusive("cluster", "socket")
	c.RegisterFlagCompletionFunc("cluster", completeNames)
	c.AddCommand(runCommand(g), statusCommand(g), eventsCommand(g), logsCommand(g), topCommand(g))
	c.AddCommand(fleetCommand(g))
	c.AddCommand(orderCommands(g)...)
	c.AddCommand(debugCommands(g)...)
	return c
}

// version is that of this program, as the go command has built it: the tag's with go
// install, else (devel) or what it makes of the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	return info.Main.Version + " (" + info.GoVersion + ")"
}

// completeNames are the clusters that run, each by what -c takes for it alone.
func completeNames(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	all := running()
	many := make(map[string]int)
	for _, s := range all {
		many[s.name]++
	}
	var names []string
	for _, s := range all {
		if name := s.name; many[name] == 1 {
			names = append(names, name)
		} else {
			names = append(names, name+"."+s.pid)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
