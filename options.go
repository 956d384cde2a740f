package cluster

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/go-cluster/cluster/internal/supervise"
)

// Options are the settings of the workers that are forked after [SetupMaster]
// was given them. The zero Options is a good one for production; each field
// says what its zero value means.
type Options struct {
	// Exec is the program that a worker runs. Default: the binary that runs as
	// the master, even if another file lies at its path by now. A name without
	// a slash is looked up in PATH; a relative path is taken from the directory
	// in which the master was started.
	Exec string

	// Args are the arguments of a worker, without the program's name.
	// Default: os.Args[1:] of the master. To pass none, use []string{}.
	Args []string

	// Workers is how many workers AutoFork keeps alive.
	// Default: runtime.GOMAXPROCS(0). Negative: an error.
	Workers int

	// Env is added to the environment that a worker inherits from the master,
	// as "K=V"; it wins over the master's, and the env of Fork wins over it.
	Env []string

	// Dir is the working directory of a worker. Default: the master's. A
	// relative path is taken from the directory in which the master was started.
	Dir string

	// Output tells where a worker's standard output and error go. Default (nil,
	// or for a nil result): to the master's own, without a detour; only the
	// standard error of a worker of this program passes through the master until
	// it is ready, which can then say why one could not start. Another
	// writer than an *os.File is fed through a pipe that the master copies; its
	// Write is called from one goroutine per worker and stream, with whole lines:
	// one of more than 64 KiB is cut and marked. io.Discard
	// silences. It is called in the middle of
	// the fork: w has no process yet, and answers nothing.
	Output func(w *Process) (stdout, stderr io.Writer)

	// Stdin is a worker's standard input. Default: the null device, since of
	// several processes that read a terminal each gets a part, and one in the
	// background is stopped by it.
	Stdin *os.File

	// Credential, if set, makes workers run as that user and those groups. The
	// master needs the privilege to do so, and opens the sockets with its own. Not
	// on Windows: SetupMaster returns an error.
	Credential *Credential

	// Scheduling says how connections reach the workers: [Shared] or
	// [RoundRobin]. Zero is Shared. A [ListenConfig] can differ for one address.
	Scheduling Scheduling

	// MaxProcs is the GOMAXPROCS of a worker. Default: the master's
	// runtime.GOMAXPROCS(0) divided by Workers, at least 1; a GOMAXPROCS in Env
	// or in Fork's env wins over the default, but not over a MaxProcs given here.
	MaxProcs int

	// ManualReady makes a worker ready only when it calls [Process.Ready],
	// instead of when its first listener listens.
	ManualReady bool

	// StartTimeout is how long a worker may take until it is online, and under
	// ManualReady until it is ready; past it the worker is killed, which counts
	// as a crash. Default: 60 s, as puma's; systemd has 90 s.
	StartTimeout time.Duration

	// ShutdownTimeout bounds every drain: a worker that has not exited by then
	// is killed with SIGKILL. Default: 30 s, as gunicorn's and puma's.
	ShutdownTimeout time.Duration

	// AllowListen is asked before the master opens an address for a worker; an
	// error refuses it and reaches the worker's Listen as EACCES with its text.
	// The address is resolved (a literal IP and a port number, or an absolute
	// path). It is called on a goroutine of its own, may block and may call
	// anything. Default: any address is allowed.
	AllowListen func(w *Process, network, address string) error

	// MaxMessage is the size of the largest message taken in, in bytes, without
	// the newline that ends it. A larger one is dropped and reported through
	// OnError. Default: 16 MiB.
	MaxMessage int

	// MaxQueue bounds, in bytes and for each worker, what is queued out (past
	// it Send returns ErrBacklog) and what has arrived but was not taken by a
	// callback yet (past it the channel is not read). Default: 64 MiB.
	MaxQueue int

	// Backoff is how crashes are answered; MaxBootFailures how many workers in a
	// row may die in one slot before they are ready until Run gives up with
	// ErrBootLoop, while no worker of the cluster ever was ready, or online for
	// Backoff.Reset. It counts deaths, not time: a program that is slow to fail
	// is found as well. Default: 5; negative: never.
	Backoff         Backoff
	MaxBootFailures int

	// Watchdog finds workers that hang.
	Watchdog Watchdog

	// Recycle replaces workers that have served long enough. Default: never.
	Recycle Recycle

	// MinReady is how many workers must be up before a service manager is told
	// READY=1 (sd_notify). Default: all.
	MinReady int

	// NoSignals makes Run leave all signals to the program.
	NoSignals bool

	// ReapOrphans makes Run wait for children that are not its workers. Default
	// (nil): if the master is PID 1. A program that starts children of its own
	// and is slow to wait for them sets it to false.
	ReapOrphans *bool

	// Logger gets what nobody else is told: crashes and their backoff, kills
	// after a timeout, errors for which no OnError callback is registered.
	// Nothing is logged while all is well. Default: slog.Default().
	Logger *slog.Logger
}

