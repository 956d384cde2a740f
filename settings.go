package cluster

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/supervise"
)

// settings are Options that are checked, with what they leave open filled in. What
// they leave open on purpose stays so: a worker goes on running this program,
// wherever that lies, and the workers go on sharing the cores when their number
// changes. Settings are not changed any more.
type settings struct {
	Options
	program string // that a worker runs; "" for this one
	shares  bool   // MaxProcs follows Workers
}

const (
	defaultStartTimeout    = 60 * time.Second
	defaultShutdownTimeout = 30 * time.Second
	defaultMaxMessage      = 16 << 20
	defaultMaxQueue        = 64 << 20
)

// resolve returns the settings that o makes, or an error that names the field at
// fault. A default that Settings has shown is the same as none.
func (o Options) resolve() (*settings, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	setDefault(&o.Workers, runtime.GOMAXPROCS(0))
	setDefault(&o.StartTimeout, defaultStartTimeout)
	setDefault(&o.ShutdownTimeout, defaultShutdownTimeout)
	setDefault(&o.MaxMessage, defaultMaxMessage)
	setDefault(&o.MaxQueue, defaultMaxQueue)
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
	o.Env = slices.Clone(o.Env)
	if o.Dir != "" && !filepath.IsAbs(o.Dir) {
		o.Dir = filepath.Join(self.Dir, o.Dir)
	}
	s := &settings{Options: o, shares: o.MaxProcs == 0 || o.MaxProcs == defaultProcs(o.Workers)}
	if o.Exec != "" && o.Exec != self.Executable {
		var err error
		if s.program, err = findProgram(o.Exec); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// findProgram makes a path of an Exec that does not depend on the current
// directory.
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
	o.Exec, o.MaxProcs = s.program, s.procs()
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

// supervision is what the supervisor needs to know.
func (s *settings) supervision() supervise.Settings {
	return supervise.Settings{
		Workers: s.Workers, StartTimeout: s.StartTimeout, ShutdownTimeout: s.ShutdownTimeout, ManualReady: s.ManualReady, MaxBootFailures: s.MaxBootFailures,
		Backoff: supervise.Backoff(s.Backoff), Watchdog: supervise.Watchdog(s.Watchdog), Recycle: supervise.Recycle(s.Recycle),
	}
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
		{"MaxProcs", int64(o.MaxProcs)},
		{"StartTimeout", int64(o.StartTimeout)},
		{"ShutdownTimeout", int64(o.ShutdownTimeout)},
		{"MaxMessage", int64(o.MaxMessage)},
		{"MaxQueue", int64(o.MaxQueue)},
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
	if o.Scheduling < 0 || o.Scheduling > RoundRobin {
		return fmt.Errorf("cluster: Options.Scheduling is %d: use Shared or RoundRobin", int(o.Scheduling))
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
	for _, a := range o.Args {
		if strings.ContainsRune(a, 0) {
			return fmt.Errorf("cluster: Options.Args: %q contains a NUL byte", a)
		}
	}
	if o.Credential != nil && !process.CanSwitchUser {
		return fmt.Errorf("cluster: Options.Credential on Windows: %w; start the master as the user that workers are to be", ErrNotSupported)
	}
	return nil
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
