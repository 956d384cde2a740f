//go:build unix

package cluster

import (
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// workerChannelFD is the descriptor at which a worker finds its channel: the
// first after its stdio, as under node.
const workerChannelFD = 3

// sigKill ends a process that takes no orders.
const sigKill = syscall.SIGKILL

// stopSignals end Run.
var stopSignals = []os.Signal{syscall.SIGTERM, syscall.SIGINT}

// The signals by which Run is told to do something else than to stop, as
// gunicorn and unicorn have them.
const (
	reloadSignal = syscall.SIGHUP
	upSignal     = syscall.SIGTTIN
	downSignal   = syscall.SIGTTOU
	dumpSignal   = syscall.SIGQUIT // the Go runtime prints all goroutines
)

var controlSignals = []os.Signal{reloadSignal, upSignal, downSignal}

// isProbe tells the signal that only asks whether a process exists.
func isProbe(sig os.Signal) bool { return sig == syscall.Signal(0) }

var seal sync.Once

// startProcess makes p's channel and process. Both ends of the channel are
// close-on-exec here; only p gets one, at a number of its own.
func startProcess(p *Process, env []string) error {
	// Whoever started the master may have left descriptors open, and so may a
	// library: no worker needs them.
	seal.Do(sealDescriptors)
	c := p.child
	ours, theirs, err := newChannelPair()
	if err != nil {
		return err
	}
	p.link = newLink(ours, p, &masterSide{m: c.m, p: p}, peerUnknown, c.opts)
	// The worker's end must not stay open here, or its death would be no EOF.
	defer theirs.Close()

	cmd := &exec.Cmd{
		Args:       append([]string{c.gen.bin.argv0}, c.opts.Args...),
		Dir:        c.opts.Dir,
		Env:        workerEnv(p, env, workerChannelFD),
		ExtraFiles: []*os.File{theirs},
	}
	if cred := c.opts.Credential; cred != nil {
		// Only then: with any attributes package os leaves it to the child to
		// find that Dir is missing, and names the program in the error.
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred.sys()}
	}
	if _, err := os.Stdin.Stat(); err == nil {
		cmd.Stdin = os.Stdin
	}
	c.output, err = newOutputPipes(p, cmd)
	if err != nil {
		p.link.end()
		return err
	}
	path, done, err := c.gen.bin.forExec(highest(cmd))
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
		return err
	}
	c.proc, p.pid = cmd.Process, cmd.Process.Pid
	return nil
}

// highest is the highest descriptor that cmd hands to the new process.
func highest(cmd *exec.Cmd) (fd int) {
	files := append([]*os.File(nil), cmd.ExtraFiles...)
	for _, s := range []any{cmd.Stdin, cmd.Stdout, cmd.Stderr} {
		if f, ok := s.(*os.File); ok && f != nil {
			files = append(files, f)
		}
	}
	for _, f := range files {
		if rc, err := f.SyscallConn(); err == nil { // Fd would make it blocking
			rc.Control(func(n uintptr) { fd = max(fd, int(n)) })
		}
	}
	return fd
}

func (c *Credential) sys() *syscall.Credential {
	return &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: c.Groups}
}

func validateCredential(*Credential) error { return nil }

func exitOf(state *os.ProcessState) Exit {
	e := Exit{Code: -1, State: state}
	if state == nil {
		return e
	}
	e.Code = state.ExitCode()
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = ws.Signal()
	}
	return e
}

// openMax bounds the loop over descriptors where no system call does it.
const openMax = 1 << 16

// sealDescriptors marks every descriptor above 2 close-on-exec.
func sealDescriptors() {
	if closeRangeCloexec() {
		return
	}
	dir, err := os.Open("/dev/fd")
	if err == nil {
		defer dir.Close()
		names, _ := dir.Readdirnames(-1)
		for _, name := range names {
			if fd, err := strconv.Atoi(name); err == nil && fd > 2 {
				unix.CloseOnExec(fd)
			}
		}
		return
	}
	for fd := 3; fd < openMax; fd++ {
		unix.CloseOnExec(fd)
	}
}

// outputPipe is the pipe of a worker's output.
func outputPipe() (r, w *os.File, err error) { return os.Pipe() }

// envName is the name of a variable by which it is compared.
func envName(name string) string { return name }

// letDrain: a worker whose master was killed drains anyway.
func letDrain(*Process) {}

// isOpen reports whether f, one of the standard files, is there to be inherited.
func isOpen(f *os.File) bool {
	_, err := f.Stat()
	return err == nil
}
