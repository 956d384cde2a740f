package cluster

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/supervise"
)

// Options are the settings of the workers that are forked after [SetupMaster]
// was given them. The zero Options is a good one for production; each field
// says what its zero value means.
type Options struct {
	// Exec is the program that a worker runs. Default: the binary that runs as
	// the master, even if another file lies at its path by now. A name without
	// a slash is looked up in PATH; a relative path is taken from the directory
	// in which the master was started. Where /proc is missing, as in a chroot, the
	// default is what lies at the path by which the master was started.
	Exec string

	// Args are the arguments of a worker, without the program's name.
	// Default: os.Args[1:] of the master. To pass none, use []string{}.
	Args []string

	// Foreign says that Exec is a program without this package, and not node. It gets the
	// Sockets as systemd passes them (LISTEN_FDS), and no channel: Send and Request
	// return ErrNotSupported. It is told to end by a SIGTERM, and is ready as ReadyAfter
	// and ManualReady say. On Linux it has a NOTIFY_SOCKET of its own, where it may say
	// READY=1, STATUS, STOPPING=1, MAINPID and WATCHDOG=1; after its first WATCHDOG=1 the
	// Watchdog expects more of them. When the master is gone, it is sent a SIGTERM on
	// Linux; on other systems it goes on. On Windows SetupMaster returns ErrNotSupported.
	Foreign bool

	// Sockets are what a Foreign program gets, in this order from descriptor 3 on.
	// The master opens them before it forks, and they stay open from one worker to the
	// next, until a stop, or a Reload without them.
	Sockets []Socket

	// ReadyAfter is how long a Foreign worker must have run to be ready, unless
	// ManualReady. Default: 1 s. It must be less than StartTimeout.
	ReadyAfter time.Duration

	// Title is the name that ps, top and pgrep show for a worker. The worker finds it in
	// os.Args[0]. On Linux its first 15 bytes are also the name of a Go worker's process.
	// Default: the program's name, as for the master.
	Title string

	// Workers is how many workers AutoFork keeps alive.
	// Default: runtime.GOMAXPROCS(0). Negative: an error.
	Workers int

	// Env is added to the environment that a worker inherits from the master,
	// as "K=V". It overrides the master's, and the env of Fork overrides it.
	Env []string

	// Dir is the working directory of a worker. A relative path is taken from the
	// directory in which the master was started. Default: the master's. If the master was
	// started, or its directory entered, through a symbolic link, then after a reload: the
	// directory to which that link leads by then.
	Dir string

	// Output tells where a worker's standard output and error go. It is called in the
	// middle of the fork: w has no process yet, and answers nothing.
	//
	// Default (nil, or for a nil result): to the master's own, without a detour. Only the
	// standard error of a worker with this package passes through the master until the
	// worker is ready, so that the master can say why one did not start.
	//
	// io.Discard silences. An *os.File is passed to the worker. Any other writer gets what
	// the master reads from a pipe: its Write is called from one goroutine per worker and
	// stream, with whole lines; a line of more than 64 KiB is cut and marked. A Write that
	// hangs holds up that worker only. While eight Writes hang whose workers have died, the
	// output of further workers is thrown away. If processes outlive their workers and
	// still hold such pipes, 64 of the pipes are read.
	Output func(w *Process) (stdout, stderr io.Writer)

	// Stdin is a worker's standard input. Default: the null device, since of
	// several processes that read a terminal each gets a part, and one in the
	// background is stopped by it.
	Stdin *os.File

	// Credential, if set, makes workers run as that user and those groups. The
	// master needs the privilege to do so. It opens the sockets as its own user; Listen
	// says where a unix socket may lie then. HOME, USER and LOGNAME are those of the
	// workers' user, unless Env sets them. On Windows SetupMaster returns an error.
	Credential *Credential

	// Scheduling says how connections reach the workers: [Shared], [RoundRobin], [Sharded],
	// [LeastConnections] or [ByClient]. Zero is Shared. A [ListenConfig] can differ for one address.
	Scheduling Scheduling

	// MaxConnections is how many connections a worker may have at a time, of all its
	// listeners together. A worker that has as many accepts no more until one is
	// closed. New connections wait in the kernel's queue ([ListenerStats].Backlog) for
	// another worker or a free place, and are refused when that queue is full. A
	// connection that is kept alive counts as long as it is open, so the server should
	// have an IdleTimeout. A connection that comes with a message counts, but is never
	// refused. Those of package quic count too, from their ClientHello on. Default: 0, any
	// number. It does not bound node workers.
	MaxConnections int

	// MaxProcs is the GOMAXPROCS of a worker. Default: the master's
	// runtime.GOMAXPROCS(0) divided by Workers, at least 1. A GOMAXPROCS in Env
	// or in Fork's env overrides the default, but not a MaxProcs given here.
	// When the master's GOMAXPROCS changes, as when its cgroup gets more CPU, workers
	// that run get their new share at their next heartbeat (Watchdog.Interval).
	MaxProcs int

	// MemoryLimit is the GOMEMLIMIT of a worker, in bytes: how much its runtime
	// tries not to exceed. Default: the master's GOMEMLIMIT, if that is set,
	// divided by Workers. A GOMEMLIMIT in Env or in Fork's env overrides the
	// default, but not a MemoryLimit given here. Negative: an error.
	MemoryLimit int64

	// ManualReady makes a worker ready only when it calls [Process.Ready],
	// instead of at its first Accept or ReadFrom. A Foreign one says READY=1 to its
	// NOTIFY_SOCKET (sd_notify, Linux), or the master calls Ready of its Process.
	ManualReady bool

	// StartTimeout is how long a worker may take until it is online, and under
	// ManualReady until it is ready. Then it is killed, which counts as a crash; but
	// not while a debugger is attached to it (Linux). Default: 60 s, as puma's; systemd has 90 s.
	StartTimeout time.Duration

	// ReadyFor is how long a replacement (of [Reload], or of Recycle) must have been
	// ready before its predecessor is drained: a worker may listen and then fail at
	// once. If the replacement dies in that time the reload fails. It fails as well when a
	// new worker dies in a slot that was replaced before. Default: 500 ms; negative: none.
	ReadyFor time.Duration

	// ShutdownTimeout bounds every drain: a worker that has not exited by then
	// is killed with SIGKILL. Requests have two seconds less (of less than 4 s the
	// half), for the OnShutdown hooks follow them. Default: 30 s, as gunicorn's and puma's.
	ShutdownTimeout time.Duration

	// ShutdownDelay is how long the cluster goes on serving when Run (a signal, or
	// its ctx) or Disconnect stops it, before the workers drain, so that balancers
	// notice that it is no longer ready. Meanwhile [Stopping] is closed in every process,
	// the master's Context has ended, a service manager has been told STOPPING=1, workers
	// that die are replaced, and Fork, AutoFork, Scale and Reload return ErrClosed. A
	// second signal, or the end of Disconnect's ctx, ends the delay. ShutdownTimeout begins
	// after it. Reload, Scale, Recycle and the stop of one worker do without it. Default:
	// none.
	ShutdownDelay time.Duration

	// AllowListen is asked before the master opens an address for a worker; an
	// error refuses it and reaches the worker's Listen as EACCES with its text.
	// The address is what will be bound: a literal IP and a port number, or an absolute
	// path. For a multicast group it is the wildcard of its family, since that is what
	// package net binds. A path may lead through symbolic links; those that a worker of
	// another user (Credential) could have made are refused anyway. AllowListen is called
	// on a goroutine of its own, may block and may call anything. Default: any address is
	// allowed.
	AllowListen func(w *Process, network, address string) error

	// ListenFDs are descriptors of the master that workers may listen on by their
	// number, as with node's listen({fd}): sockets that listen, and bound UDP sockets. They
	// must stay open as long as workers are forked. The descriptors of a service manager
	// need not be named here. AllowListen gets their real addresses. Default: none; a
	// worker that asks for another descriptor gets EACCES. Not on Windows.
	ListenFDs []int

	// MaxMessage is the size in bytes, without the newline that ends it, of the largest
	// message that the master and each worker take in. Send and Request
	// return ErrMessageTooLong for a larger one. A larger one that comes all the same is
	// dropped and reported through OnError. Default: 16 MiB.
	MaxMessage int

	// MaxQueue bounds two things for each worker, in bytes: the messages that wait to be
	// written (beyond it Send returns ErrBacklog), and those that have arrived and that
	// no callback has taken yet (beyond it the channel is not read). Default: 64 MiB.
	MaxQueue int

	// MaxStore is how many bytes the store of package coord has room for: keys and
	// values, and 128 bytes for each entry. When it is full, the entries that were used
	// least recently are dropped. Default: 64 MiB.
	MaxStore int

	// Backoff says how long a slot waits after a crash before it is filled again.
	Backoff Backoff

	// MaxBootFailures is how many workers in a row may die in one slot before they are
	// ready; then Run gives up with ErrBootLoop. It does so only while no worker of the
	// cluster has ever been ready, or online for Backoff.Reset. Deaths are counted, not
	// time, so that a program that is slow to fail is found as well. Default: 5;
	// negative: never.
	MaxBootFailures int

	// Watchdog finds workers that hang.
	Watchdog Watchdog

	// Recycle replaces workers that have served long enough. Default: never.
	Recycle Recycle

	// MinReady is how many workers must be up before a service manager is told
	// READY=1 (sd_notify). Default: all.
	MinReady int

	// FDStore has a service manager keep the listening sockets beyond the master (systemd's
	// file descriptor store, on Linux; read when Run begins): after a crash of the master,
	// or systemctl restart, connections have waited and none was refused. The unit needs
	// FileDescriptorStoreMax=. What the next process does not listen on is given up once it
	// is ready. Not kept are Sharded and ByClient addresses, which is logged, those of
	// package quic, Sockets and ListenFDs. Default: the sockets end with the master.
	FDStore bool

	// NoSignals makes Run leave all signals to the program.
	NoSignals bool

	// NoUpgradeCheck makes [Upgrade] execute the new program without a check, for a
	// program whose main must not run twice up to AutoFork. If the new program does not
	// start then, the master has ended.
	NoUpgradeCheck bool

	// ReapOrphans makes Run wait for children that are not its workers. Default
	// (nil): it does if the master is PID 1. A program that starts children of its own
	// and is slow to wait for them sets it to false.
	ReapOrphans *bool

	// Logger gets crashes and their backoff, kills after a timeout, and errors for which
	// no OnError callback is registered. Nothing is logged while all is well. Default:
	// slog.Default().
	Logger *slog.Logger
}

