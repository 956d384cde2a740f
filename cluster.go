package cluster

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/broker"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/logqueue"
	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/upgrade"
)

// Worker is this process as a worker: send to the master and hear from it
// through its methods. It is nil in a process that is not a worker.
var Worker *Process

// Parent is the process that started this one with a channel but made it no
// worker: a node program with child_process.fork, or PM2 in its fork mode, which
// waits for Parent.Send("ready") if it is told to (wait_ready). It is nil in any
// other process, in a worker, on Windows, and where the parent uses another
// serialization than JSON.
//
// Send, SendContext, OnMessage, OnDisconnect, OnError and IsConnected work as with
// a node peer, PID is the parent's, and Disconnect closes the channel, as node's
// process.disconnect. Request and Kill return ErrNotSupported, Ready ErrNotWorker.
// Its messages go to Parent.OnMessage alone; those that come before there is one
// wait. A process with a Parent is otherwise like any other: it may fork, and it
// goes on when the parent is gone.
var Parent *Process

// cluster is what this package knows in one process: its callbacks, the processes that
// it reports about, and the master that the process may become. There is one, since a
// process has one role, one SIGTERM and one service manager.
type cluster struct {
	*master
	hooks hooks
	coord *broker.Client // this process's part of package coord
	live  processSet     // the processes whose events are delivered: in a master its workers, in a worker itself
	logs  logqueue.Queue // log records that wait to be written
	quiet atomic.Bool    // an upgrade is under way: no callback about a worker and no handler begins

	// stranded is why this process must not become a master, or nil: it was started as
	// a worker and lacks its channel. Constant.
	stranded error
}

// hooks are the cluster-wide callbacks. They are kept apart from the master, since
// they outlive it and a worker has them too.
type hooks struct {
	fork, online, ready, disconnect callbacks[func(*Process)]
	listening                       callbacks[func(*Process, net.Addr)]
	message                         callbacks[func(*Process, Message)]
	handle                          callbacks[handler]
	request                         callbacks[requestHandler]
	death                           callbacks[func(*Process, Exit)]
	err                             callbacks[func(*Process, error)]
	reload                          callbacks[func(ReloadResult)]
	check                           callbacks[func(context.Context) error]

	adopt    callbacks[func(*Process)]
	upgrade  callbacks[stateSaver]
	upgraded callbacks[func(error)]

	// Of package admin: see internal/operator.
	reloading callbacks[func()]
	scale     callbacks[func(workers int)]
	trouble   callbacks[func(worker int, err error)]
	stream    callbacks[func(net.Conn)]
	silent    callbacks[func(worker int, left time.Duration)]
	stall     callbacks[func(worker int)]
	output    callbacks[func(worker, slot int, stream string, lines []byte)]
	leaving   callbacks[leaver]
}

func newCluster() *cluster {
	c := new(cluster)
	c.master = newMaster(c)
	s, _ := Options{}.resolve() // the zero Options is a good one
	c.broker, c.coord = broker.New(s.coord(), broker.Hooks{Report: c.reportAlone, Logger: c.master.log})
	return c
}

// flushLogs gives what is to be logged a last moment, before the process ends.
func (c *cluster) flushLogs(timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c.logs.Flush(ctx.Done())
}

// std is the cluster of this process: the package's functions act on it.
var std = newCluster()

// init runs before main and before the packages that import this one, so the master
// learns at once that its worker is online. A process that is to become a Foreign worker
// executes its program in process.Become, and comes no further than that.
func init() {
	process.Become()
	if std.upgrades.check = upgrade.BeginCheck(); Checking() {
		std.broker.Pretend()
	}
	std.inherit()
	Worker, Parent = joinCluster(std)
}

// IsMaster reports whether this process is no worker: it is the master, or may
// become one by forking.
func IsMaster() bool { return Worker == nil }

// IsWorker reports whether a master forked this process.
func IsWorker() bool { return Worker != nil }

// SetupMaster sets the options for workers that are forked from now on; it
// replaces those of an earlier call, whole. Workers that run keep theirs, and so
// do the slots of AutoFork. The error names the field that is wrong; nothing is
// changed then. In a worker it does nothing, so that one main serves both roles.
func SetupMaster(o Options) error {
	if IsWorker() {
		return nil
	}
	return std.setup(o)
}

// Settings returns the options in force, with the defaults filled in. Given to
// SetupMaster they change nothing: what is a default stays one.
func Settings() Options { return std.settings() }

