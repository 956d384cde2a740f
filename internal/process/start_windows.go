package process

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/windows"

	"github.com/go-cluster/cluster/internal/handle"
)

// CanSwitchUser reports whether a process can run as another user.
const CanSwitchUser = false

// ChannelEnd is the end of a channel that a process is given: an inheritable
// handle.
type ChannelEnd = windows.Handle

// ChannelNumber is the number under which a process finds its end.
func ChannelNumber(end ChannelEnd) int { return int(end) }

// shared is what the processes of a Launcher share.
type shared struct{ job job }

// prepare sets what is particular to the system. The process inherits its
// standard files, its end of the channel, and nothing else: package syscall gives
// the system the list.
func (*Launcher) prepare(cmd *exec.Cmd, spec *Spec) {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		AdditionalInheritedHandles: []syscall.Handle{syscall.Handle(spec.Channel)},
		// Ctrl-C is for the master, which orders the workers to drain.
		CreationFlags: windows.CREATE_NEW_PROCESS_GROUP,
	}
}

// as is of no use here: see CanSwitchUser.
func as(*exec.Cmd, *User) {}

// startError is err, which says neither that the directory is missing nor which,
// and of a missing program that it is not in PATH.
func startError(err error, cmd *exec.Cmd) error {
	if cmd.Dir != "" {
		if _, dirErr := os.Stat(cmd.Dir); dirErr != nil {
			return dirErr
		}
	}
	if errors.Is(err, exec.ErrNotFound) {
		return &fs.PathError{Op: "program", Path: cmd.Path, Err: fs.ErrNotExist}
	}
	return err
}

// LimitFiles does nothing: there is no such limit.
func (*Launcher) LimitFiles(uint64) {}

func (*Launcher) limited(start func() (*os.Process, error)) (*os.Process, error) { return start() }

// bind puts a process into the job. One that has ended already may be outside.
func (l *Launcher) bind(proc *os.Process) error {
	if err := l.job.enter(proc); err != nil && !hasEnded(proc) {
		return err
	}
	return nil
}

// LetDrain lets a process outlive this one when it is killed: it sees the end of
// its channel, drains, and has a clock of its own for that. One that was never
// let, or hangs before, ends with its master.
func (p *Process) LetDrain() {
	if p != nil {
		p.launcher.job.lend(p.OS)
	}
}

// hasEnded reports whether proc has.
func hasEnded(proc *os.Process) (yes bool) {
	proc.WithHandle(func(h uintptr) {
		event, err := windows.WaitForSingleObject(windows.Handle(h), 0)
		yes = err == nil && event == windows.WAIT_OBJECT_0
	})
	return yes
}

// waitExit waits for proc without a thread: os.Process.Wait alone keeps one in
// the kernel for each worker.
func waitExit(proc *os.Process) (*os.ProcessState, error) {
	var done *handle.Watch
	proc.WithHandle(func(h uintptr) { done, _ = handle.NewWatch(windows.Handle(h), true) })
	if done != nil {
		<-done.Signal
		done.Stop() // the handle is open until Wait
	}
	return proc.Wait()
}

// SignalOf is nil: no signal ends a process here.
func SignalOf(*os.ProcessState) os.Signal { return nil }

// EnvName is the name of a variable by which it is compared: case does not count
// here.
func EnvName(name string) string { return strings.ToUpper(name) }

// isOpen reports whether f, one of the standard files, is there to be inherited.
// Stat would ask for more than a file that was itself inherited may tell.
func isOpen(f *os.File) bool {
	_, err := windows.GetFileType(windows.Handle(f.Fd()))
	return err == nil
}

// AwaitExit reports false: nothing tells here that a process has ended but its status.
func (*Process) AwaitExit() bool { return false }
