package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/link"
	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/share"
	"github.com/go-cluster/cluster/internal/signals"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/supervise"
	"github.com/go-cluster/cluster/internal/systemd"
	"github.com/go-cluster/cluster/internal/wire"
)

// Workers that are programs without this package. They get sockets as from systemd, and have
// no channel.

// Socket is a socket that a Foreign program gets; see [Options].
type Socket struct {
	Network string // tcp, tcp4, tcp6, unix, udp, udp4, udp6 or unixgram
	Address string // as for [Listen]
	Name    string // in LISTEN_FDNAMES. Default: "unknown", as systemd has it
}

// The variables by which a Foreign program finds its sockets and its service manager, as from
// systemd.
const (
	envListenFDs   = "LISTEN_FDS"
	envListenNames = "LISTEN_FDNAMES"
	envNotify      = "NOTIFY_SOCKET"
	envWatchdog    = "WATCHDOG_USEC"
)

// maxSocketName bounds a name, in bytes, as systemd does.
const maxSocketName = 255

// resolveForeign checks the options for foreign programs, and fills in their defaults.
func (o *Options) resolveForeign() error {
	if !o.Foreign {
		if len(o.Sockets) > 0 || o.ReadyAfter > 0 {
			return errors.New("cluster: Options.Sockets and ReadyAfter are for a Foreign program; a worker with this package calls Listen, and is ready when it accepts")
		}
		return nil
	}
	switch {
	case o.Exec == "" || o.Exec == self.Executable:
		return errors.New("cluster: Options.Foreign: Exec must name the program; this one is not Foreign")
	case !process.CanPassSockets:
		return fmt.Errorf("cluster: Options.Foreign on this system: %w", ErrNotSupported)
	case o.Recycle.Connections > 0:
		return fmt.Errorf("cluster: Options.Recycle.Connections: nobody counts those of a Foreign program: %w", ErrNotSupported)
	}
	setDefault(&o.ReadyAfter, defaultReadyAfter)
	if !o.ManualReady && o.ReadyAfter >= o.StartTimeout {
		return fmt.Errorf("cluster: Options.ReadyAfter is %v: it must be less than StartTimeout, %v", o.ReadyAfter, o.StartTimeout)
	}
	o.Sockets = slices.Clone(o.Sockets)
	for i := range o.Sockets {
		s := &o.Sockets[i]
		setDefault(&s.Name, "unknown")
		if _, err := s.query(); err != nil {
			return fmt.Errorf("cluster: Options.Sockets: %w", err)
		}
		if len(s.Name) > maxSocketName || strings.ContainsFunc(s.Name, func(r rune) bool { return r <= ' ' || r == ':' || r > '~' }) {
			return fmt.Errorf("cluster: Options.Sockets: %q is no name: it has up to %d characters of ASCII, and neither spaces nor colons", s.Name, maxSocketName)
		}
	}
	return nil
}

// query returns the question for the registry. All workers accept on the socket itself.
func (s *Socket) query() (share.Query, error) {
	q, err := ListenConfig{Scheduling: Shared}.query(s.Network, s.Address)
	if err == nil {
		err = socket.Supported(q.Address, true)
	}
	if err != nil {
		return q, share.ListenError(q.Address, err, "")
	}
	return q, nil
}

// passed is a socket that the foreign workers of a generation get.
type passed struct {
	share.HeldSocket
	query share.Query // by which the registry has it
}

// holdSockets opens the sockets that the foreign workers of a generation will get.
func holdSockets(o *settings) (held []passed, err error) {
	anyPort := make(map[string]int) // by address: how many sockets with port 0 there are so far
	for _, s := range o.Sockets {
		q, err := s.query()
		if err == nil {
			if q.Port() == 0 && !q.IsUnix() {
				q.Index = anyPort[q.Place()]
				anyPort[q.Place()]++
			}
			q.Guarded = o.Credential.isOther()
			q.Locate() // HoldSocket fails where this does
			var s share.HeldSocket
			if s, err = share.HoldSocket(context.Background(), std.registry, q); err == nil {
				held = append(held, passed{s, q})
				continue
			}
		}
		closeSockets(held)
		return nil, err
	}
	return held, nil
}

func closeSockets(held []passed) {
	for _, l := range held {
		l.Close()
	}
}

// letGo closes the sockets when no worker has them and none will get them. It does so on a
// goroutine of its own: letGo is called in a turn, and the closing takes another one.
func (g *generation) letGo() {
	if g.released && g.uses == 0 && len(g.sockets) > 0 {
		go closeSockets(g.sockets)
		g.sockets = nil
	}
}

// handles returns new references to the sockets of the generation, for the caller.
func (g *generation) handles() (all []*handle.Handle, err error) {
	for _, l := range g.sockets {
		h, err := l.Socket()
		if err != nil {
			releaseAll(all)
			return nil, err
		}
		all = append(all, h)
	}
	return all, nil
}

func releaseAll(handles []*handle.Handle) {
	for _, h := range handles {
		h.Release()
	}
}

