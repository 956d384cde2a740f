package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/fleet"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
)

// The commands of a fleet join it as an observer: no member hears of them. Members are
// found by their heartbeats, which each gives when it is asked, and every five seconds.

const (
	// heartbeat is how long to listen for all that are alive: a heartbeat, and what a slow
	// link takes.
	heartbeat = 6 * time.Second
	// askedTime is how long those who are asked may take, where nobody is to be ordered.
	askedTime = 2 * time.Second
	// leaveTime bounds the end of the connection.
	leaveTime = 2 * time.Second
)

// fleetFlags are those of all commands of a fleet.
type fleetFlags struct {
	*global
	url, fleet    string
	creds         string
	ca, cert, key string
	wait          time.Duration // 0: as the command needs
	parallel      int
	// Of the call:
	command string
	members []string // none: all
	ctx     context.Context
	began   time.Time
}

func fleetCommand(g *global) *cobra.Command {
	f := &fleetFlags{global: g}
	c := &cobra.Command{
		Use:   "fleet",
		Short: "See and order the members of a fleet, over NATS",
		Long: "A fleet is many clusters, each a member, which programs join with package fleet.\n\n" +
			"Exit status: 0 done, 1 refused or failed, 2 wrong usage (also where several fleets are there and none is named), " +
			"3 no such fleet, or no server.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usage("fleet: which command? cluster fleet --help has them")
		},
	}
	p := c.PersistentFlags()
	p.StringVar(&f.url, "nats", "", "the `URL` of a NATS server, or several with commas between (default $NATS_URL)")
	p.StringVar(&f.fleet, "fleet", "", "the fleet's `name`; without it one that is alone at the server is found")
	p.StringVar(&f.creds, "creds", "", "a `file` with the credentials of a NATS user")
	p.StringVar(&f.ca, "tls-ca", "", "a `file` with the certificates of authorities to trust")
	p.StringVar(&f.cert, "tls-cert", "", "a `file` with a certificate of one's own; needs --tls-key")
	p.StringVar(&f.key, "tls-key", "", "the `file` with its key")
	p.DurationVar(&f.wait, "wait", 0, "how long to listen for members (default 2s for status, a heartbeat of 6s for an order to all)")
	c.AddCommand(f.statusCommand())
	c.AddCommand(f.orderCommands()...)
	return c
}

func (f *fleetFlags) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status [MEMBER…]", Short: "The members: where they are, and how many workers are ready",
		RunE: f.run("status", func(a *fleet.Fleet) error { return f.status(a) }),
	}
}

func (f *fleetFlags) orderCommands() []*cobra.Command {
	var n int
	reload := &cobra.Command{
		Use: "reload [MEMBER…]", Short: "Replace all workers, member by member",
		RunE: f.run("reload", func(a *fleet.Fleet) error {
			return f.order(a, "reloaded", func(r fleet.Roll) (fleet.Result, error) { return a.Reload(f.ctx, r) })
		}),
	}
	scale := &cobra.Command{
		Use: "scale N [MEMBER…]", Short: "Have N workers in each member", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if n, err = strconv.Atoi(args[0]); err != nil || n < 0 {
				return usage("fleet scale %q: a number of workers is needed", args[0])
			}
			return f.run("scale", func(a *fleet.Fleet) error {
				return f.order(a, "scaled to "+args[0], func(r fleet.Roll) (fleet.Result, error) { return a.Scale(f.ctx, n, r) })
			})(c, args[1:])
		},
	}
	stop := &cobra.Command{
		Use: "stop [MEMBER…]", Short: "Drain all workers and end the master, member by member",
		RunE: f.run("stop", func(a *fleet.Fleet) error {
			return f.order(a, "stopped", func(r fleet.Roll) (fleet.Result, error) { return a.Stop(f.ctx, r) })
		}),
	}
	all := []*cobra.Command{reload, scale, stop}
	for _, c := range all {
		c.Long = c.Short + ", until the first that fails. Members that are not named are all that are heard.\n" +
			"Only a member whose program joined with Options.Orders takes orders, and only from who may publish them."
		c.Flags().IntVar(&f.parallel, "parallel", 1, "how many members at once")
	}
	return all
}

