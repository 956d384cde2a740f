package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/lipgloss"
	"github.com/go-cluster/cluster"
)

// What top draws.

var (
	headStyle = lipgloss.NewStyle().Bold(true)
	rowStyle  = lipgloss.NewStyle().Reverse(true)
	badStyle  = lipgloss.NewStyle().Foreground(lipgloss.Color("9"))
	dimStyle  = lipgloss.NewStyle().Faint(true)
)

// orders are those in which the rows can be: the largest first, but of slots.
var orders = []struct {
	name string
	cmp  func(t *top, a, b cluster.WorkerStats) int
}{
	{"slot", func(_ *top, a, b cluster.WorkerStats) int { return 0 }},
	{"cpu", func(t *top, a, b cluster.WorkerStats) int { return cmp.Compare(t.rates[b.ID].cpu, t.rates[a.ID].cpu) }},
	{"memory", func(_ *top, a, b cluster.WorkerStats) int { return cmp.Compare(b.RSS, a.RSS) }},
	{"connections", func(_ *top, a, b cluster.WorkerStats) int { return cmp.Compare(b.Active, a.Active) }},
	{"age", func(_ *top, a, b cluster.WorkerStats) int { return cmp.Compare(a.Started, b.Started) }},
}

// rows are the workers in the order that is chosen; in that of slots as the master has
// them.
func (t *top) rows() []cluster.WorkerStats {
	rows := slices.Clone(t.state.Workers)
	slices.SortStableFunc(rows, func(a, b cluster.WorkerStats) int { return orders[t.order].cmp(t, a, b) })
	return rows
}

// topColumns are 80 characters.
const topColumns = "%-7s %-6s %7s  %-11s %4s %6s %5s %6s %6s %6s %5s"

var topHeader = fmt.Sprintf(topColumns, "WORKER", "ID", "PID", "STATE", "GEN", "AGE", "RESTS", "CONNS", "ACC/S", "MEM", "CPU%")

// View draws all lines, as many as there is room for.
func (t *top) View() string {
	lines := t.head()
	foot := t.foot()
	if t.stacks != nil {
		lines = []string{headStyle.Render(cut("stacks of worker "+plain(t.whose)+"   up, down, space; esc goes back", t.width))}
		for _, l := range t.stacks[min(t.offset, len(t.stacks)):] {
			if len(lines) >= t.height-1 {
				break
			}
			lines = append(lines, cut(l, t.width))
		}
		return strings.Join(lines, "\n")
	}
	room := max(1, t.height-len(lines)-len(foot))
	rows := t.rows()
	first := max(0, min(t.cursor-room+1, len(rows)-room))
	first = max(0, first)
	for i := first; i < min(len(rows), first+room); i++ {
		line := cut(t.row(rows[i]), t.width)
		if i == t.cursor {
			line = rowStyle.Render(line)
		}
		lines = append(lines, line)
	}
	for len(lines) < t.height-len(foot) {
		lines = append(lines, "")
	}
	return strings.Join(append(lines, foot...), "\n")
}

// head is what is above the rows.
func (t *top) head() (lines []string) {
	s := t.state
	add := func(style lipgloss.Style, text string) { lines = append(lines, style.Render(cut(text, t.width))) }
	add(headStyle, fmt.Sprintf("%s  pid %d, up %s, generation %d, %d of %d workers ready", t.m.name, s.PID, short(time.Duration(s.Uptime)), s.Generation, ready(s), s.Target))
	const most = 4 // of the listeners
	for i, l := range s.Listeners {
		if i == most {
			add(dimStyle, fmt.Sprintf("and %d more", len(s.Listeners)-most))
			break
		}
		add(dimStyle, fmt.Sprintf("%s %s  %s, queue %d of %d", plain(l.Network), plain(l.Address), plain(l.Scheduling), l.Backlog, l.Limit))
	}
	if t.err != nil {
		add(badStyle, plain(t.err.Error()))
	} else {
		lines = append(lines, "")
	}
	add(headStyle, topHeader)
	return lines
}

func (t *top) row(w cluster.WorkerStats) string {
	if w.ID == 0 {
		return fmt.Sprintf(topColumns, slotName(w), "-", "-", cut(plain(w.State), 11), "", "", strconv.Itoa(w.Restarts), "", "", "", "")
	}
	r := t.rates[w.ID]
	return fmt.Sprintf(topColumns, plain(w.Name), "id"+strconv.Itoa(w.ID), strconv.Itoa(w.PID), cut(plain(w.State), 11), strconv.Itoa(w.Generation),
		short(t.at.Sub(time.Unix(w.Started, 0))), strconv.Itoa(w.Restarts), count(w.Active), count(int64(r.accepted)), size(w.RSS), fmt.Sprintf("%.0f", r.cpu))
}

// foot is what is below the rows.
func (t *top) foot() []string {
	said, style := t.note, lipgloss.NewStyle()
	switch {
	case t.ask != nil:
		said, style = t.ask.String(), headStyle
	case t.doing != "":
		said = t.doing + " …"
	case t.state.Reload.Running && said == "":
		said = "a reload is under way"
	case t.bad:
		style = badStyle
	}
	return []string{
		style.Render(cut(said, t.width)),
		dimStyle.Render(cut("up/down choose, enter stacks, s sort, r reload, +/- scale, k kill, q quit", t.width)),
	}
}

// textLines are the lines of a text, harmless, with their tabs as spaces.
func textLines(text string) []string {
	return strings.Split(strings.ReplaceAll(plainText(strings.TrimRight(text, "\n")), "\t", "    "), "\n")
}
