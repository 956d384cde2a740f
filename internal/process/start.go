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
	Title   string   // the name that it is given; "": that by which the program was named
	Args    []string // without it
	Env     []string // all of it
	Dir     string   // "": this process's
	User    *User    // nil: this process's; see [CanSwitchUser]

	Stdin *os.File // nil, or closed: nothing to read

	// Stdout and Stderr get what the process writes. A file is inherited; another
	// writer is written to by goroutines of this package, by one if both are the
	// same. nil is this process's own. io.Discard is the null device.
	Stdout, Stderr io.Writer

	// KeepTail keeps the end of what the process writes to its standard error,
	// until Settle. That is not so if Stderr is a file or io.Discard.
	KeepTail bool

	// Tap, unless it is nil, is told of all that the process writes, but to a file or
	// to io.Discard, before that goes where it goes: as whole lines, of "stdout" or
	// "stderr", or of "stdout" if both are the same. It is called by the goroutines
	// that copy. What the process would inherit passes through here for that if
	// TapOwn: see [Process.Through].
	Tap    func(stream string, lines []byte)
	TapOwn bool

	// Channel is inherited, under the number that ChannelNumber tells.
	Channel ChannelEnd

	// Foreign is for a process that gets no channel. It is nil for all others.
	Foreign *Foreign
}

// User is as whom a process runs.
type User struct {
	UID, GID uint32
	Groups   []uint32 // and no others
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
	// OS is the process as package os sees it. Wait and Release are not for the
	// caller.
	OS *os.Process
	// Started is when.
	Started time.Time
	// Unbound is why the process may outlive this one when it is killed, where the
	// system could prevent that; else nil.
	Unbound error
	// Muted is why what it writes is thrown away, though its Spec has writers for
	// it; else nil.
	Muted error

	launcher *Launcher
	foreign  bool
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
	p := &Process{launcher: l, foreign: spec.Foreign != nil}
	if err := p.pipeOutput(cmd, &spec); err != nil {
		return nil, err
	}
	p.Started = time.Now()
	proc, err := l.execute(cmd, &spec)
	p.output.begin()
	if err != nil {
		p.output.drain()
		return nil, startError(err, cmd)
	}
	p.OS, p.PID = proc, proc.Pid
	p.Unbound = l.bind(p.OS)
	return p, nil
}

func (l *Launcher) execute(cmd *exec.Cmd, spec *Spec) (*os.Process, error) {
	if spec.Foreign != nil {
		return l.startForeign(cmd, spec)
	}
	return spec.Program.start(cmd)
}

// Wait returns how the process has ended, once it has and its output has been
// copied. It is to be called once.
func (p *Process) Wait() (*os.ProcessState, error) {
	state, err := waitExit(p.OS)
	if p.foreign {
		p.launcher.forker.ended()
	}
	p.output.drain()
	return state, err
}

// Signal sends the process a signal.
func (p *Process) Signal(sig os.Signal) error { return p.OS.Signal(sig) }