// Fork starts one worker; env ("K=V") is added to Options.Env. It returns once
// the process exists, which is before it is online. Nothing replaces the worker
// when it dies. The error says why the program could not be started; it is
// ErrClosed while a Disconnect or the end of Run is under way, ErrNotMaster in a
// worker.
func Fork(env ...string) (*Process, error) {
	if IsWorker() {
		return nil, callError("Fork", ErrNotMaster)
	}
	if std.stranded != nil {
		return nil, callError("Fork", std.stranded)
	}
	return std.forkOne(env)
}

// AutoFork starts Options.Workers workers and keeps that many alive: one that
// dies is replaced, at once the first time and then ever later, unless its end
// was asked for with Kill or Disconnect. It does nothing while workers run, and
// nothing in a worker. When one cannot be started, none is left running and the
// error says why; it is ErrClosed while a Disconnect or the end of Run is under
// way.
//
// In a process that was started as a worker but has lost its channel, the error wraps
// ErrNotMaster, as those of Fork and Run do there: a program between the two has closed
// the descriptor. Were that process to become a master, its workers would do the same
// in turn, without end.
func AutoFork() error {
	if IsWorker() {
		return nil
	}
	if std.stranded != nil {
		return callError("AutoFork", std.stranded)
	}
	return std.autoFork()
}

// Reload replaces every worker of AutoFork, slot by slot: a new worker, of the
// program and the options as they are now, has to be ready before its
// predecessor drains, and the predecessor gone before the next slot's turn. It
// returns nil when all workers are new and no old one answers any more. At the first
// worker that does not get ready the reload ends: the slots that were replaced keep
// their new workers, the others their old ones, and the error has the last words of the
// worker that failed.
//
// A call while a reload runs waits for one more reload, which all such calls share. ctx
// bounds this call, not the reload. The error wraps ErrClosed if the cluster is
// stopped meanwhile, ErrNoWorkers if AutoFork keeps none, ErrNotMaster in a
// worker. A program that is a script cannot be held open: its path is executed again.
func Reload(ctx context.Context) error {
	if IsWorker() {
		return callError("Reload", ErrNotMaster)
	}
	return std.reload(ctx)
}

// ReloadResult is how a reload ended.
type ReloadResult struct {
	Err        error         // nil, or why it was given up; the slots replaced until then stay new
	Replaced   int           // slots that have a new worker
	Generation int           // the reload's own, if it is complete; else the last complete one
	Took       time.Duration // from its beginning
}

// OnCheck registers fn to be called in this worker at every heartbeat, which is every
// Watchdog.Interval. A check that does not return is a stall, and the worker is killed
// after Watchdog.Timeout. A check that returns an error is reported in the master,
// through OnError and Stats, and no worker is ended: otherwise a database that is down
// would take every worker with it. ctx ends when the drain begins. In a master fn is
// never called. The returned func unregisters it.
func OnCheck(fn func(context.Context) error) (stop func()) { return std.hooks.check.add(fn) }

// OnReload registers fn for the end of every reload. The returned func
// unregisters it.
func OnReload(fn func(r ReloadResult)) (stop func()) { return std.hooks.reload.add(fn) }

// Scale makes n the number of workers that AutoFork keeps: it forks into new
// slots, or drains the highest. It returns when that has begun. Slots that were
// emptied by Kill, Disconnect or ExitNoRestart are filled again. With 0 the
// addresses stay open and connections wait. New workers get their GOMAXPROCS by the
// new number. Scale returns ErrClosed while the cluster is being stopped, ErrNotMaster
// in a worker, and an error if n is negative or a worker could not be started; the
// start is tried again.
func Scale(n int) error {
	if IsWorker() {
		return callError("Scale", ErrNotMaster)
	}
	if std.stranded != nil {
		return callError("Scale", std.stranded)
	}
	return std.scale(n)
}

