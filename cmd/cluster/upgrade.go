package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/go-cluster/cluster/admin"
	"github.com/spf13/cobra"
)

// An upgrade is the one order that the master which gets it cannot answer when it is done:
// that program is gone then. The program that comes, or the one before after a rollback,
// tells how it went among its events, on a new socket of the same process.

func upgradeCommand(g *global) *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "Put the program that lies now at the master's path in the master's place",
		Long: "The process, its sockets and its workers stay; a program that does not start changes nothing.\n" +
			"The workers go on with the program that they have: cluster reload replaces them.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if wait <= 0 {
				return usage("--wait %v: a time is needed", wait)
			}
			return g.upgrade(wait)
		},
	}
	c.Flags().DurationVar(&wait, "wait", 2*time.Minute, "how long the new program may take to tell that it has taken over")
	return c
}

// betweenPrograms is how often a process is asked that has no socket just now.
const betweenPrograms = 50 * time.Millisecond

// upgrade orders an upgrade, and finds out how it has ended.
func (g *global) upgrade(wait time.Duration) error {
	m, err := g.connect()
	if err != nil {
		return err
	}
	u := &upgrade{master: m, json: g.json, pid: m.listen.Load(), began: time.Now()}
	past, err := m.get("/events?follow=0")
	if err != nil {
		return err
	}
	u.after = lastNumber(past)
	err = m.do("/upgrade", u.step)
	if _, cut := errors.AsType[hungUp](err); cut {
		err = u.outcome(wait)
	}
	if err == nil && !g.json {
		fmt.Printf("%s: upgraded in %s: %s\n", m.name, short(time.Since(u.began)), plain(u.program))
	}
	return err
}

// lastNumber is that of the last event of a text of server-sent ones.
func lastNumber(events []byte) (n int64) {
	for line := range bytes.Lines(events) {
		if text, ok := bytes.CutPrefix(line, []byte("id: ")); ok {
			n, _ = strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
		}
	}
	return n
}

// upgrade is an upgrade that is under way.
type upgrade struct {
	*master
	json    bool
	pid     int64 // 0 if that is not known
	began   time.Time
	after   int64  // the number of the last event that was seen
	program string // that has told that it has taken over
}

// step shows a line of an answer.
func (u *upgrade) step(line []byte) error {
	var e admin.Event
	if json.Unmarshal(line, &e) == nil && e.N != 0 {
		u.after = e.N
		if !u.json {
			showStep(e)
		}
	}
	if u.json {
		return printJSON(line)
	}
	return nil
}

// errTold ends the reading of events.
var errTold = errors.New("told")

// outcome waits for the event that says how it has ended. Whichever program has the process
// meanwhile may go again, so it asks until then.
func (u *upgrade) outcome(wait time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	for {
		var end *admin.Event
		u.linesContext(ctx, "GET", "/events?after="+strconv.FormatInt(u.after, 10), func(line []byte) error {
			if err := u.step(line); err != nil {
				return err
			}
			var e admin.Event
			if json.Unmarshal(line, &e) == nil && e.Event == "upgrade" && e.Result != "" {
				end = &e
				return errTold
			}
			return nil
		})
		if end != nil {
			return u.ended(*end)
		}
		now := u.listen.Load()
		switch {
		case u.pid > 0 && (isOver(int(u.pid)) || now > 0 && now != u.pid):
			return failed("%s: the master (pid %d) has ended in the middle of the upgrade", u.name, u.pid)
		case ctx.Err() != nil:
			return failed("%s: the new program (pid %s) has not told within %v that it has taken over", u.name, u.numberText(), wait)
		}
		time.Sleep(betweenPrograms)
	}
}

// ended is what the event says. With -j a line says it as other orders do.
func (u *upgrade) ended(e admin.Event) error {
	ok := e.Result == "success"
	if u.program = e.Text; !ok {
		u.program = ""
	}
	if u.json {
		o := outcome{OK: &ok}
		if !ok {
			o.Error = e.Text
		}
		if err := printValue(o); err != nil {
			return err
		}
	}
	if !ok {
		return failed("%s: %s", u.name, plain(unnamed(e.Text)))
	}
	return nil
}