// run joins the fleet, does what is to be done, and leaves it.
func (f *fleetFlags) run(command string, do func(*fleet.Fleet) error) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, args []string) error {
		f.command, f.members, f.began = command, args, time.Now()
		f.url = cmp.Or(f.url, os.Getenv("NATS_URL")) // no default of the flag: the help would show a password
		switch {
		case f.url == "":
			return usage("fleet %s: --nats URL is needed, or NATS_URL in the environment", command)
		case f.name != "" || f.socket != "":
			return usage("fleet %s: -c and --socket name a cluster of this machine; --fleet names a fleet", command)
		case f.wait < 0:
			return usage("fleet %s --wait %v: a time is needed", command, f.wait)
		case f.parallel < 1 && command != "status":
			return usage("fleet %s --parallel %d: a number of members is needed", command, f.parallel)
		case (f.cert == "") != (f.key == ""):
			return usage("fleet %s: --tls-cert and --tls-key belong together", command)
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		f.ctx = ctx
		// What fails outside a call has names of members in it.
		defer cluster.OnError(func(_ *cluster.Process, err error) { fmt.Fprintln(os.Stderr, "cluster: "+plain(err.Error())) })()
		if err := f.find(); err != nil {
			return err
		}
		a, err := fleet.Join(fleet.Options{URL: f.url, Name: f.fleet, Observer: true, NATS: f.options()})
		if err != nil {
			return f.noFleet(err)
		}
		err = do(a)
		f.leave(a)
		return err
	}
}

// leave ends the connection, and does not wait for a server that has stopped.
func (f *fleetFlags) leave(a *fleet.Fleet) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.Close()
	}()
	select {
	case <-ended:
	case <-time.After(leaveTime):
	}
}

func (f *fleetFlags) options() (o []nats.Option) {
	if f.creds != "" {
		o = append(o, nats.UserCredentials(f.creds))
	}
	if f.ca != "" {
		o = append(o, nats.RootCAs(f.ca))
	}
	if f.cert != "" {
		o = append(o, nats.ClientCert(f.cert, f.key))
	}
	return o
}

// noFleet is why a fleet cannot be joined.
func (f *fleetFlags) noFleet(err error) error {
	if errors.Is(err, fleet.ErrNoFleet) {
		return none("%w", err)
	}
	return failed("%w", err)
}

// find finds the name of the fleet, if there is no flag: that of the only one whose members
// are heard.
func (f *fleetFlags) find() error {
	if f.fleet != "" {
		return nil
	}
	nc, err := nats.Connect(f.url, append(f.options(), nats.Name("cluster fleet"))...)
	if bad, ok := errors.AsType[*url.Error](err); ok {
		return usage("--nats is no URL: %w", bad.Err) // which has the password
	}
	switch {
	case errors.Is(err, nats.ErrNoServers) || errors.Is(err, nats.ErrTimeout):
		return none("no server answers at --nats: %w", err)
	case err != nil:
		return failed("the server at --nats: %w", err)
	}
	defer nc.Close()
	heard := make(chan *nats.Msg, 4096)
	if _, err := nc.ChanSubscribe("cluster.*.member.*", heard); err != nil {
		return failed("%w", err)
	}
	var names []string
	for end := time.After(cmp.Or(f.wait, heartbeat)); ; {
		select {
		case m := <-heard:
			if name := strings.Split(m.Subject, ".")[1]; !slices.Contains(names, name) {
				names = append(names, name)
			}
			continue
		case <-f.ctx.Done():
			return failed("fleet %s: it was interrupted", f.command)
		case <-end:
		}
		break
	}
	slices.Sort(names)
	switch {
	case len(names) == 1:
		f.fleet = names[0]
		return nil
	case len(names) > 1:
		return usage("several fleets are there, name one with --fleet: %s", strings.Join(names, ", "))
	case nc.LastError() != nil:
		return failed("no fleet is heard, name it with --fleet: %w", nc.LastError())
	}
	return none("no member of any fleet is heard; --fleet NAME is quicker where it is known")
}

// listen waits for members: for those that are named, or as long as it takes to hear all.
func (f *fleetFlags) listen(a *fleet.Fleet, atLeast time.Duration) ([]fleet.Member, error) {
	for end := time.Now().Add(cmp.Or(f.wait, atLeast)); ; {
		all := a.Members()
		named := slices.Clone(f.members)
		for _, m := range all {
			named = slices.DeleteFunc(named, func(n string) bool { return n == m.Node })
		}
		switch {
		case f.ctx.Err() != nil:
			return nil, failed("fleet %s: it was interrupted", f.command)
		case len(f.members) > 0 && len(named) == 0:
			return slices.DeleteFunc(all, func(m fleet.Member) bool { return !slices.Contains(f.members, m.Node) }), nil
		case time.Now().Before(end):
			time.Sleep(20 * time.Millisecond)
		case len(all) == 0 && time.Since(f.began) < heartbeat && f.wait == 0:
			time.Sleep(20 * time.Millisecond) // whoever is alive is heard by then
		case len(all) == 0:
			return nil, none("fleet %q: no member is heard", f.fleet)
		case len(named) > 0:
			return nil, failed("fleet %q: no member %q is heard; cluster fleet status shows those that are", f.fleet, named[0])
		default:
			return all, nil
		}
	}
}

