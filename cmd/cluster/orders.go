package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/go-cluster/cluster/admin"
	"github.com/spf13/cobra"
)

// orderCommands are those that change something.
func orderCommands(g *global) []*cobra.Command {
	return []*cobra.Command{
		workerCommand(g),
		{
			Use: "reload", Short: "Replace all workers, slot by slot", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return g.order("/reload", "reloaded") },
		},
		upgradeCommand(g),
		{
			Use: "scale N", Short: "Have N workers", Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				if n, err := strconv.Atoi(args[0]); err != nil || n < 0 {
					return usage("scale %q: a number of workers is needed", args[0])
				}
				return g.order("/scale?n="+args[0], "scaled to "+args[0])
			},
		},
		{
			Use: "stop", Short: "Drain all workers, and end the master", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return g.order("/stop", "stopped") },
		},
	}
}

// outcome is the last line of an order's answer.
type outcome struct {
	OK    *bool  `json:"ok"`
	Error string `json:"error,omitempty"`
}

// order gives an order, shows what happens until it is done, and how it ended.
func (g *global) order(path, done string) error {
	m, err := g.connect()
	if err != nil {
		return err
	}
	began := time.Now()
	err = m.do(path, func(line []byte) error {
		if g.json {
			return printJSON(line)
		}
		var e admin.Event
		if json.Unmarshal(line, &e) == nil {
			showStep(e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if path == "/stop" {
		m.wentAway()
	}
	if !g.json {
		fmt.Printf("%s: %s in %s\n", m.name, plain(done), short(time.Since(began)))
	}
	return nil
}

// do gives an order, calls step with each line of the answer, and returns how it ended.
func (m *master) do(path string, step func(line []byte) error) error {
	var end *outcome
	err := m.lines("POST", path, func(line []byte) error {
		var o outcome
		if json.Unmarshal(line, &o) == nil && o.OK != nil {
			end = &o
		}
		return step(line)
	})
	switch {
	case end == nil && err != nil:
		return err
	case end == nil:
		return m.broken(io.ErrUnexpectedEOF)
	case !*end.OK:
		return failed("%s: %s", m.name, unnamed(end.Error))
	}
	return nil
}

// stopTime bounds the wait for a master that has stopped its workers: a program may go
// on without them.
const stopTime = 2 * time.Second

// wentAway waits until the master has no socket any more, so that what is run next does
// not find it.
func (m *master) wentAway() {
	m.client.CloseIdleConnections()
	for end := time.Now().Add(stopTime); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Lstat(m.path); err != nil || !answers(m.path) {
			return
		}
	}
}

// showStep shows what an order has done so far, slot by slot.
func showStep(e admin.Event) {
	if text := stepText(e); text != "" {
		fmt.Println(text)
	}
}

// stepText is an event as a step of an order; "" for what says nothing new.
func stepText(e admin.Event) string {
	who := "worker id" + strconv.Itoa(e.ID)
	if e.Slot != nil {
		who = fmt.Sprintf("slot %d: worker id%d", *e.Slot, e.ID)
	}
	if e.PID != 0 {
		who += fmt.Sprintf(" (pid %d)", e.PID)
	}
	switch e.Event {
	case "fork":
		return who + " starts"
	case "ready":
		return who + " is ready"
	case "death":
		return who + " has ended: " + plain(e.Text)
	case "upgrade":
		if e.Result == "" {
			return "the new program has passed its check, and takes the master's place"
		}
	case "error":
		return who + ": " + plain(e.Text)
	}
	return ""
}
