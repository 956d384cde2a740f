package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/windows"

	"github.com/go-cluster/cluster/internal/handle"
)

// startProcess makes p's channel and process. The process inherits its standard
// files, its end of the channel, and nothing else: package syscall gives the
// system the list.
func startProcess(p *Process, env []string) error {
	c := p.child
	ours, theirs, err := newChannelPair()
	if err != nil {
		return err
	}
	p.link = newLink(ours, p, &masterSide{m: c.m, p: p}, peerUnknown, c.opts)
	// The worker's end must not stay open here, or its death would be no EOF.
	defer theirs.Close()

	cmd := &exec.Cmd{
		Args: append([]string{c.gen.bin.argv0}, c.opts.Args...),
		Dir:  c.opts.Dir,
		Env:  workerEnv(p, env, int(theirs)),
		SysProcAttr: &syscall.SysProcAttr{
			AdditionalInheritedHandles: []syscall.Handle{syscall.Handle(theirs)},
			// Ctrl-C is for the master, which orders the workers to drain.
			CreationFlags: windows.CREATE_NEW_PROCESS_GROUP,
		},
	}
	if isOpen(os.Stdin) {
		cmd.Stdin = os.Stdin
	}
	c.output, err = newOutputPipes(p, cmd)
	if err != nil {
		p.link.end()
		return err
	}
	path, done, err := c.gen.bin.forExec(0)
	if err == nil {
		cmd.Path = path
		c.started = time.Now()
		err = cmd.Start()
		done()
	}
	c.output.started()
	if err != nil {
		c.output.drain()
		p.link.end()
		return startError(err, cmd)
	}
	c.proc, p.pid = cmd.Process, cmd.Process.Pid
	if err := enterJob(c.proc); err != nil && !exited(c.proc) {
		p.logger().Warn("cluster: a worker is in no job and may outlive the master", "worker", p.id, "pid", p.pid, "err", err)
	}
	return nil
}

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

// exited reports whether proc has ended.
func exited(proc *os.Process) (yes bool) {
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

func validateCredential(c *Credential) error {
	if c != nil {
		return fmt.Errorf("cluster: Options.Credential on Windows: %w; start the master as the user that workers are to be", ErrNotSupported)
	}
	return nil
}

func exitOf(state *os.ProcessState) Exit {
	if state == nil {
		return Exit{Code: -1}
	}
	return Exit{Code: state.ExitCode(), State: state}
}

// envName is the name of a variable by which it is compared: case does not
// count here.
func envName(name string) string { return strings.ToUpper(name) }

// isOpen reports whether f, one of the standard files, is there to be inherited.
// Stat would ask for more than a file that was itself inherited may tell.
func isOpen(f *os.File) bool {
	_, err := windows.GetFileType(windows.Handle(f.Fd()))
	return err == nil
}