// Credential is the user that workers run as; see [Options].
type Credential struct {
	UID, GID uint32
	Groups   []uint32 // supplementary groups; none unless given, the master's are dropped
}

// Backoff says how long a slot waits after each of several crashes in a row. After the
// first one it is filled again at once, for that may be the only one; after the second
// it waits for Min, and after each further one Factor times as long, up to Max.
type Backoff struct {
	Min    time.Duration // default: 100 ms, as PM2's
	Max    time.Duration // default: 15 s
	Factor float64       // default: 2; at least 1
	Reset  time.Duration // when a worker has been ready for so long, the next crash counts as a first one. Default: 30 s
	Jitter float64       // each wait is longer or shorter by up to this fraction. Default: 0.2; negative: none
}

// Watchdog finds workers that hang. The master pings each, and a Go worker
// answers when its OnCheck functions have returned. Node workers are not watched, nor
// are workers that start or drain. A worker that a debugger has stopped is not ended
// (Linux).
type Watchdog struct {
	Interval time.Duration // between pings. Default: 5 s
	Timeout  time.Duration // without an answer, until the worker is ended. Default: 60 s, as puma's; negative: off
}

// Recycle replaces workers that have reached a limit, one at a time in the
// cluster. A replacement is up before its predecessor drains. A limit of zero is off.
type Recycle struct {
	Connections int           // that the worker has accepted; those of node workers are counted under RoundRobin only
	Age         time.Duration // since the fork
	Memory      int64         // resident bytes, measured every Watchdog.Interval
	Jitter      float64       // each worker's limits differ by up to this fraction, so that not all are due at once. Default: 0.2; negative: none
	MinAge      time.Duration // a younger worker is not replaced. Default: 10 s
}

