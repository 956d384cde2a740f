package main

import (
	"context"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// debugCommands are those that look into processes.
func debugCommands(g *global) []*cobra.Command {
	metrics := &cobra.Command{
		Use: "metrics", Short: "The metrics of the cluster and of each worker, as Prometheus gets them", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return g.text("/metrics") },
	}
	stacks := &cobra.Command{
		Use: "stacks [WORKER]", Short: "The stacks of all goroutines: of one worker, of master, or of all", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return g.text("/workers/" + url.PathEscape(append(args, "all")[0]) + "/debug/stacks")
		},
	}
	return []*cobra.Command{metrics, stacks, pprofCommand(g)}
}

// text prints an answer that is text.
func (g *global) text(path string) error {
	m, err := g.connect()
	if err != nil {
		return err
	}
	b, err := m.get(path)
	if err != nil {
		return err
	}
	if g.json {
		return printText(string(b))
	}
	_, err = os.Stdout.WriteString(plainText(string(b)))
	return err
}

// printText prints a text as JSON.
func printText(text string) error {
	return printValue(struct {
		Text string `json:"text"`
	}{text})
}

// kinds are the profiles that every Go program has.
var kinds = []string{"profile", "heap", "allocs", "goroutine", "block", "mutex", "threadcreate", "trace"}

// pprofFlags are those of pprof.
type pprofFlags struct {
	*global
	worker  string
	seconds int
	file    string
}

func pprofCommand(g *global) *cobra.Command {
	f := &pprofFlags{global: g}
	c := &cobra.Command{
		Use:   "pprof [KIND]",
		Short: "A profile of a worker, for go tool pprof",
		Long: "KIND is profile (of the CPU, the default), heap, allocs, goroutine, block, mutex, threadcreate or trace.\n" +
			"The profile becomes a file, whose name is printed.",
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: kinds,
		RunE:      func(c *cobra.Command, args []string) error { return f.checked(c, args) },
	}
	f.timeAndFile(c)
	c.Flags().StringVarP(&f.worker, "worker", "w", "0", "the `worker`, by its slot, or master")
	return c
}

// timeAndFile are the flags of a profile.
func (f *pprofFlags) timeAndFile(c *cobra.Command) {
	c.Flags().IntVar(&f.seconds, "seconds", 0, "how long profile or trace is recorded (default: profile 30, trace 1); of another kind, what has come in that time")
	c.Flags().StringVarP(&f.file, "output", "o", "", "the `file` of the profile; - is the standard output (default: NAME.WORKER.KIND.pprof here)")
}

// checked fetches the profile that the arguments name.
func (f *pprofFlags) checked(c *cobra.Command, args []string) error {
	if c.Flags().Changed("seconds") && f.seconds < 1 {
		return usage("--seconds %d: at least 1 is needed", f.seconds)
	}
	return f.pprof(append(args, kinds[0])[0])
}

// pprof fetches a profile.
func (f *pprofFlags) pprof(kind string) error {
	m, err := f.connect()
	if err != nil {
		return err
	}
	path := "/workers/" + url.PathEscape(f.worker) + "/debug/pprof/" + url.PathEscape(kind)
	if f.seconds > 0 {
		path += "?seconds=" + strconv.Itoa(f.seconds)
	}
	if f.file == "-" {
		if term.IsTerminal(int(os.Stdout.Fd())) {
			return usage("a profile is not for a terminal: -o - is for a pipe or a file")
		}
		_, err := m.copyTo(os.Stdout, path)
		return err
	}
	if f.file == "" {
		f.file = fileName(m.name + "." + f.worker + "." + kind + ".pprof")
	}
	n, err := m.save(f.file, path)
	if err != nil {
		return err
	}
	if f.json {
		return printValue(struct {
			File  string `json:"file"`
			Bytes int64  `json:"bytes"`
		}{f.file, n})
	}
	tool := "go tool pprof "
	if kind == "trace" {
		tool = "go tool trace "
	}
	_, err = os.Stdout.WriteString(plain(tool+f.file) + "\n")
	return err
}

// fileName is a name in this directory.
func fileName(name string) string {
	return strings.TrimLeft(strings.Map(func(r rune) rune {
		if odd(r) || strings.ContainsRune(`/\: `, r) {
			return '_'
		}
		return r
	}, name), ".-")
}

// copyTo copies an answer as it is.
func (m *master) copyTo(w io.Writer, path string) (n int64, err error) {
	body, err := m.answer(context.Background(), "GET", path, "")
	if err != nil {
		return 0, err
	}
	defer body.Close()
	if n, err = io.Copy(w, body); err != nil {
		return n, m.broken(err)
	}
	return n, nil
}

// save makes an answer a file: all of it, or none.
func (m *master) save(file, path string) (n int64, err error) {
	part := file + ".part"
	w, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, failed("%w", err)
	}
	n, err = m.copyTo(w, path)
	if closed := w.Close(); err == nil && closed != nil {
		err = failed("%w", closed)
	}
	if err == nil {
		if moved := os.Rename(part, file); moved != nil {
			err = failed("%w", moved)
		}
	}
	if err != nil {
		os.Remove(part)
	}
	return n, err
}
