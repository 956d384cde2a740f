//go:build unix

package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// CanPassSockets reports whether a process can get sockets by their descriptors.
const CanPassSockets = true

// becomeTime bounds the wait for a process to become its program: the process may be
// stopped, or its file system slow.
const becomeTime = time.Minute

// Become executes the program that a Launcher has started this process for. It returns at
// once in any other process. It has to be called before anything else in the process.
func Become() {
	text, ok := os.LookupEnv(becomeEnv)
	if !ok {
		return
	}
	os.Unsetenv(becomeEnv)
	var b become
	if json.Unmarshal([]byte(text), &b) != nil || b.Status <= firstSocket-1 {
		return // somebody else's variable
	}
	pid := strconv.Itoa(os.Getpid())
	for of, to := range map[string]string{"LISTEN_FDS": "LISTEN_PID", "WATCHDOG_USEC": "WATCHDOG_PID"} {
		if os.Getenv(of) != "" {
			os.Setenv(to, pid)
		}
	}
	for fd := firstSocket; fd < firstSocket+b.Sockets; fd++ {
		unix.SetNonblock(fd, true) // the fork has made the socket blocking, for all who have it
	}
	unix.CloseOnExec(b.Status)
	if b.Held > 0 {
		unix.CloseOnExec(b.Held)
	}
	// Not execve(2) itself: syscall.Exec restores the limit of open files, which the
	// runtime has raised for this program.
	err := syscall.Exec(b.Path, os.Args, os.Environ())
	if b.Held > 0 {
		err = syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", b.Held), os.Args, os.Environ())
	}
	var errno syscall.Errno
	errors.As(err, &errno)
	unix.Write(b.Status, []byte(strconv.Itoa(int(errno))))
	os.Exit(127)
}

// startForeign starts a process that becomes the Spec's program.
func (l *Launcher) startForeign(cmd *exec.Cmd, spec *Spec) (*os.Process, *forkThread, error) {
	if cmd.Dir != "" {
		if _, err := os.Stat(cmd.Dir); err != nil {
			return nil, nil, err
		}
	}
	name := spec.Program.nameToExec()
	proc, t, err := l.startOnce(cmd, spec, name)
	if err == nil && name != "" && !spec.Program.liesAt(name) {
		// Another file was put there just now, and may be what was executed.
		l.discard(proc, t)
		proc, t, err = l.startOnce(cmd, spec, "")
	}
	return proc, t, err
}

// discard ends a process that is not what it should be.
func (l *Launcher) discard(proc *os.Process, t *forkThread) {
	proc.Kill()
	proc.Wait()
	l.forker.ended(t)
}

// HoldThread returns what runs an exec of another program in this process on the thread
// that it has to run on: with any other, the system would end Foreign processes. release
// has to be called if the exec fails. It is an error if there is no such thread, or if it is
// not free within the time.
func (l *Launcher) HoldThread(within time.Duration) (run func(func()), release func(), err error) {
	return l.forker.hold(within)
}

// startOnce is startForeign by the name that leads to the held program, or by its
// descriptor if that is "".
func (l *Launcher) startOnce(cmd *exec.Cmd, spec *Spec, name string) (*os.Process, *forkThread, error) {
	held, err := spec.Program.duplicate()
	if err != nil {
		return nil, nil, err
	}
	sockets, err := duplicates(spec.Foreign)
	defer func() {
		for i, f := range sockets {
			f.Close()
			// Package os has made it blocking, for all who have it.
			unix.SetNonblock(spec.Foreign.Sockets[i].FD(), true)
		}
	}()
	if held != nil {
		defer held.Close()
	}
	if err != nil {
		return nil, nil, err
	}
	told, tell, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer told.Close()
	defer tell.Close() // once more, for the returns before the Close below
	once := *cmd       // an exec.Cmd runs only once
	once.ExtraFiles = append(sockets[:len(sockets):len(sockets)], tell)
	b := become{Path: name, Status: firstSocket + len(sockets), Sockets: len(sockets)}
	if held != nil {
		once.ExtraFiles = append(once.ExtraFiles, held)
		b.Held = b.Status + 1
	}
	if b.Path == "" {
		b.Path = spec.Program.pathToExec(b.Held)
	}
	text, err := json.Marshal(b)
	if err != nil {
		return nil, nil, err
	}
	once.Env = append(once.Env[:len(once.Env):len(once.Env)], becomeEnv+"="+string(text))
	// In a group of its own it does not get the signals of a terminal. The master gets
	// them, and asks the process to end.
	alone(&once)
	proc, t, err := l.forker.start(func() (*os.Process, error) {
		return l.limited(func() (*os.Process, error) { return spec.Foreign.Self.start(&once) })
	})
	if err != nil {
		return nil, nil, err
	}
	tell.Close()
	if err := became(told, spec.Program); err != nil {
		l.discard(proc, t)
		return nil, nil, err
	}
	return proc, t, nil
}

// became waits until a process has executed its program, or has failed to.
func became(told *os.File, p *Program) error {
	told.SetReadDeadline(time.Now().Add(becomeTime))
	text, err := io.ReadAll(told)
	switch {
	case err != nil:
		return fmt.Errorf("%s was not executed within %v: %w", p.argv0, becomeTime, err)
	case len(text) == 0:
		return nil
	}
	errno, _ := strconv.Atoi(string(text))
	return &os.PathError{Op: "fork/exec", Path: p.argv0, Err: syscall.Errno(errno)}
}

// duplicates are files of the sockets, for package os, which closes none of them.
func duplicates(f *Foreign) (files []*os.File, err error) {
	for _, h := range f.Sockets {
		fd, err := unix.FcntlInt(uintptr(h.FD()), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return files, os.NewSyscallError("fcntl", err)
		}
		files = append(files, os.NewFile(uintptr(fd), "socket"))
	}
	return files, nil
}

// alone makes cmd run in a process group of its own. On Linux it gets a SIGTERM when this
// process ends.
func alone(cmd *exec.Cmd) {
	attr := syscall.SysProcAttr{}
	if cmd.SysProcAttr != nil {
		attr = *cmd.SysProcAttr
	}
	attr.Setpgid = true
	endWithParent(&attr)
	cmd.SysProcAttr = &attr
}
