package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-cluster/cluster/admin"
	"github.com/spf13/cobra"
)

func eventsCommand(g *global) *cobra.Command {
	follow := false
	c := &cobra.Command{
		Use: "events", Short: "What has happened: the last 200 events", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return g.events(follow) },
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens, until the master ends")
	return c
}

// events shows events, one a line.
func (g *global) events(follow bool) error {
	m, err := g.connect()
	if err != nil {
		return err
	}
	var last int64
	path := func() string {
		return fmt.Sprintf("/events?follow=%d&after=%d", map[bool]int{true: 1}[follow], last)
	}
	return m.follow(path, func(line []byte) error {
		var e admin.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return failed("%s: an event: %w", m.name, err)
		}
		last = e.N
		if g.json {
			return printJSON(line)
		}
		_, err := fmt.Println(eventText(e))
		return err
	})
}

// eventText is an event as one line.
func eventText(e admin.Event) string {
	slot, id, pid := "", "", ""
	if e.Slot != nil {
		slot = strconv.Itoa(*e.Slot)
	}
	if e.ID != 0 {
		id = "id" + strconv.Itoa(e.ID)
	}
	if e.PID != 0 {
		pid = strconv.Itoa(e.PID)
	}
	var rest []string
	for _, s := range []string{e.Address, e.Reason, e.Result, e.Text} {
		if s != "" {
			rest = append(rest, plain(s))
		}
	}
	text := fmt.Sprintf("%s %-10s %3s %-6s %7s  %s", e.Time.Local().Format("15:04:05.000"), plain(e.Event), slot, id, pid, strings.Join(rest, ": "))
	return strings.TrimRight(text, " ")
}
