package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-cluster/cluster/admin"
	"github.com/spf13/cobra"
)

// logsFlags are those of logs.
type logsFlags struct {
	*global
	follow bool
	since  string
	tail   int
}

func logsCommand(g *global) *cobra.Command {
	f := &logsFlags{global: g}
	c := &cobra.Command{
		Use:   "logs [WORKER]",
		Short: "The last lines that the workers have written, or one of them",
		Long:  "A worker is named by its slot, or by id and its id; of one that is gone the lines are kept too.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			q := url.Values{}
			if len(args) == 1 {
				q.Set("worker", args[0])
			}
			if f.follow {
				q.Set("follow", "1")
			}
			if c.Flags().Changed("tail") {
				if f.tail < 0 {
					return usage("--tail %d: a number of lines is needed", f.tail)
				}
				q.Set("tail", strconv.Itoa(f.tail))
			}
			if f.since != "" {
				_, notLong := time.ParseDuration(f.since)
				_, noTime := time.Parse(time.RFC3339, f.since)
				if notLong != nil && noTime != nil {
					return usage("--since %q: a duration as 10m, or a time as %s, is needed", f.since, time.RFC3339)
				}
				q.Set("since", f.since)
			}
			return f.logs(q)
		},
	}
	c.Flags().BoolVarP(&f.follow, "follow", "f", false, "go on with what they write, until the master ends")
	c.Flags().StringVar(&f.since, "since", "", "only lines of the last `time`, as 10m, or since it, as 2006-01-02T15:04:05Z")
	c.Flags().IntVar(&f.tail, "tail", 0, "only the last so many lines")
	return c
}

// logs shows lines as cluster run does.
func (f *logsFlags) logs(q url.Values) error {
	m, err := f.connect()
	if err != nil {
		return err
	}
	path := func() string { return "/logs?" + q.Encode() }
	return m.follow(path, func(line []byte) error {
		var l admin.LogLine
		if err := json.Unmarshal(line, &l); err != nil {
			return failed("%s: a line: %w", m.name, err)
		}
		if l.N > 0 { // where to go on, if the program is replaced
			q.Set("after", strconv.FormatInt(l.N, 10))
			q.Del("tail")
		}
		if f.json {
			return printJSON(line)
		}
		text := strings.TrimRight(fmt.Sprintf("%s.%s | %s", m.name, plain(l.Worker), plainLine(l.Text)), " ")
		_, err := os.Stdout.WriteString(text + "\n")
		return err
	})
}
