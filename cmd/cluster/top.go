package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/go-cluster/cluster"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// redraw is how often top asks and draws.
const redraw = time.Second

func topCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "top",
		Short: "The workers, once a second, with keys for orders",
		Long:  "With -j it prints the state as a line of JSON once a second.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			m, err := g.connect()
			if err != nil {
				return err
			}
			if g.json {
				return m.everySecond()
			}
			if !term.IsTerminal(int(os.Stdout.Fd())) || !term.IsTerminal(int(os.Stdin.Fd())) {
				return usage("top needs a terminal; for a program there is top -j")
			}
			if _, err := tea.NewProgram(newTop(m), tea.WithAltScreen()).Run(); err != nil {
				return failed("%w", err)
			}
			return nil
		},
	}
}

// everySecond prints the state until the master ends.
func (m *master) everySecond() error {
	for {
		b, err := m.get("/stats")
		if err != nil {
			return err
		}
		if err := printJSON(b); err != nil {
			return failed("%w", err)
		}
		time.Sleep(redraw)
		if err := m.alive(); err != nil {
			return err
		}
	}
}

// top is what is shown. It belongs to the loop of package bubbletea, which calls Update
// with what comes from the keyboard, the clock, and the goroutines of its commands.
type top struct {
	m             *master
	width, height int

	state  cluster.Snapshot
	at     time.Time
	rates  map[int]rate // by worker id
	err    error        // of the last question
	cursor int          // the row that is chosen
	order  int          // of orders of rows

	ask    *question // to be confirmed
	doing  string    // the order under way
	note   string    // how the last one ended, or what a key has said
	bad    bool      // it tells a failure
	stacks []string  // lines that are shown instead of the table
	whose  string    // of which worker
	offset int       // the first line that is shown
}

// rate is what a worker does in a second.
type rate struct{ accepted, cpu float64 }

// question is an order that a key has asked for.
type question struct{ text, path, done string }

// What comes to Update beside keys.
type (
	tick    struct{}
	fetched struct {
		state cluster.Snapshot
		err   error
	}
	ended struct {
		done string
		err  error
	}
	traced struct {
		whose, text string
		err         error
	}
)

func newTop(m *master) *top { return &top{m: m, width: width, height: 24, rates: make(map[int]rate)} }

func (t *top) Init() tea.Cmd { return t.fetch }

// fetch asks for the state.
func (t *top) fetch() tea.Msg {
	var f fetched
	if f.err = t.m.alive(); f.err != nil {
		return f
	}
	b, err := t.m.get("/stats")
	if err == nil {
		err = json.Unmarshal(b, &f.state)
	}
	f.err = err
	return f
}

func (t *top) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		t.width, t.height = msg.Width, msg.Height
	case tick:
		return t, t.fetch
	case fetched:
		t.took(msg)
		return t, tea.Tick(redraw, func(time.Time) tea.Msg { return tick{} })
	case ended:
		if t.doing = ""; msg.err != nil {
			t.fail(msg.err)
		} else {
			t.say(msg.done)
		}
	case traced:
		if t.doing = ""; msg.err != nil {
			t.fail(msg.err)
			break
		}
		t.show(msg)
	case tea.KeyMsg:
		return t, t.key(msg.String())
	}
	return t, nil
}

// say shows a text until the next one, fail why something was not done.
func (t *top) say(text string) { t.note, t.bad = text, false }
func (t *top) fail(err error)  { t.note, t.bad = plain(err.Error()), true }

// took makes a state that has come the one that is shown.
func (t *top) took(f fetched) {
	if t.err = f.err; f.err != nil {
		return
	}
	now, before := time.Now(), make(map[int]cluster.WorkerStats)
	for _, w := range t.state.Workers {
		before[w.ID] = w
	}
	seconds := now.Sub(t.at).Seconds()
	clear(t.rates)
	for _, w := range f.state.Workers {
		if b, ok := before[w.ID]; ok && w.ID != 0 && seconds > 0 {
			t.rates[w.ID] = rate{float64(w.Accepted-b.Accepted) / seconds, 100 * time.Duration(w.CPU-b.CPU).Seconds() / seconds}
		}
	}
	t.state, t.at = f.state, now
	t.cursor = max(0, min(t.cursor, len(t.state.Workers)-1))
}

// key does what a key is for.
func (t *top) key(key string) tea.Cmd {
	switch {
	case key == "ctrl+c":
		return tea.Quit
	case t.ask != nil:
		q := t.ask
		if t.ask = nil; key != "y" && key != "Y" {
			t.say("not done")
			return nil
		}
		return t.do(q)
	case t.stacks != nil:
		t.scroll(key)
		return nil
	}
	rows := t.rows()
	switch key {
	case "q", "esc":
		return tea.Quit
	case "up":
		t.cursor = max(0, t.cursor-1)
	case "down":
		t.cursor = max(0, min(len(rows)-1, t.cursor+1))
	case "s":
		t.order = (t.order + 1) % len(orders)
		t.say("sorted by " + orders[t.order].name)
	case "r":
		t.question("reload all workers", "/reload", "reloaded")
	case "+":
		t.scale(t.state.Target + 1)
	case "-":
		t.scale(max(0, t.state.Target-1))
	case "k", "enter":
		if t.cursor >= len(rows) || rows[t.cursor].ID == 0 {
			t.say("no worker is chosen")
			return nil
		}
		name := rows[t.cursor].Name
		if key == "enter" {
			t.doing = "stacks of worker " + plain(name)
			return func() tea.Msg { return t.m.stacksOf(name) }
		}
		t.question("kill worker "+name, "/workers/"+url.PathEscape(name)+"/kill", "worker "+name+" killed")
	}
	return nil
}

func (t *top) scale(n int) {
	t.question("scale to "+strconv.Itoa(n), "/scale?n="+strconv.Itoa(n), "scaled to "+strconv.Itoa(n))
}

// question asks before an order, of which there is one at a time.
func (t *top) question(text, path, done string) {
	if t.doing != "" {
		t.say("there is an order under way")
		return
	}
	t.ask = &question{plain(text), path, plain(done)}
}

// do gives an order, and waits for its end beside all else.
func (t *top) do(q *question) tea.Cmd {
	t.doing = q.text
	t.say("")
	return func() tea.Msg {
		err := t.m.alive()
		if err == nil {
			err = t.m.do(q.path, func([]byte) error { return nil })
		}
		return ended{q.done, err}
	}
}

// stackTime bounds the wait for a worker's stacks.
const stackTime = 10 * time.Second

// stacksOf asks for a worker's stacks.
func (m *master) stacksOf(name string) tea.Msg {
	ctx, cancel := context.WithTimeout(context.Background(), stackTime)
	defer cancel()
	b, err := m.getContext(ctx, "/workers/"+url.PathEscape(name)+"/debug/stacks")
	return traced{name, string(b), err}
}

// show shows stacks until a key ends that.
func (t *top) show(s traced) {
	t.stacks, t.whose, t.offset = textLines(s.text), s.whose, 0
	t.say("")
}

// scroll moves through the stacks, or ends them.
func (t *top) scroll(key string) {
	page := max(1, t.height-2)
	switch key {
	case "q", "esc", "enter":
		t.stacks = nil
		return
	case "up":
		t.offset--
	case "down":
		t.offset++
	case "pgup":
		t.offset -= page
	case "pgdown", " ":
		t.offset += page
	}
	t.offset = max(0, min(t.offset, len(t.stacks)-page))
}

func (q *question) String() string { return fmt.Sprintf("%s? (y/n)", q.text) }
