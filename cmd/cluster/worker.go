package main

import (
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// workerOrders are what a worker can be ordered, and how it is said that it is done.
var workerOrders = map[string]string{"drain": "drained", "kill": "killed", "restart": "restarted"}

// workerActions are all that worker takes.
var workerActions = []string{"drain", "kill", "restart", "pprof", "stacks", "metrics"}

func workerCommand(g *global) *cobra.Command {
	f := &pprofFlags{global: g}
	c := &cobra.Command{
		Use:   "worker WORKER drain|kill|restart|pprof [KIND]|stacks|metrics",
		Short: "Drain, kill or replace one worker, or look into it",
		Long: "A worker is named by its slot, or by id and its id.\n\n" +
			"drain: it finishes and ends; its slot stays empty until a restart, reload or scale.\n" +
			"kill: it ends at once; another one takes its slot.\n" +
			"restart: another one takes its slot when that is ready; fills an empty slot.\n" +
			"pprof, stacks: as the commands of that name.\n" +
			"metrics: what metrics says of the worker in that slot.",
		Args: cobra.RangeArgs(2, 3),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			switch {
			case len(args) == 1:
				return workerActions, cobra.ShellCompDirectiveNoFileComp
			case len(args) == 2 && args[1] == "pprof":
				return kinds, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			if f.worker = args[0]; args[1] == "pprof" {
				return f.checked(c, args[2:])
			}
			if c.Flags().Changed("seconds") || c.Flags().Changed("output") {
				return usage("--seconds and --output are for worker %s pprof", args[0])
			}
			if len(args) > 2 {
				return usage("worker %s %s takes nothing more: %q", args[0], args[1], args[2])
			}
			return g.worker(args[0], args[1])
		},
	}
	f.timeAndFile(c)
	return c
}

// worker does with one worker what is no profile.
func (g *global) worker(name, action string) error {
	path := "/workers/" + url.PathEscape(name)
	switch action {
	case "stacks":
		return g.text(path + "/debug/stacks")
	case "metrics":
		return g.metricsOf(name)
	}
	done, ok := workerOrders[action]
	if !ok {
		return usage("worker %s %q: one of %s is needed", name, action, strings.Join(workerActions, ", "))
	}
	return g.order(path+"/"+action, "worker "+name+" "+done)
}

// metricsOf prints what the metrics have of one slot's worker.
func (g *global) metricsOf(name string) error {
	m, err := g.connect()
	if err != nil {
		return err
	}
	b, err := m.get("/metrics")
	if err != nil {
		return err
	}
	text := onlyWorker(string(b), name)
	if text == "" {
		return failed("%s: there are no metrics of a worker %s; they name workers by their slots", m.name, name)
	}
	if g.json {
		return printText(text)
	}
	_, err = os.Stdout.WriteString(plainText(text))
	return err
}

// onlyWorker are the lines of metrics that have a worker's label, each family behind its
// help and type. (Within another label's value a quotation mark is escaped.)
func onlyWorker(text, name string) string {
	label := `worker="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
	var all, head strings.Builder
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "# HELP "):
			head.Reset()
			fallthrough
		case strings.HasPrefix(line, "#"):
			head.WriteString(line)
		case strings.Contains(line, "{"+label) || strings.Contains(line, ","+label):
			all.WriteString(head.String() + line)
			head.Reset()
		}
	}
	return all.String()
}
