package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-cluster/cluster"
	"github.com/spf13/cobra"
)

// width is that of a terminal that everybody has.
const width = 80

func statusCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "The workers: state, age, connections, memory", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			m, err := g.connect()
			if err != nil {
				return err
			}
			b, err := m.get("/stats")
			if err != nil || g.json {
				if err == nil {
					err = printJSON(b)
				}
				return err
			}
			var s cluster.Snapshot
			if err := json.Unmarshal(b, &s); err != nil {
				return failed("%s: what it answers is no state: %w", m.name, err)
			}
			_, err = os.Stdout.WriteString(statusText(m.name, s, time.Now()))
			return err
		},
	}
}

// statusText is the state as a table.
func statusText(name string, s cluster.Snapshot, now time.Time) string {
	var b strings.Builder
	line := func(format string, a ...any) {
		b.WriteString(cut(strings.TrimRight(fmt.Sprintf(format, a...), " "), width) + "\n")
	}
	line("%s  pid %d, up %s, generation %d, %d of %d workers ready", name, s.PID, short(time.Duration(s.Uptime)), s.Generation, ready(s), s.Target)
	switch r := s.Reload; {
	case r.Running:
		line("reload under way: %d replaced", r.Replaced)
	case r.Error != "":
		line("last reload failed: %s", plain(r.Error))
	}
	for _, l := range s.Listeners {
		line("%s %s  %s, queue %d of %d", plain(l.Network), plain(l.Address), plain(l.Scheduling), l.Backlog, l.Limit)
	}
	line("")
	line("%s", header)
	for _, w := range s.Workers {
		line("%s", row(w, now))
	}
	said := false
	for _, w := range s.Workers {
		for _, note := range notes(w) {
			if !said {
				line("")
				said = true
			}
			line("%s: %s", plain(slotName(w)), note)
		}
	}
	return b.String()
}

// ready is how many slots have a worker that is ready.
func ready(s cluster.Snapshot) (n int) {
	for _, w := range s.Workers {
		if w.Name == strconv.Itoa(w.Slot) && w.State == cluster.Ready.String() {
			n++
		}
	}
	return n
}

// The columns of a table of workers.
const columns = "%-7s %-6s %7s  %-12s %4s %6s %5s %6s %6s %7s"

var header = fmt.Sprintf(columns, "WORKER", "ID", "PID", "STATE", "GEN", "AGE", "RESTS", "CONNS", "MEM", "CPU")

func slotName(w cluster.WorkerStats) string {
	if w.ID == 0 {
		return strconv.Itoa(w.Slot)
	}
	return w.Name
}

func row(w cluster.WorkerStats, now time.Time) string {
	name := plain(slotName(w))
	if w.ID == 0 {
		return fmt.Sprintf(columns, name, "-", "-", plain(w.State), "", "", strconv.Itoa(w.Restarts), "", "", "")
	}
	return fmt.Sprintf(columns, name, "id"+strconv.Itoa(w.ID), strconv.Itoa(w.PID), plain(w.State), strconv.Itoa(w.Generation),
		short(now.Sub(time.Unix(w.Started, 0))), strconv.Itoa(w.Restarts), count(w.Active), size(w.RSS), short(time.Duration(w.CPU)))
}

// notes are what is to be said of a worker beyond its row.
func notes(w cluster.WorkerStats) (all []string) {
	if w.Status != "" {
		all = append(all, "says "+plain(w.Status))
	}
	if w.Check != "" {
		all = append(all, "its check fails: "+plain(w.Check))
	}
	if w.LastExit != "" {
		all = append(all, "last exit: "+plain(w.LastExit))
	}
	return all
}

// cut makes a text at most n characters long.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// short is a duration in at most six characters.
func short(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	if days := int(d.Hours()) / 24; days >= 100 {
		return fmt.Sprintf("%dd", days)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// size is a number of bytes in at most six characters.
func size(n int64) string {
	f, unit := float64(n), ""
	for _, next := range []string{"K", "M", "G", "T", "P"} {
		if f < 1000 {
			break
		}
		f, unit = f/1024, next
	}
	if f < 10 && unit != "" {
		return fmt.Sprintf("%.1f%s", f, unit)
	}
	return fmt.Sprintf("%.0f%s", f, unit)
}

// count is a number in at most six characters.
func count(n int64) string {
	for _, unit := range []string{"", "k", "M", "G"} {
		if n < 10000 {
			return strconv.FormatInt(n, 10) + unit
		}
		n /= 1000
	}
	return "many"
}

// listed is a cluster as cluster alone lists it.
type listed struct {
	Name    string          `json:"name"`
	PID     int             `json:"pid"`
	User    string          `json:"user"`
	Socket  string          `json:"socket"`
	Uptime  cluster.Seconds `json:"uptime"`
	Ready   int             `json:"ready"`
	Workers int             `json:"workers"`
	Error   string          `json:"error,omitempty"` // why nothing else is known
}

// list lists the clusters that run, each asked at the same time.
func list(g *global) error {
	if g.name != "" || g.socket != "" {
		return usage("which command? cluster --help has them")
	}
	found := running()
	all := make([]listed, len(found))
	var asked sync.WaitGroup
	for i, s := range found {
		asked.Go(func() { all[i] = look(s) })
	}
	asked.Wait()
	if g.json {
		return printValue(all)
	}
	if len(all) == 0 {
		_, err := os.Stdout.WriteString("no cluster of this user runs\n")
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-24s %8s %-12s %6s  %s\n", "NAME", "PID", "USER", "UP", "WORKERS")
	for _, l := range all {
		what := fmt.Sprintf("%d of %d ready", l.Ready, l.Workers)
		up := short(time.Duration(l.Uptime))
		if l.Error != "" {
			what, up = plain(l.Error), ""
		}
		b.WriteString(strings.TrimRight(fmt.Sprintf("%-24s %8d %-12s %6s  %s", l.Name, l.PID, l.User, up, what), " ") + "\n")
	}
	_, err := os.Stdout.WriteString(b.String())
	return err
}

// look asks one cluster how it is.
func look(s socket) listed {
	m := newMaster(s)
	l := listed{Name: s.name, User: ownerName(s.path), Socket: s.path}
	var st cluster.Snapshot
	err := m.alive()
	if err == nil {
		var b []byte
		if b, err = m.get("/stats"); err == nil {
			err = json.Unmarshal(b, &st)
		}
	}
	if l.PID = m.number(); err != nil {
		l.Error = strings.TrimPrefix(err.Error(), s.name+": ")
		return l
	}
	l.Uptime, l.Ready, l.Workers = st.Uptime, ready(st), st.Target
	return l
}
