//go:build unix

package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
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
		Env:        workerEnv(p, env),
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

// workerEnv is the environment of a worker: the master's without what is only
// the master's, then Options.Env, then Fork's, then what makes it a worker.
func workerEnv(p *Process, forkEnv []string) []string {
	o := p.child.opts
	env := slices.DeleteFunc(slices.Clone(p.child.gen.env), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return slices.Contains(roleEnv, k) || slices.Contains(masterEnv, k)
	})
	procs := "GOMAXPROCS=" + strconv.Itoa(o.procs())
	env = append(env, procs)
	env = append(append(env, o.Env...), forkEnv...)
	if o.MaxProcs > 0 {
		env = append(env, procs)
	}
	hello, _ := json.Marshal(announcement{
		Version: protocolVersion, Slot: p.slot, ManualReady: o.ManualReady, Connections: p.child.recycle.connections,
		ShutdownTimeout: o.ShutdownTimeout, MaxMessage: o.MaxMessage, MaxQueue: o.MaxQueue,
	})
	id := strconv.Itoa(p.id)
	return append(env,
		envWorkerID+"="+id,
		envUniqueID+"="+id,
		envChannelFD+"="+strconv.Itoa(workerChannelFD),
		envSerialization+"=json",
		envAnnouncement+"="+string(hello),
	)
}

// masterEnv stays with the master: sockets and notifications that a service
// manager has addressed to its pid.
var masterEnv = []string{"NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC"}

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

// outputPipes copy a worker's output to the writers of Options.Output.
type outputPipes struct {
	close   []io.Closer // what the worker has and the master must not keep
	begin   []func()
	copying sync.WaitGroup
}

// newOutputPipes sets cmd's standard output and error.
func newOutputPipes(p *Process, cmd *exec.Cmd) (*outputPipes, error) {
	out, err, failed := p.child.m.writers(p)
	if failed != nil {
		return nil, failed
	}
	o := new(outputPipes)
	// One pipe for both keeps the lines in order and the writer's calls apart.
	same := err != nil && sameWriter(err, out)
	err = tailOf(p, err)
	if same {
		out = err
	}
	if cmd.Stdout, failed = o.target(out, os.Stdout); failed != nil {
		return nil, failed
	}
	if same {
		cmd.Stderr = cmd.Stdout
		return o, nil
	}
	if cmd.Stderr, failed = o.target(err, os.Stderr); failed != nil {
		o.started()
		return nil, failed
	}
	return o, nil
}

// sameWriter compares two writers, of which the type may not be comparable.
func sameWriter(a, b io.Writer) bool {
	defer func() { recover() }()
	return a == b
}

// target returns the file that the worker gets for w: never another writer,
// for which package exec would wait for the worker's own children too.
func (o *outputPipes) target(w io.Writer, inherit *os.File) (*os.File, error) {
	switch w {
	case nil:
		if _, err := inherit.Stat(); err != nil {
			return nil, nil // closed in the master: /dev/null
		}
		return inherit, nil
	case io.Discard:
		return nil, nil
	}
	if f, ok := w.(*os.File); ok {
		return f, nil
	}
	r, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	o.close = append(o.close, pw)
	o.begin = append(o.begin, func() {
		defer o.copying.Done()
		defer r.Close()
		// A buffer of its own: with io.Copy's every worker would hold 32 KiB.
		if _, err := io.CopyBuffer(w, struct{ io.Reader }{r}, make([]byte, 4<<10)); err != nil {
			io.Copy(io.Discard, r) // a writer that fails must not stop the worker
		}
	})
	return pw, nil
}

// started lets the copying begin, once the worker has its ends or never will.
func (o *outputPipes) started() {
	for _, c := range o.close {
		c.Close()
	}
	for _, copy := range o.begin {
		o.copying.Add(1)
		go copy()
	}
}

// outputGrace is how long a death waits for the worker's last output. A
// grandchild can hold the pipe open for ever; its output is copied on.
const outputGrace = 250 * time.Millisecond

// drain waits until the output has been copied.
func (o *outputPipes) drain() {
	if len(o.begin) == 0 {
		return
	}
	done := make(chan struct{})
	go func() {
		o.copying.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(outputGrace):
	}
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

// uidText names the user that opens sockets, for error messages.
func uidText(uid int) string { return fmt.Sprintf("the master opens it, as uid %d", uid) }