// Credential is the user that workers run as; see [Options].
type Credential struct {
	UID, GID uint32
	Groups   []uint32 // supplementary groups; none unless given, the master's are dropped
}

// Scheduling says how the connections of one listening address are spread over
// the workers.
type Scheduling int

const (
	// Shared lets the workers accept on one shared socket: the kernel spreads
	// the connections, the master is not involved, and a connection waits in
	// the socket's queue until some worker takes it.
	Shared Scheduling = 1 + iota
	// RoundRobin makes the master accept and hand each connection to the next
	// worker that is free, as node's SCHED_RR: an even spread, for the price of
	// a trip through the master.
	RoundRobin
)

// String returns the constant's name.
func (s Scheduling) String() string {
	switch s {
	case 0:
		return "default"
	case Shared:
		return "Shared"
	case RoundRobin:
		return "RoundRobin"
	}
	return fmt.Sprintf("Scheduling(%d)", int(s))
}

// Backoff says how crashes in a row of one slot are answered: the first at
// once, for it may be the only one; then after Min, and Factor times as long
// after each further one, up to Max.
type Backoff struct {
	Min    time.Duration // default: 100 ms, as PM2's
	Max    time.Duration // default: 15 s
	Factor float64       // default: 2; at least 1
	Reset  time.Duration // a worker that was ready so long makes the next crash a first one. Default: 30 s
	Jitter float64       // each wait is up to this fraction longer or shorter. Default: 0.2; negative: none
}

// Watchdog finds workers that hang. The master pings each, and a Go worker
// answers when its OnCheck functions have returned. Not watched are node
// workers, and workers that start or drain.
type Watchdog struct {
	Interval time.Duration // between pings. Default: 5 s
	Timeout  time.Duration // without an answer, until the worker is ended. Default: 60 s, as puma's; negative: off
}

// Recycle replaces workers that have served long enough, one at a time in the
// cluster, each replacement being up first. Zero limits are off.
type Recycle struct {
	Connections int           // accepted by the worker; for node workers under RoundRobin only
	Age         time.Duration // since the fork
	Memory      int64         // resident bytes, looked at every Watchdog.Interval
	Jitter      float64       // each worker's limits differ by up to this fraction, so that not all are due at once. Default: 0.2; negative: none
	MinAge      time.Duration // no worker is replaced before. Default: 10 s
}

// ExitNoRestart is the exit status (EX_CONFIG of sysexits.h) by which a worker
// says that it need not be tried again: it is not replaced.
const ExitNoRestart = supervise.ExitNoRestart

// Reason is why a worker ended, in [Exit].
type Reason string

const (
	ReasonCrash   Reason = "crash"   // by itself, with an error or before it was ready
	ReasonStall   Reason = "stall"   // the watchdog killed it
	ReasonReload  Reason = "reload"  // replaced by Reload, or a replacement that did not get ready
	ReasonRecycle Reason = "recycle" // replaced because of a limit of Recycle
	ReasonScale   Reason = "scale"   // its slot was removed
	ReasonStop    Reason = "stop"    // by Disconnect of the cluster or the end of Run
	ReasonKill    Reason = "kill"    // by Kill
	ReasonDrain   Reason = "drain"   // by Disconnect of the worker, a SIGTERM to it, or of its own accord with status 0
)
