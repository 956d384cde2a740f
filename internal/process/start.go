package process

import (
	"io"
	"os"
	"os/exec"
	"time"
)

// Spec says what to start, and how.
type Spec struct {
	Program *Program
	Title   string   // the process's name, its first argument; "": the name by which the program was found
	Args    []string // the arguments after Title
	Env     []string // the whole environment
	Dir     string   // "": this process's
	User    *User    // nil: this process's; see [CanSwitchUser]

	Stdin *os.File // nil, or closed: nothing to read

	// Stdout and Stderr get what the process writes. nil is this process's own,
	// io.Discard the null device. A file is inherited. Goroutines of this package write
	// to any other writer: one for each, or a single one if both are the same.
	Stdout, Stderr io.Writer

	// KeepTail keeps the end of what the process writes to its standard error,
	// until Settle. It has no effect if Stderr is a file or io.Discard.
	KeepTail bool

	// Tap, unless it is nil, gets all that the process writes to other writers than files
	// and io.Discard, before they do: as whole lines of "stdout" or "stderr", or of
	// "stdout" if both writers are the same. The goroutines that copy call it. With
	// TapOwn, output that the process would inherit passes through this process too, so
	// that Tap gets it: see [Process.Through].
	Tap    func(stream string, lines []byte)
	TapOwn bool

	// Channel is inherited, under the number that ChannelNumber returns.
	Channel ChannelEnd

	// Foreign is for a process that gets no channel. It is nil for all others.
	Foreign *Foreign
}

// User is the user and the groups that a process runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // all supplementary groups
}

// Launcher starts processes. The zero value is ready.
type Launcher struct {
	shared
	leftovers leftovers
	forker    forker
}

// Process is a process that a Launcher has started.
type Process struct {
	// PID is its number.
	PID int
	// OS is the process as package os sees it. The caller must not call Wait or Release
	// on it.
	OS *os.Process
	// Started is when it was started.
	Started time.Time
	// Unbound, unless nil, is why the process may live on when this one is killed,
	// although the system has means against that.
	Unbound error
	// Muted, unless nil, is why its output is thrown away, although its Spec has writers
	// for it.
	Muted error

	launcher *Launcher
	thread   *forkThread // that has started it, if it is Foreign
	output   outputPipes
	tail     *stderrTail // nil if it is not kept
	through  [3]bool     // see Through; constant after Start
}

// Start starts a process. It takes as long as the system takes to execute the
// program.
func (l *Launcher) Start(spec Spec) (*Process, error) {
	title := spec.Title
	if title == "" {
		title = spec.Program.argv0
	}
	cmd := &exec.Cmd{
		Args: append([]string{title}, spec.Args...),
		Dir:  spec.Dir,
		Env:  spec.Env,
	}
	if spec.Stdin != nil && isOpen(spec.Stdin) {
		cmd.Stdin = spec.Stdin
	}
	l.prepare(cmd, &spec)
	p := &Process{launcher: l}
	if err := p.pipeOutput(cmd, &spec); err != nil {
		return nil, err
	}
	p.Started = time.Now()
	proc, err := l.execute(p, cmd, &spec)
	p.output.begin()
	if err != nil {
		p.output.drain()
		return nil, startError(err, cmd)
	}
	p.OS, p.PID = proc, proc.Pid
	p.Unbound = l.bind(p.OS)
	return p, nil
}

func (l *Launcher) execute(p *Process, cmd *exec.Cmd, spec *Spec) (proc *os.Process, err error) {
	if spec.Foreign == nil {
		return l.limited(func() (*os.Process, error) { return spec.Program.start(cmd) })
	}
	proc, p.thread, err = l.startForeign(cmd, spec)
	return proc, err
}

// Wait waits until the process has ended and its output has been copied, and returns how
// it has ended. It has to be called once.
func (p *Process) Wait() (*os.ProcessState, error) {
	state, err := waitExit(p.OS)
	if p.thread != nil {
		p.launcher.forker.ended(p.thread)
	}
	p.output.drain()
	return state, err
}

// Signal sends the process a signal.
func (p *Process) Signal(sig os.Signal) error { return p.OS.Signal(sig) }
