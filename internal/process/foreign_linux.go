package process

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// endWithParent has the process sent a SIGTERM at the end of the thread that forked it.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGTERM }

// forker is a thread that starts processes. It has to live until all of them have ended,
// since the kernel sends them the SIGTERM at the end of the thread that has forked them.
type forker struct {
	mu   sync.Mutex
	left int // processes
	jobs chan func()
}

// start starts a process on the thread. If it does, ended has to be called when the
// process has ended.
func (f *forker) start(fork func() (*os.Process, error)) (proc *os.Process, err error) {
	f.mu.Lock()
	if f.left == 0 {
		f.jobs = make(chan func())
		go serveForks(f.jobs)
	}
	f.left++
	jobs := f.jobs
	f.mu.Unlock()
	done := make(chan struct{})
	jobs <- func() {
		proc, err = fork()
		close(done)
	}
	<-done
	if err != nil {
		f.ended()
	}
	return proc, err
}

// ended is told that a process has ended.
func (f *forker) ended() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left--; f.left == 0 {
		close(f.jobs)
	}
}

func serveForks(jobs <-chan func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for job := range jobs {
		job()
	}
}

// nameToExec is a path that leads to the held program, or "": see startByName.
func (p *Program) nameToExec() string {
	if p.info == nil {
		return ""
	}
	p.mu.Lock()
	resolved := ""
	if p.f != nil {
		resolved, _ = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", p.f.Fd()))
	}
	p.mu.Unlock()
	for _, name := range []string{p.path, resolved} {
		if p.liesAt(name) {
			return name
		}
	}
	return ""
}

// pathToExec is the path by which a process executes the program that it has as the
// descriptor, or 0 if that is not held.
func (p *Program) pathToExec(held int) string {
	if held == 0 {
		return p.path
	}
	return "/proc/self/fd/" + strconv.Itoa(held)
}

// duplicate is a descriptor of the held program, or nil if it is not held.
func (p *Program) duplicate() (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, ErrClosed
	case p.f == nil:
		return nil, nil
	}
	fd, err := unix.FcntlInt(p.f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), p.name), nil
}

// maxDescent bounds the walk from a process to those that started it.
const maxDescent = 100

// Descends reports whether the process pid is from, or descends from it. A process whose
// parent has ended descends from none but PID 1 any more.
func Descends(pid, from int) bool {
	for range maxDescent {
		if pid == from {
			return true
		}
		stat := readStat(pid)
		if stat == nil {
			return false
		}
		if pid, _ = strconv.Atoi(stat[statParent]); pid <= 1 {
			return false
		}
	}
	return false
}
