package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/callback"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/link"
	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/share"
	"github.com/go-cluster/cluster/internal/signals"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/supervise"
	"github.com/go-cluster/cluster/internal/wire"
)

// child is what the master keeps for a worker, beside what the supervisor knows. Fields
// belong to the master's mailbox unless their comment says otherwise.
type child struct {
	m           *master          // constant
	p           *Process         // constant
	opts        *settings        // in force when the worker was forked; constant
	gen         *generation      // what the worker was forked from; constant
	connections int              // after how many connections the worker is full, or 0; constant
	proc        *process.Process // constant once started
	started     time.Time        // constant once started
	procs       int              // its share of the cores at the start, or 0 if that is fixed; constant once started
	foreign     *foreign         // nil unless it is a program without this package; constant

	forked    bool          // its process exists, and that was reported
	end       sync.Once     // reports that it has ended; for anyone
	listened  bool          // it has listened on some address
	exited    chan struct{} // closed at its death, or when it could not be started; for anyone
	state     *os.ProcessState
	cutOff    bool            // it was killed because its drain took too long; constant once exited is closed
	listening net.Addr        // the address that it reports in this turn
	built     build           // what it says of its build
	tickets   bool            // it has asked for the keys of session tickets
	saysReady bool            // it says when it is ready; others, as node's, are ready when they listen
	queries   atomic.Int32    // how many of its questions for addresses are under way; for anyone
	asks      []*wire.Message // questions for addresses that wait, while an upgrade keeps the cluster quiet
	handed    atomic.Int64    // connections that the dispatcher has handed to it; for anyone
	tallies   tallies
}

func (c *child) osProcess() *os.Process {
	if c.proc == nil {
		return nil
	}
	return c.proc.OS
}

func (c *child) logger() *slog.Logger { return c.opts.logger() }

func (c *child) ready() (err error) {
	if c.foreign == nil {
		return callError("Ready", ErrNotWorker)
	}
	c.m.call(func() {
		if c.p.IsDead() {
			err = callError("Ready", ErrClosed)
			return
		}
		c.happened(supervise.GetsReady)
	})
	return err
}