// foreign is what the master keeps for a worker without a channel. Fields belong to the
// master's mailbox unless their comment says otherwise.
type foreign struct {
	inbox  *systemd.Inbox // hears what the worker says of itself; nil where the system has none; constant once started
	once   sync.Once      // closes inbox
	main   int            // pid of the process that it calls its main one (MAINPID), or 0
	status string
	beats  bool // it has told the watchdog that it is alive, so it will again
	asked  bool // it was asked to end
}

func (f *foreign) close() {
	if f.inbox != nil {
		f.once.Do(f.inbox.Close)
	}
}

// startForeign makes the process of p, which has no channel.
func startForeign(p *Process, env []string) (err error) {
	c := p.child
	f := c.foreign
	if p.link, err = link.NewClosed((*inbox)(p), &fromWorker{m: c.m, p: p}, link.Options{Name: p.name(), MaxMessage: c.opts.MaxMessage, MaxQueue: c.opts.MaxQueue}); err != nil {
		return err
	}
	if systemd.CanHear {
		if f.inbox, err = systemd.NewInbox(); err != nil {
			return err
		}
	}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	sockets, err := c.gen.handles()
	if err != nil {
		return err
	}
	defer releaseAll(sockets)
	this, err := self.Open("", false)
	if err != nil {
		return err
	}
	defer this.Close()
	return c.launch(process.Spec{
		Args:    c.opts.Args,
		Env:     append(inheritedEnv(p, env), f.env(c.opts)...),
		Foreign: &process.Foreign{Self: this, Sockets: sockets},
	})
}

// env returns the variables by which the program finds its sockets, and the address to which
// it says how it is.
func (f *foreign) env(o *settings) (env []string) {
	if len(o.Sockets) > 0 {
		var names []string
		for _, s := range o.Sockets {
			names = append(names, s.Name)
		}
		env = append(env, envListenFDs+"="+strconv.Itoa(len(names)), envListenNames+"="+strings.Join(names, ":"))
	}
	if f.inbox != nil {
		env = append(env, envNotify+"="+f.inbox.Address())
		if t := o.Watchdog.Timeout; t > 0 {
			env = append(env, envWatchdog+"="+strconv.FormatInt(t.Microseconds(), 10))
		}
	}
	return env
}

// begin is called in the turn in which the worker was started. The worker counts as online at
// once, since there is no sign of that.
func (f *foreign) begin(c *child) {
	if f == nil {
		return
	}
	c.happened(supervise.ComesOnline)
	f.listen(c)
}

// listen hears what the worker says of itself from now on.
func (f *foreign) listen(c *child) {
	if f != nil && f.inbox != nil {
		go f.inbox.Serve(func(pid int, n systemd.Notice) {
			// Only the worker and its descendants may speak for it.
			if process.Descends(pid, c.p.pid) {
				c.m.call(func() { f.told(c, n) })
			}
		})
	}
}

// told takes what the worker says of itself. It is called in the mailbox.
func (f *foreign) told(c *child, n systemd.Notice) {
	if n.Status != "" {
		f.status = wire.Plain(n.Status)
	}
	if n.MainPID > 0 && process.Descends(n.MainPID, c.p.pid) {
		f.main = n.MainPID
	}
	if n.Ready {
		c.happened(supervise.GetsReady)
	}
	if n.Alive {
		f.beats = true
		c.m.supervisor.Beat(time.Now(), c.p.id, supervise.Pulse{})
	}
	if n.Stopping {
		c.happened(supervise.DrainsByItself)
	}
}

// terminate asks the worker to end, once: some programs give up their drain when they are
// asked again.
func (f *foreign) terminate(p *Process) {
	if f.asked {
		return
	}
	f.asked = true
	to := p.child.proc.OS
	if f.main > 0 && f.main != p.pid && process.Descends(f.main, p.pid) {
		if main, err := os.FindProcess(f.main); err == nil {
			defer main.Release()
			to = main
		}
	}
	err := to.Signal(signals.Term)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.report(fmt.Errorf("cluster: worker %d: SIGTERM: %w", p.id, err))
	}
}

// foreignState is foreign as data.
type foreignState struct {
	Inbox        systemd.InboxState
	Main         int
	Status       string
	Beats, Asked bool
}

// handOver returns nil if the worker is none.
func (f *foreign) handOver() *foreignState {
	if f == nil {
		return nil
	}
	s := &foreignState{systemd.InboxState{FD: -1}, f.main, f.status, f.beats, f.asked}
	if f.inbox != nil {
		s.Inbox = f.inbox.State()
	}
	return s
}

// restore returns nil if the worker is none.
func (s *foreignState) restore() (*foreign, error) {
	if s == nil {
		return nil, nil
	}
	inbox, err := systemd.RestoreInbox(s.Inbox)
	return &foreign{inbox: inbox, main: s.Main, status: s.Status, beats: s.Beats, asked: s.Asked}, err
}

// pause keeps what the worker says from being heard.
func (f *foreign) pause(q *quiet) error {
	if f == nil || f.inbox == nil {
		return nil
	}
	q.undo = append(q.undo, f.inbox.Resume)
	return f.inbox.Pause(q.ctx)
}

// isForeign reports whether w is a worker without a channel.
func (w *Process) isForeign() bool { return w.child != nil && w.child.foreign != nil }