// shownMember is a member as JSON.
type shownMember struct {
	fleet.Member
	Seen time.Time `json:"seen"`
}

// status shows the members.
func (f *fleetFlags) status(a *fleet.Fleet) error {
	all, err := f.listen(a, askedTime)
	if err != nil {
		return err
	}
	if f.json {
		shown := make([]shownMember, 0, len(all))
		for _, m := range all {
			shown = append(shown, shownMember{m, m.Seen})
		}
		return printValue(map[string]any{"fleet": f.fleet, "members": shown})
	}
	fmt.Printf("fleet %s: %s\n\n", f.fleet, membersText(len(all)))
	const columns = "%-24s %-20s %8s %-14s %6s %-7s %6s"
	line := func(a ...any) { fmt.Println(strings.TrimRight(fmt.Sprintf(columns, a...), " ")) }
	line("MEMBER", "HOST", "PID", "WORKERS", "UP", "ORDERS", "HEARD")
	for _, m := range all {
		heard := short(time.Since(m.Seen)) + " ago"
		if m.PID == 0 { // it speaks another version: nothing else is known
			line(plain(m.Node), "", "", "protocol "+strconv.Itoa(m.Protocol), "", "", heard)
			continue
		}
		orders := "no"
		if m.Orders {
			orders = "yes"
		}
		line(plain(m.Node), plain(m.Host), strconv.Itoa(m.PID), fmt.Sprintf("%d of %d ready", ready(m.Snapshot), m.Snapshot.Target),
			short(time.Duration(m.Snapshot.Uptime)), orders, heard)
	}
	return nil
}

// fleetStep is a line of an order's output as JSON. The last line has no member.
type fleetStep struct {
	Member string `json:"member"`
	OK     *bool  `json:"ok,omitempty"` // not there: it is given the order now
	Error  string `json:"error,omitempty"`
}

// fleetOutcome is the last line.
type fleetOutcome struct {
	outcome
	Done   []string          `json:"done"`
	Failed map[string]string `json:"failed"`
	Left   []string          `json:"left"` // who was not asked any more
}

// order gives an order, shows each member's part in it, and how it ended.
func (f *fleetFlags) order(a *fleet.Fleet, done string, give func(fleet.Roll) (fleet.Result, error)) error {
	all, err := f.listen(a, heartbeat)
	if err != nil {
		return err
	}
	r := fleet.Roll{Nodes: f.members, Parallel: f.parallel, Progress: f.progress(done)}
	if len(r.Nodes) == 0 {
		for _, m := range all {
			r.Nodes = append(r.Nodes, m.Node)
		}
	}
	begin := time.Now()
	res, err := give(r)
	if f.json {
		f.printOutcome(res, err)
	}
	if err != nil {
		text := strings.TrimPrefix(err.Error(), "fleet: ")
		if len(res.Left) > 0 {
			text += fmt.Sprintf("; not asked any more: %q", res.Left)
		}
		return failed("fleet %s: %s", f.fleet, text)
	}
	if !f.json {
		fmt.Printf("fleet %s: %s %s in %s\n", f.fleet, membersText(len(res.Done)), done, short(time.Since(begin)))
	}
	return nil
}

func membersText(n int) string {
	if n == 1 {
		return "1 member"
	}
	return strconv.Itoa(n) + " members"
}

// progress shows what becomes of each member.
func (f *fleetFlags) progress(done string) func(string, bool, error) {
	begun := make(map[string]time.Time)
	return func(node string, ended bool, err error) {
		if !ended {
			begun[node] = time.Now()
		}
		if f.json {
			s := fleetStep{Member: node}
			if ok := err == nil; ended {
				s.OK = &ok
			}
			if err != nil {
				s.Error = err.Error()
			}
			printValue(s)
			return
		}
		switch {
		case !ended:
			fmt.Printf("%s: %s begins\n", plain(node), f.command)
		case err != nil:
			fmt.Printf("%s: failed after %s: %s\n", plain(node), short(time.Since(begun[node])), plain(err.Error()))
		default:
			fmt.Printf("%s: %s in %s\n", plain(node), done, short(time.Since(begun[node])))
		}
	}
}

func (f *fleetFlags) printOutcome(res fleet.Result, err error) {
	ok := err == nil
	o := fleetOutcome{outcome: outcome{OK: &ok}, Done: append([]string{}, res.Done...), Left: append([]string{}, res.Left...), Failed: make(map[string]string)}
	if err != nil {
		o.Error = err.Error()
	}
	for node, why := range res.Failed {
		o.Failed[node] = why.Error()
	}
	b, _ := json.Marshal(o) // it is of strings only
	printJSON(b)
}