func (c *child) disconnect(ctx context.Context) error {
	early := false
	c.m.call(func() {
		if !c.m.supervisor.Drain(time.Now(), c.p.id) {
			early = !c.p.IsDead() // Options.Output has called this, and the fork waits for Output
		}
	})
	if early {
		return fmt.Errorf("cluster: Disconnect: worker %d has not started: %w", c.p.id, ErrClosed)
	}
	select {
	case <-c.exited:
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.cutOff {
		return fmt.Errorf("cluster: Disconnect: worker %d did not drain within %v and was killed: %w",
			c.p.id, c.opts.ShutdownTimeout, context.DeadlineExceeded)
	}
	return nil
}

func (c *child) kill(sigs ...os.Signal) (err error) {
	if len(sigs) == 0 {
		sigs = []os.Signal{os.Kill}
	}
	c.m.call(func() {
		for _, sig := range sigs {
			switch {
			case !c.forked || c.p.IsDead():
				err = ErrClosed
			case signals.Deliverable(sig) != nil:
				err = signals.Deliverable(sig)
			default:
				err = c.m.supervisor.Kill(time.Now(), c.p.id, sig, signals.IsProbe(sig))
			}
			if err != nil {
				return
			}
		}
	})
	if err != nil {
		return fmt.Errorf("cluster: Kill: worker %d: %w", c.p.id, err)
	}
	return nil
}

// writers asks Options.Output for the writers of a worker whose fork is under way.
func (c *child) writers() (stdout, stderr io.Writer, err error) {
	f := c.opts.Output
	if f == nil {
		return nil, nil, nil
	}
	c.m.call(func() { c.m.supervisor.OutputAsked(time.Now(), c.p.id) })
	called := callback.Wait(func() error { stdout, stderr = f(c.p); return nil })
	c.m.call(func() { err = c.m.supervisor.OutputGiven(time.Now(), c.p.id) })
	if err == nil && called != nil {
		err = fmt.Errorf("Options.Output: %w", called)
	}
	return stdout, stderr, err
}

// reap waits for the process, on a goroutine of its own, and reports the death. Before that
// the worker's channel is read to its end: the worker may have said something and exited
// before the reader came to it.
func (c *child) reap() {
	if c.proc.AwaitExit() {
		// An upgrade must wait from here on: the status can be taken only once, so this
		// program has to report it.
		c.m.reaping.RLock()
		defer c.m.reaping.RUnlock()
	}
	state, err := c.proc.Wait()
	if err != nil {
		c.p.report(fmt.Errorf("cluster: wait for worker %d: %w", c.p.id, err))
	}
	c.ended(state, false)
}

// ended reports the end of the process, or that nothing can end it (undead). If an undead
// process ends later, that is not reported any more.
func (c *child) ended(state *os.ProcessState, undead bool) {
	c.end.Do(func() {
		if c.foreign == nil {
			c.p.link.PeerExited()
			<-c.p.link.Done()
		} else {
			c.foreign.close()
		}
		c.m.post(func() {
			c.state = state
			e := exitOf(state)
			end := supervise.Exit{Code: e.Code, LastWords: c.proc.LastWords(), Undead: undead}
			if e.Signal != nil {
				end.Signal = e.Signal.String()
			}
			if c.foreign == nil {
				end.Note = c.noteOn(end)
			} else {
				end.Asked = e.Signal == signals.Term
			}
			c.m.supervisor.Exited(time.Now(), c.p.id, end)
		})
	})
}

// noteOn explains the end of a worker that was not ready, for somebody who does not know this
// package well. It returns "" if there is nothing to explain.
func (c *child) noteOn(e supervise.Exit) string {
	switch {
	case e.Code == 0 && !c.listened:
		return "main returned before it listened"
	case e.Code > 0 && strings.Contains(e.LastWords, addressInUse) && !strings.Contains(e.LastWords, share.ListenFails):
		return "an address that package net or net/http opens is one process's alone; workers share what cluster.Listen and cluster.ListenAndServe open"
	}
	return ""
}

// happened tells the supervisor what the worker does, in the mailbox.
func (c *child) happened(what supervise.Happening) {
	c.m.supervisor.Happened(time.Now(), c.p.id, what)
}

// counted is called when the worker has taken n connections that the dispatcher has handed to
// it. It is for workers of node. A Go worker counts by itself, all connections that it
// accepts.
func (c *child) counted(n int) {
	if n == c.connections && !c.p.link.SpeaksExtra() {
		c.m.post(func() { c.happened(supervise.IsFull) })
	}
}

// fromWorker is what the master does with the internal messages of one worker. The reader of
// the channel calls its methods. For a change of the state they wait for a turn of the
// mailbox, so that events keep the order of the messages.
type fromWorker struct {
	m    *master
	p    *Process
	over sync.Once // overrun
}

func (s *fromWorker) Internal(w *wire.Message, h *handle.Handle) {
	m, p := s.m, s.p
	if h != nil {
		h.Release()
		p.link.Fault("a descriptor came with %q; closed", w.Act)
	}
	switch w.Act {
	case wire.ActOnline:
		s.online(w)
	case wire.ActQuery:
		s.query(w)
	case wire.ActListening:
		addr, err := share.Reported(w)
		if err != nil {
			p.link.Fault("%w", err)
			return
		}
		p.link.Listens()
		m.call(func() {
			p.child.listened, p.child.listening = true, addr
			if !p.child.opts.ManualReady && !p.child.saysReady {
				p.child.happened(supervise.GetsReady) // first, so that callbacks see the state Ready
			}
			if p.child.listening != nil { // nil if host.changed has reported the address already
				p.child.listening = nil
				p.emitListening(addr)
			}
		})
	case wire.ActClose:
		s.closes(w.Key)
	case wire.ActVoluntary:
		m.call(func() {
			p.child.happened(supervise.EndsByItself)
			p.link.WorkerEnds(&wire.Message{Cmd: wire.CmdCluster, Ack: w.Seq, Seq: wire.NextSeq()})
		})
	case wire.ActReady:
		m.call(func() { p.child.happened(supervise.GetsReady) })
	case wire.ActTickets:
		m.call(func() { m.tickets.give(m, p, w.Seq) })
	case wire.ActSocket, wire.ActTake:
		s.flows(w)
	case wire.ActPong:
		s.beat(w.Msg)
	case wire.ActShards:
		m.call(func() { m.registry.Shards.Accepts((*member)(p), w.Key) })
	case wire.ActNoRoom:
		m.call(func() {
			m.registry.Shards.NoRoom((*member)(p))
			m.registry.Flows.NoRoom((*member)(p))
		})
	case wire.ActRoom:
		m.call(func() { m.registry.HasRoom((*member)(p)) })
	case wire.ActFull:
		m.call(func() { p.child.happened(supervise.IsFull) })
	case wire.ActDraining:
		m.call(func() { p.child.happened(supervise.DrainsByItself) })
	}
}

// flows is what a worker says of its place in a group of UDP sockets.
func (s *fromWorker) flows(w *wire.Message) {
	m, p := s.m, s.p
	if w.Act == wire.ActTake {
		m.call(func() { m.registry.Flows.Take((*member)(p), w.Key) })
		return
	}
	var err error
	m.call(func() { err = m.registry.Flows.Socket((*member)(p), w) })
	if err != nil {
		p.link.Fault("%w", err)
	}
}

// online notes what the worker understands. That counts even if the worker is being drained
// already.
func (s *fromWorker) online(w *wire.Message) {
	kind := link.PeerNode
	if w.Go != nil && w.Go.Version >= wire.ProtocolVersion {
		kind = link.PeerGo
		most := w.Go.MaxMessage
		if most <= 0 {
			most = s.p.child.opts.MaxMessage // what it was told
		}
		s.p.link.SetPeerMax(most) // before anybody sees that it is online
	}
	s.m.call(func() {
		s.p.child.saysReady = w.Go != nil && w.Go.SaysReady
		s.p.child.built.tell(w.Go)
		s.p.child.happened(supervise.ComesOnline)
	})
	s.p.link.SetPeer(kind)
	if kind == link.PeerGo && w.Go.Gauge {
		s.p.child.giveGauge()
		s.p.child.giveSpares()
	}
	s.m.call(func() { s.p.child.tellStopping() })
}

// maxQueries bounds the addresses that one worker asks for at a time: each has
// a goroutine, and AllowListen may block.
const maxQueries = 256

func (s *fromWorker) query(w *wire.Message) {
	if s.p.child.queries.Add(1) > maxQueries {
		s.p.child.queries.Add(-1)
		s.p.link.Fault("asks for more than %d addresses at once; refused", maxQueries)
		s.m.registry.Refuse((*member)(s.p), w, socket.Again, "too many requests at once")
		return
	}
	s.m.call(func() {
		if s.m.upgrades.hold != nil {
			s.p.child.queries.Add(-1)
			s.p.child.asks = append(s.p.child.asks, w)
			return
		}
		s.p.child.ask(w)
	})
}

// ask answers a question that queries counts. It does so on a goroutine of its own, not on
// the reader: AllowListen may ask this very worker something.
func (c *child) ask(w *wire.Message) {
	go func() {
		defer c.queries.Add(-1)
		c.m.query(c.p, w)
	}()
}

// askAgain answers the questions that have waited. It is called in the mailbox.
func (c *child) askAgain() {
	for _, w := range c.asks {
		c.queries.Add(1)
		c.ask(w)
	}
	c.asks = nil
}

func (s *fromWorker) Coord(_ string, id uint64, msg []byte) { s.m.broker.Receive(s.p.id, id, msg) }

func (s *fromWorker) Closed() { s.m.call(func() { s.p.child.happened(supervise.ClosesItsChannel) }) }

func (s *fromWorker) Overrun() {
	s.over.Do(func() {
		s.p.report(fmt.Errorf("cluster: worker %d asks and does not read the answers; it is killed: %w", s.p.id, ErrBacklog))
		s.m.post(func() { s.p.child.proc.Signal(os.Kill) })
	})
}

// beat takes the worker's answer to a ping.
func (s *fromWorker) beat(raw json.RawMessage) {
	var p supervise.Pulse
	if err := json.Unmarshal(raw, &p); err != nil {
		s.p.accuse(fmt.Errorf("cluster: worker %d: bad heartbeat: %w", s.p.id, err))
		return
	}
	p.Error = wire.Plain(p.Error)
	s.p.child.tallies.beat(p)
	s.m.call(func() {
		s.m.supervisor.Beat(time.Now(), s.p.id, p)
		s.m.registry.Shards.Beat((*member)(s.p))
		s.m.registry.Flows.Beat((*member)(s.p))
	})
}

// exitOf returns how a process ended, as far as its state tells.
func exitOf(state *os.ProcessState) Exit {
	e := Exit{Code: -1, State: state}
	if state != nil {
		e.Code, e.Signal = state.ExitCode(), process.SignalOf(state)
	}
	return e
}

// handOverStderr gives a worker the master's own standard error in place of the pipe, whose
// end the master keeps, where that is possible.
func (p *Process) handOverStderr() {
	if !p.child.proc.Settle() || !p.link.SpeaksExtra() {
		return
	}
	p.child.give(wire.ActStderr, duplicateOwn(2), time.Second)
}

// giveSpares gives a worker whose output passes through the master for package admin
// the master's own, to write to when the master is gone.
func (c *child) giveSpares() {
	for fd, act := range map[int]string{1: wire.ActSpareOut, 2: wire.ActSpareErr} {
		if c.proc.Through(fd) {
			c.give(act, duplicateOwn(fd), time.Second)
		}
	}
}

// ---- its environment

// inheritedEnv returns the environment of a worker, but for the variables that make it one:
// the master's environment without what is only for the master, then Options.Env, then the
// environment given to Fork.
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

// workerEnv returns the environment of a worker with a channel.
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

// runtimeEnv returns the variables that bound what a worker's runtime may use. A bound of 0
// is left out.
func runtimeEnv(procs int, memory int64) (env []string) {
	if procs > 0 {
		env = append(env, "GOMAXPROCS="+strconv.Itoa(procs))
	}
	if memory > 0 {
		env = append(env, "GOMEMLIMIT="+strconv.FormatInt(memory, 10))
	}
	return env
}

// masterEnv are the variables that stay with the master: a service manager has addressed
// them to its pid.
var masterEnv = []string{"NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC"}

// userEnv are the variables that describe the master's user.
var userEnv = []string{"HOME", "USER", "LOGNAME"}