// ExitNoRestart is the exit status (78, EX_CONFIG of sysexits.h) of a worker that is not
// to be replaced, since another start would fail in the same way.
const ExitNoRestart = supervise.ExitNoRestart

// settings are Options that have been checked and have their defaults. Two defaults are
// worked out anew at each use: which file this program is, and a worker's share of the
// cores and the memory, which depends on the number of workers. A settings value is
// constant.
type settings struct {
	Options
	program string // the path of what a worker runs; "" for this program
	shares  bool   // MaxProcs is a share of the master's
	divides bool   // MemoryLimit is a share of the master's
}

const (
	defaultStartTimeout    = 60 * time.Second
	defaultReadyFor        = 500 * time.Millisecond
	defaultReadyAfter      = time.Second
	defaultShutdownTimeout = 30 * time.Second
	defaultMaxMessage      = 16 << 20
	defaultMaxQueue        = 64 << 20
	defaultMaxStore        = 64 << 20
)

// resolve returns the settings of o, or an error that names the field at fault. A value
// that equals the default, as in what Settings returns, counts as not given.
func (o Options) resolve() (*settings, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	setDefault(&o.Workers, runtime.GOMAXPROCS(0))
	setDefault(&o.StartTimeout, defaultStartTimeout)
	setDefault(&o.ReadyFor, defaultReadyFor)
	if err := o.resolveForeign(); err != nil {
		return nil, err
	}
	setDefault(&o.ShutdownTimeout, defaultShutdownTimeout)
	setDefault(&o.MaxMessage, defaultMaxMessage)
	setDefault(&o.MaxQueue, defaultMaxQueue)
	setDefault(&o.MaxStore, defaultMaxStore)
	setDefault(&o.Scheduling, Shared)
	setDefault(&o.Backoff.Min, 100*time.Millisecond)
	setDefault(&o.Backoff.Max, max(15*time.Second, o.Backoff.Min))
	setDefault(&o.Backoff.Factor, 2)
	setDefault(&o.Backoff.Reset, 30*time.Second)
	setDefault(&o.Backoff.Jitter, 0.2)
	setDefault(&o.MaxBootFailures, 5)
	setDefault(&o.Watchdog.Interval, 5*time.Second)
	setDefault(&o.Watchdog.Timeout, 60*time.Second)
	setDefault(&o.Recycle.Jitter, 0.2)
	setDefault(&o.Recycle.MinAge, 10*time.Second)
	if o.Args == nil {
		o.Args = os.Args[1:]
	}
	o.Args = slices.Clone(o.Args)
	o.Env, o.ListenFDs = slices.Clone(o.Env), slices.Clone(o.ListenFDs)
	if o.Dir != "" && !filepath.IsAbs(o.Dir) {
		o.Dir = filepath.Join(self.Dir, o.Dir)
	}
	s := &settings{Options: o}
	s.shares = o.MaxProcs == 0 || o.MaxProcs == defaultProcs(o.Workers)
	s.divides = o.MemoryLimit == 0 || o.MemoryLimit == defaultMemory(os.Environ(), o.Workers)
	if o.Exec != "" && o.Exec != self.Executable {
		var err error
		if s.program, err = findProgram(o.Exec); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// findProgram returns the path of Options.Exec. It does not depend on the current
// directory, which may change.
func findProgram(name string) (path string, err error) {
	path = name
	if filepath.Base(name) == name { // Windows has two separators
		if path, err = exec.LookPath(name); err != nil {
			return "", fmt.Errorf("cluster: Options.Exec: %w", err)
		}
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(self.Dir, path)
	}
	return path, nil
}

// shown is s as Settings returns it: as Options, with every default filled in.
func (s *settings) shown() Options {
	o := s.Options
	o.Args, o.Env = slices.Clone(o.Args), slices.Clone(o.Env)
	o.ListenFDs, o.Sockets = slices.Clone(o.ListenFDs), slices.Clone(o.Sockets)
	o.Exec, o.MaxProcs, o.MemoryLimit = s.program, s.procs(), s.memory(os.Environ())
	setDefault(&o.Exec, self.Executable)
	return o
}

// withWorkers is s with another number of workers.
func (s *settings) withWorkers(n int) *settings {
	changed := *s
	changed.Workers = n
	return &changed
}

// procs is the GOMAXPROCS of a worker: N workers that each use every core
// would oversubscribe the machine N times.
func (s *settings) procs() int {
	if s.shares {
		return defaultProcs(s.Workers)
	}
	return s.MaxProcs
}

// defaultProcs is a worker's share of the cores.
func defaultProcs(workers int) int { return max(1, runtime.GOMAXPROCS(0)/max(1, workers)) }

// memory is the GOMEMLIMIT of a worker, or 0 for none. env is the master's.
func (s *settings) memory(env []string) int64 {
	if s.divides {
		return defaultMemory(env, s.Workers)
	}
	return s.MemoryLimit
}

// defaultMemory is a worker's share of the master's GOMEMLIMIT, or 0 for none.
func defaultMemory(env []string, workers int) int64 {
	n := process.MemoryLimit(env)
	return max(min(1, n), n/int64(max(1, workers)))
}

// supervision is what the supervisor needs to know.
func (s *settings) supervision() supervise.Settings {
	settings := supervise.Settings{
		Workers: s.Workers, StartTimeout: s.StartTimeout, ShutdownTimeout: s.ShutdownTimeout, ReadyFor: max(0, s.ReadyFor), ManualReady: s.ManualReady, MaxBootFailures: s.MaxBootFailures,
		Backoff: supervise.Backoff(s.Backoff), Watchdog: supervise.Watchdog(s.Watchdog), Recycle: supervise.Recycle(s.Recycle),
	}
	if s.Foreign {
		settings.ManualReady = true // a Foreign worker is ready by its word, or after ReadyAfter
		if !s.ManualReady {
			settings.ReadyAfter = s.ReadyAfter
		}
	}
	return settings
}

// logger returns Logger or its default, which is looked up at each use since a
// program may set slog's default late.
func (s *settings) logger() *slog.Logger {
	if s.Logger != nil {
		return s.Logger
	}
	return slog.Default()
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (o *Options) validate() error {
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"Workers", int64(o.Workers)},
		{"MaxConnections", int64(o.MaxConnections)},
		{"MaxProcs", int64(o.MaxProcs)},
		{"MemoryLimit", o.MemoryLimit},
		{"StartTimeout", int64(o.StartTimeout)},
		{"ShutdownTimeout", int64(o.ShutdownTimeout)},
		{"ReadyAfter", int64(o.ReadyAfter)},
		{"ShutdownDelay", int64(o.ShutdownDelay)},
		{"MaxMessage", int64(o.MaxMessage)},
		{"MaxQueue", int64(o.MaxQueue)},
		{"MaxStore", int64(o.MaxStore)},
		{"Backoff.Min", int64(o.Backoff.Min)},
		{"Backoff.Max", int64(o.Backoff.Max)},
		{"Backoff.Reset", int64(o.Backoff.Reset)},
		{"Watchdog.Interval", int64(o.Watchdog.Interval)},
		{"Recycle.Connections", int64(o.Recycle.Connections)},
		{"Recycle.Age", int64(o.Recycle.Age)},
		{"Recycle.Memory", o.Recycle.Memory},
		{"Recycle.MinAge", int64(o.Recycle.MinAge)},
		{"MinReady", int64(o.MinReady)},
	} {
		if f.value < 0 {
			return fmt.Errorf("cluster: Options.%s is %d: it must not be negative (0 is the default)", f.name, f.value)
		}
	}
	if !o.Scheduling.known() {
		return fmt.Errorf("cluster: Options.Scheduling is %d: use Shared, RoundRobin, Sharded, LeastConnections or ByClient", int(o.Scheduling))
	}
	switch b := o.Backoff; {
	case b.Factor != 0 && !(b.Factor >= 1):
		return fmt.Errorf("cluster: Options.Backoff.Factor is %v: it must be at least 1", b.Factor)
	case !(b.Jitter < 1), !(o.Recycle.Jitter < 1):
		return fmt.Errorf("cluster: Options: a Jitter is %v: it is a fraction below 1", max(b.Jitter, o.Recycle.Jitter))
	case b.Max != 0 && b.Max < b.Min:
		return fmt.Errorf("cluster: Options.Backoff.Max is %v: it must not be less than Min, %v", b.Max, b.Min)
	}
	if err := validateEnv("Options.Env", o.Env); err != nil {
		return err
	}
	for _, a := range append(slices.Clone(o.Args), o.Title) {
		if strings.ContainsRune(a, 0) {
			return fmt.Errorf("cluster: Options.Args or Title: %q contains a NUL byte", a)
		}
	}
	for _, fd := range o.ListenFDs {
		if _, _, err := socket.Listens(fd); err != nil {
			return fmt.Errorf("cluster: Options.ListenFDs: %w", err)
		}
	}
	if o.Credential != nil && !process.CanSwitchUser {
		return fmt.Errorf("cluster: Options.Credential on Windows: %w; start the master as the user that workers are to be", ErrNotSupported)
	}
	return nil
}