// Upgrade puts the program that lies now where the master was started from in the place
// of the master's, in the same process: workers keep running and serving, no connection is
// refused, no message is lost, and the pid stays. It returns only if that failed: then
// all goes on as before. Workers stay what they are; [Reload] renews those, and SIGUSR2
// to a Run does both.
//
// The new program runs as a child first, with the same arguments and environment, until it
// comes to AutoFork, Run or Fork; what main does before that is done twice, and what only
// one process may do (net.Listen, a lock) fails there: see [Checking] and
// Options.NoUpgradeCheck. The deferred functions, OnShutdown hooks and goroutines of the
// old program do not run to their end: [OnUpgrade] is the place to flush and to hand over.
//
// It waits for a Reload or Scale that is under way; a stop calls it off (ErrClosed).
// Callbacks, handlers of requests and OnUpgrade have 5 s to return. So do not call
// Upgrade from one of them, but on a goroutine of its own. The error says what went
// wrong, with the last words of a program that did not start; it is ErrNoWorkers before
// any fork, ErrNotSupported on Windows, and ErrNotMaster in a worker. docs/upgrade.md tells what is carried, what is waited for and what is not.
func Upgrade(ctx context.Context) error {
	if IsWorker() {
		return callError("Upgrade", ErrNotMaster)
	}
	return std.upgrades.run(ctx, false)
}

// OnUpgrade registers fn to be asked for what this program hands to its successor, under a
// name that [Upgraded] asks for. It is called in the master when no handler runs; the
// upgrade may still fail after it. The state is encoded as JSON. An error calls the
// upgrade off. The returned func unregisters it.
func OnUpgrade(name string, fn func() (state any, err error)) (stop func()) {
	notNil(fn == nil)
	return std.hooks.upgrade.add(stateSaver{name, fn})
}

// Upgraded decodes into state, which is a pointer or nil, what the program before handed
// over under the name. It reports false after a plain start, and if there was nothing
// under the name; with the name "" it reports whether this program has replaced another
// one. It may be called from the beginning of main on.
func Upgraded(name string, state any) (bool, error) { return std.upgrades.upgraded(name, state) }

// OnUpgraded registers fn to be told how an upgrade has ended: in the new program with
// nil, when all is adopted; in the old one with the error of Upgrade, which SIGUSR2
// has no other way to tell; and in the old one again with why the new one did not adopt,
// if that was rolled back.
func OnUpgraded(fn func(err error)) (stop func()) { return std.hooks.upgraded.add(fn) }

// OnAdopt registers fn for the workers that this program has from the one before. It is
// called in the new program once for each, before anything else about it is reported:
// what OnFork does for those that are forked is done here.
func OnAdopt(fn func(w *Process)) (stop func()) { return std.hooks.adopt.add(fn) }

// Checking reports whether this process is the check of an upgrade: it is to find out
// whether the program starts, and ends at AutoFork, Run or Fork. Listen and Serve of this
// package open nothing in it.
func Checking() bool { return std.upgrades.check != nil }

// Run is the master's main loop: it calls AutoFork if no worker runs, stops the
// cluster on SIGTERM, SIGINT or the end of ctx, and returns when all workers
// have exited and the hooks of OnShutdown have run. A second signal shortens the
// stop to two seconds. Several calls at once share one stop.
//
// SIGHUP is [Reload]. SIGTTIN and SIGTTOU are [Scale] by one more and by one less, but
// not below one. SIGUSR2 is [Upgrade] and then Reload, on Unix. A controlling terminal
// sends some of these for reasons of its own. So with a terminal, master and workers
// ignore SIGTTIN and SIGTTOU, and a worker that the terminal stops is continued. A
// SIGHUP that means that the terminal was closed ends Run, unless nohup started the
// program. A service manager that gave a NOTIFY_SOCKET is kept informed.
//
// Run returns nil after a graceful stop. If workers had to be killed, it returns an
// error that wraps ctx.Err() if ctx ended, else context.DeadlineExceeded. It returns
// ErrBootLoop when no worker ever got ready, ErrNoWorkers when all workers asked not to
// be replaced, and ErrNotMaster in a worker.
func Run(ctx context.Context) error {
	if IsWorker() {
		return callError("Run", ErrNotMaster)
	}
	if std.stranded != nil {
		return callError("Run", std.stranded)
	}
	return std.run(ctx)
}

// Workers returns the workers that have not exited, ordered by id. In a worker there
// are none.
func Workers() []*Process {
	workers := std.list()
	slices.SortFunc(workers, func(a, b *Process) int { return a.id - b.id })
	return workers
}

// EachWorker calls fn for every worker that has not exited, ordered by id. A worker
// may exit meanwhile.
func EachWorker(fn func(w *Process)) {
	for _, w := range Workers() {
		fn(w)
	}
}

