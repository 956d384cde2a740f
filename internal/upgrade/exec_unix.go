//go:build unix

package upgrade

import (
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exec is the replacement of this process's program.
type Exec struct {
	Path string
	Args []string // the first is the program's name
	Env  []string
	Dir  string // the working directory; "": as it is

	Handover *Handover
	Fallback int   // the descriptor of the program that runs now, or -1
	Keep     []int // descriptors that the new program gets beside those of Handover

	// Files is the limit of open files that this process began with; 0 while the runtime
	// knows it. It forgets it with a Run that fails, which sets it here.
	Files uint64
}

// Run executes the program. It returns only if that fails, and then all is as before.
// Nothing else of this process should be under way. last, unless nil, is called when no
// signal is caught any more and before Handover is written. If it returns an error, Run
// returns that.
func (e *Exec) Run(last func() error) error {
	// The thread that executes is the one whose signals are looked at.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// No process that is started meanwhile may inherit the descriptors.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()

	keep := append(append([]int{}, e.Handover.FDs...), e.Keep...)
	if e.Fallback >= 0 {
		keep = append(keep, e.Fallback)
	}
	sealAll()
	for _, fd := range keep {
		if err := setCloseOnExec(fd, false); err != nil {
			sealOnly(keep)
			return err
		}
	}
	defer sealOnly(keep)
	if back, err := enter(e.Dir); err != nil {
		return err
	} else if back != nil {
		defer back()
	}
	quiet := quietSignals()
	defer quiet.undo()
	if last != nil {
		if err := last(); err != nil {
			return err
		}
	}
	state, err := e.Handover.write()
	if err != nil {
		return err
	}
	defer unix.Close(state)
	if err := setCloseOnExec(state, false); err != nil {
		return err
	}
	return e.execute(append(e.Env, variable(state, e.Fallback)))
}

// execute makes the system call. Before it syscall.Exec lowers the limit of descriptors, which
// the runtime has raised at its start. After a failure execute raises the limit again.
func (e *Exec) execute(env []string) error {
	var raised, began unix.Rlimit
	limits := unix.Getrlimit(unix.RLIMIT_NOFILE, &raised)
	if limits == nil && e.Files != 0 {
		began = raised
		assign(&began.Cur, e.Files)
		unix.Setrlimit(unix.RLIMIT_NOFILE, &began)
	}
	err := syscall.Exec(e.Path, e.Args, env)
	if limits == nil && unix.Getrlimit(unix.RLIMIT_NOFILE, &began) == nil && began.Cur != raised.Cur {
		e.Files = uint64(began.Cur)
		unix.Setrlimit(unix.RLIMIT_NOFILE, &raised)
	}
	return &os.PathError{Op: "exec", Path: e.Path, Err: err}
}

// assign sets a limit, whose type is another one on each system.
func assign[N ~int64 | ~uint64](to *N, n uint64) { *to = N(n) }

func setCloseOnExec(fd int, on bool) error {
	flags := 0
	if on {
		flags = unix.FD_CLOEXEC
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags)
	return os.NewSyscallError("fcntl", err)
}

func sealOnly(fds []int) {
	for _, fd := range fds {
		setCloseOnExec(fd, true)
	}
}

// enter changes the working directory, and returns what changes it back.
func enter(dir string) (back func(), err error) {
	if dir == "" {
		return nil, nil
	}
	was, err := unix.Open(".", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	if err := unix.Chdir(dir); err != nil {
		unix.Close(was)
		return nil, &os.PathError{Op: "chdir", Path: dir, Err: err}
	}
	return func() {
		unix.Fchdir(was)
		unix.Close(was)
	}, nil
}
