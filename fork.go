package cluster

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/link"
	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/supervise"
	"github.com/go-cluster/cluster/internal/wire"
)

// What a worker's process is started with, and what the master does with it.

// self is this program as it was started: before anything changes the working
// directory.
var self = process.FindSelf()

// module is this package's.
const module = "github.com/go-cluster/cluster"

// open finds what the generation's workers are started with. Files may be slow.
func (g *generation) open(reload bool) (err error) {
	o := g.opts
	if g.bin, err = self.Open(o.program, reload); err != nil {
		return err
	}
	g.isGo = o.program == "" || g.bin.Imports(module)
	g.dir = o.Dir
	if reload && o.Dir == "" {
		g.dir = self.NewDir()
	}
	g.env = os.Environ()
	if g.sockets, err = holdSockets(o); err != nil {
		g.bin.Close()
		return err
	}
	if o.Credential != nil {
		g.userEnv = process.UserEnv(o.Credential.user())
	}
	return nil
}

// startProcess makes p's process, and its channel unless it is foreign.
func startProcess(p *Process, env []string) error {
	c := p.child
	if !c.opts.NoSignals {
		c.m.atTerminal.Do(outliveTerminalStops)
	}
	if c.foreign != nil {
		return startForeign(p, env)
	}
	ours, theirs, err := channel.Pair()
	if err != nil {
		return err
	}
	p.link = link.New(ours, (*inbox)(p), &fromWorker{m: c.m, p: p}, link.PeerUnknown, link.Options{Name: p.name(), MaxMessage: c.opts.MaxMessage, MaxQueue: c.opts.MaxQueue})
	// The worker's end must not stay open here, or its death would be no EOF.
	defer theirs.Close()

	end := process.ChannelEnd(theirs)
	env = workerEnv(p, env, process.ChannelNumber(end))
	err = c.launch(process.Spec{
		Args: process.InspectorArgs(c.opts.program, c.opts.Args, env, p.id),
		Env:  env,
		// A program of another kind that inherits the master's standard error cannot be
		// handed it later.
		KeepTail: c.gen.isGo,
		Channel:  end,
	})
	if err != nil {
		p.link.Discard()
	}
	return err
}

// launch starts the process that the spec tells what is particular to.
func (c *child) launch(spec process.Spec) (err error) {
	p := c.p
	if spec.Stdout, spec.Stderr, err = c.writers(); err != nil {
		return err
	}
	spec.KeepTail = spec.KeepTail || spec.Stderr != nil
	spec.Program, spec.Title, spec.Dir = c.gen.bin, c.opts.Title, c.gen.dir
	spec.User, spec.Stdin = c.opts.Credential.user(), c.opts.Stdin
	if c.proc, err = c.m.launcher.Start(spec); err != nil {
		if errors.Is(err, process.ErrClosed) {
			return supervise.ErrSuperseded
		}
		return err
	}
	p.pid, c.started = c.proc.PID, c.proc.Started
	if err := c.proc.Unbound; err != nil {
		p.logger().Warn("cluster: a worker is in no job and may outlive the master", "worker", p.id, "pid", p.pid, "err", err)
	}
	if err := c.proc.Muted; err != nil {
		p.logger().Warn("cluster: Options.Output gets nothing of a worker", "worker", p.id, "pid", p.pid, "err", err)
	}
	return nil
}

func (c *Credential) user() *process.User {
	if c == nil {
		return nil
	}
	return &process.User{UID: c.UID, GID: c.GID, Groups: c.Groups}
}

// exitOf is how a process ended, without why.
func exitOf(state *os.ProcessState) Exit {
	e := Exit{Code: -1, State: state}
	if state != nil {
		e.Code, e.Signal = state.ExitCode(), process.SignalOf(state)
	}
	return e
}

// handOverStderr gives a worker that does its work the master's own standard
// error in place of the pipe, where that is possible.
func (p *Process) handOverStderr() {
	if !p.child.proc.Settle() || !p.link.SpeaksExtra() {
		return
	}
	if fd, err := process.DupStderr(); err == nil {
		p.link.AskHandle(wire.TypeNative, &wire.Message{Act: wire.ActStderr}, handle.New(fd), nil)
	}
}

// inheritedEnv is the environment of a worker without what makes it one: the master's
// without what is only the master's, then Options.Env, then Fork's.
func inheritedEnv(p *Process, forkEnv []string) []string {
	o := p.child.opts
	env := slices.DeleteFunc(slices.Clone(p.child.gen.env), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		k = process.EnvName(k)
		return slices.Contains(roleEnv, k) || slices.Contains(masterEnv, k) || o.Credential != nil && slices.Contains(userEnv, k)
	})
	given := append(slices.Clone(o.Env), forkEnv...)
	procs := o.procs()
	share := append(runtimeEnv(procs, o.memory(env)), p.child.gen.userEnv...)
	env = append(append(env, share...), given...)
	if !o.shares {
		env = append(env, runtimeEnv(procs, 0)...)
	}
	if !o.divides {
		env = append(env, runtimeEnv(0, o.MemoryLimit)...)
	}
	if _, fixed := process.Lookup(given, "GOMAXPROCS"); fixed || !o.shares {
		procs = 0
	}
	p.child.procs = procs
	return env
}

// workerEnv is the environment of a worker with a channel.
func workerEnv(p *Process, forkEnv []string, channelFD int) []string {
	o := p.child.opts
	env := inheritedEnv(p, forkEnv)
	hello, _ := json.Marshal(announcement{
		Version: wire.ProtocolVersion, Slot: p.slot, Title: o.Title, ManualReady: o.ManualReady, Connections: p.child.connections, MaxConnections: o.MaxConnections, Procs: p.child.procs,
		ShutdownTimeout: o.ShutdownTimeout, MaxMessage: o.MaxMessage, MaxQueue: o.MaxQueue, Tickets: true, Coord: true,
	})
	id := strconv.Itoa(p.id)
	return append(env,
		envWorkerID+"="+id,
		envUniqueID+"="+id,
		envChannelFD+"="+strconv.Itoa(channelFD),
		envSerialization+"=json",
		envAnnouncement+"="+string(hello),
	)
}

// runtimeEnv sets what a worker's runtime may use. 0 sets nothing.
func runtimeEnv(procs int, memory int64) (env []string) {
	if procs > 0 {
		env = append(env, "GOMAXPROCS="+strconv.Itoa(procs))
	}
	if memory > 0 {
		env = append(env, "GOMEMLIMIT="+strconv.FormatInt(memory, 10))
	}
	return env
}

// masterEnv stays with the master: sockets and notifications that a service
// manager has addressed to its pid.
var masterEnv = []string{"NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC"}

// userEnv says who the master's user is.
var userEnv = []string{"HOME", "USER", "LOGNAME"}