// Disconnect drains every worker, waits until all have exited, and closes the
// shared sockets. When ctx ends first it kills those that are left and returns
// ctx.Err(). A worker that outlives Options.ShutdownTimeout is killed as well, and then
// the error wraps context.DeadlineExceeded. Disconnect never waits for callbacks. A
// process may survive SIGKILL because it is frozen or waits for a device: Disconnect, Run
// and Reload wait 10 seconds more for it, and the error names its pid.
//
// Until Disconnect returns, Fork and AutoFork return ErrClosed; afterwards they work
// again. A Run, Serve or ListenAndServe of the master ends with it and returns
// nil, unless workers were forked meanwhile. In a worker Disconnect returns
// ErrNotMaster: use Worker.Disconnect.
func Disconnect(ctx context.Context) error {
	if IsWorker() {
		return callError("Disconnect", ErrNotMaster)
	}
	return std.disconnect(ctx)
}

// processSet is a set of processes. It may be used by several goroutines at once.
type processSet struct {
	mu  sync.Mutex
	set map[*Process]struct{}
}

func (s *processSet) add(p *Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil {
		s.set = make(map[*Process]struct{})
	}
	s.set[p] = struct{}{}
}

func (s *processSet) remove(p *Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.set, p)
}

// has reports whether is holds of a process in the set.
func (s *processSet) has(is func(*Process) bool) bool {
	return slices.ContainsFunc(s.all(), is)
}

func (s *processSet) all() []*Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Process, 0, len(s.set))
	for p := range s.set {
		all = append(all, p)
	}
	return all
}

var (
	// ErrNotMaster is returned when a call that only the master can make is
	// made in a worker.
	ErrNotMaster = errs.NotMaster

	// ErrNotWorker is returned when a call that only a worker can make is made
	// in another process; its methods on a nil [Worker] are such calls.
	ErrNotWorker = errs.NotWorker

	// ErrClosed is returned when the channel or the worker is gone, and by Fork
	// and AutoFork while a Disconnect is under way.
	ErrClosed = errs.Closed

	// ErrBacklog is returned by Send when Options.MaxQueue bytes wait for a
	// peer that does not read.
	ErrBacklog = errs.Backlog

	// ErrNotSupported is returned for what this system, or a node peer, cannot
	// do. It wraps [errors.ErrUnsupported].
	ErrNotSupported = errs.NotSupported

	// ErrBootLoop is returned by Run when MaxBootFailures workers in a row
	// died in one slot before they were ready, and no worker ever was.
	ErrBootLoop = errs.BootLoop

	// ErrNoWorkers is returned by Run when every worker has exited with
	// ExitNoRestart, and by Reload when AutoFork keeps none.
	ErrNoWorkers = errs.NoWorkers

	// ErrStalled is reported through OnError when the watchdog ends a worker
	// that has not answered for Watchdog.Timeout.
	ErrStalled = errs.Stalled

	// ErrMessageTooLong is returned by Send, SendContext and Request when the message,
	// or the reply, has more bytes than the side that is to get it takes
	// (Options.MaxMessage). It is reported through OnError when such a message
	// arrived all the same, from a node peer say; it was dropped.
	ErrMessageTooLong = errs.MessageTooLong

	// ErrTooLarge is returned by package coord for a name, a key or a value that is
	// longer than it may be, or that does not fit into MaxMessage or MaxStore.
	ErrTooLarge = errs.TooLarge

	// ErrTooMany is returned by package coord when a process has as many of
	// something as it may: names that it leads, topics, waiting locks.
	ErrTooMany = errs.TooMany
)

// callError adds the name of the call that failed. What to do about it is in the text of
// the error, or in the doc of the sentinel that it wraps.
func callError(call string, err error) error {
	return fmt.Errorf("cluster: %s: %w", call, err)
}

// validateEnv wants "K=V" without NUL in every entry, and refuses the
// variables that make a worker one: they are the master's to set.
func validateEnv(what string, env []string) error {
	for _, kv := range env {
		k, _, ok := strings.Cut(kv, "=")
		switch {
		case !ok || k == "":
			return fmt.Errorf("cluster: %s: %q is not of the form K=V", what, kv)
		case strings.ContainsRune(kv, 0):
			return fmt.Errorf("cluster: %s: %q contains a NUL byte", what, kv)
		case slices.Contains(roleEnv, process.EnvName(k)):
			return fmt.Errorf("cluster: %s: %s is set by the master for each worker", what, k)
		}
	}
	return nil
}
