package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/admin"
	"github.com/spf13/cobra"
)

// runFlags are those of run.
type runFlags struct {
	*global
	workers        int
	listen         []string
	name           string
	readyNotify    bool
	readyAfter     time.Duration
	readyURL       string
	reloadOnChange bool
	log            string
	foreign        *bool // nil: find out
}

func runCommand(g *global) *cobra.Command {
	f, foreign := &runFlags{global: g}, false
	c := &cobra.Command{
		Use:   "run [flags] -- PROGRAM [ARG…]",
		Short: "Run a program as a cluster",
		Long: "The program is one of package cluster, node, or any other: that takes its sockets as systemd passes them (LISTEN_FDS),\n" +
			"from descriptor 3 on, in the order of --listen.\n\n" +
			"SIGHUP reloads, SIGTERM and Ctrl-C stop, SIGUSR1 opens the --log file anew.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("foreign") {
				f.foreign = &foreign
			}
			return f.run(args)
		},
	}
	l := c.Flags()
	l.SetInterspersed(false)
	l.IntVarP(&f.workers, "workers", "n", 0, "how many workers (default: one for each CPU)")
	l.StringArrayVar(&f.listen, "listen", nil, "`[name=]network://address` of a socket, as tcp://:8000 or unix:///run/web.sock; several give several")
	l.StringVar(&f.name, "name", "", "the cluster's name (default: the program's, or its script's)")
	l.BoolVar(&f.readyNotify, "ready-notify", false, "a worker is ready when it says so: READY=1 to its NOTIFY_SOCKET, or Ready of package cluster")
	l.DurationVar(&f.readyAfter, "ready-after", 0, "a worker is ready when it has run for so long (default 1s)")
	l.StringVar(&f.readyURL, "ready-url", "", "a worker is ready when this `URL` answers with 2xx")
	l.BoolVar(&f.reloadOnChange, "reload-on-change", false, "reload when the file of the program, or of an argument, has changed")
	l.StringVar(&f.log, "log", "", "the `file` that the output is appended to, instead of the standard output and error")
	l.BoolVar(&foreign, "foreign", false, "the program takes LISTEN_FDS; --foreign=false: it is one of package cluster, or node (default: as it looks)")
	c.MarkFlagsMutuallyExclusive("ready-notify", "ready-after", "ready-url")
	return c
}

// options are those of the cluster.
func (f *runFlags) options(args []string) (cluster.Options, error) {
	o := cluster.Options{Args: args[1:], Workers: f.workers, ManualReady: f.readyNotify || f.readyURL != "", ReadyAfter: f.readyAfter}
	if f.workers < 0 {
		return o, usage("-n %d: a number of workers is needed", f.workers)
	}
	if f.readyAfter < 0 {
		return o, usage("--ready-after %v: a time is needed", f.readyAfter)
	}
	for _, l := range f.listen {
		s, err := parseListen(l)
		if err != nil {
			return o, err
		}
		o.Sockets = append(o.Sockets, s)
	}
	program, err := findProgram(args[0])
	if err != nil {
		return o, failed("%w", err)
	}
	o.Exec = program
	own := isOwn(program)
	if f.foreign != nil {
		own = !*f.foreign
	}
	o.Foreign = !own
	switch {
	case own && len(o.Sockets) > 0:
		return o, usage("%s is node, or of package cluster: it listens by itself, without --listen; if it takes LISTEN_FDS say --foreign", args[0])
	case own && (f.readyAfter > 0 || f.readyURL != ""):
		return o, usage("%s is node, or of package cluster: it is ready when it listens, or with --ready-notify when it says so", args[0])
	}
	return o, nil
}

// parseListen is what --listen means.
func parseListen(text string) (s cluster.Socket, err error) {
	rest := text
	if name, after, ok := strings.Cut(text, "="); ok && !strings.ContainsAny(name, ":/[") {
		s.Name, rest = name, after
	}
	network, address, ok := strings.Cut(rest, "://")
	switch {
	case ok && network != "" && address != "":
		s.Network, s.Address = network, address
	case strings.HasPrefix(rest, "/"):
		s.Network, s.Address = "unix", rest
	case !ok && strings.Contains(rest, ":"):
		s.Network, s.Address = "tcp", rest
	default:
		return s, usage("--listen %q: network://address is needed, as tcp://:8000", text)
	}
	return s, nil
}

// run runs the cluster until it is stopped.
func (f *runFlags) run(args []string) error {
	o, err := f.options(args)
	if err != nil {
		return err
	}
	if f.name == "" {
		f.name = nameOf(args)
	}
	if !harmlessName.MatchString(f.name) {
		return usage("--name %q: letters, digits, and - _ . within are needed", f.name)
	}
	if f.global.name != "" {
		return usage("run has no -c: the name of a cluster that is to run is --name")
	}
	out, err := f.newOutput()
	if err != nil {
		return failed("%w", err)
	}
	defer out.close()
	o.Output = out.writers
	o.Logger = slog.New(slog.NewTextHandler(out.own("stderr"), &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	if err := cluster.SetupMaster(o); err != nil {
		return &status{exitFailed, err}
	}
	stop, err := admin.Start(admin.Options{Socket: f.socket, Name: f.name})
	if err != nil {
		return &status{exitFailed, err}
	}
	defer stop()
	f.tell(out.own("stdout"), args[0])
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer reopenOnSignal(out)()
	if f.readyURL != "" {
		await := func(w *cluster.Process) { go awaitURL(ctx, f.readyURL, w) }
		cluster.OnOnline(await)
		cluster.OnAdopt(func(w *cluster.Process) {
			if w.State() == cluster.Online { // for which the program before an upgrade has asked
				await(w)
			}
		})
	}
	if f.reloadOnChange {
		go reloadOnChange(ctx, args, o.Exec, out.own("stderr"))
	}
	if err := cluster.Run(context.Background()); err != nil {
		return &status{exitFailed, err}
	}
	return nil
}

// tell says what happens: what runs, and which worker is ready.
func (f *runFlags) tell(w interface{ Write([]byte) (int, error) }, program string) {
	where := ""
	if len(f.listen) > 0 {
		where = " on " + strings.Join(f.listen, ", ")
	}
	fmt.Fprintf(w, "%d workers of %s%s; master's pid %d\n", cluster.Settings().Workers, program, where, os.Getpid())
	cluster.OnReady(func(p *cluster.Process) {
		fmt.Fprintf(w, "worker %d is ready (id%d, pid %d)\n", p.Slot(), p.ID(), p.PID())
	})
}
